"""A denoiser of two latents, a video and its sound, is calibrated, planned, fitted and cached."""

import json
from dataclasses import replace

import pytest
import torch
from kit.two_latents import EVALUATIONS, TWO, TwoLatents, TwoRun
from smoothcache_core import (
    Calibration,
    PatternAdapter,
    Schedule,
    cached,
    calibrate,
    fit,
    plan,
    transfer,
)
from smoothcache_core.adapters import whole_evaluations
from smoothcache_core.adapters.sites import DENOISER
from smoothcache_core.calibrating import cost_from_shapes
from smoothcache_core.calls.call import CallReader
from smoothcache_core.errors import AttachError, ScheduleError
from smoothcache_core.metrics import relative_l2
from smoothcache_core.outputs.latents import Latents, divided
from smoothcache_core.pipelines import cached_sampler
from smoothcache_core.sources import smooth_to_compute

pytestmark = pytest.mark.filterwarnings(
    "ignore:only 4 samples", "ignore:a run of 10 evaluations", "ignore:the schedule computes every"
)


def known(run: TwoRun) -> Calibration:
    return calibrate(run.sampler(), seeds=range(4), progress=False)


def error(run: TwoRun, schedule: Schedule, seed: int = 9) -> float:
    plain = run.run(seed)
    with cached_sampler(run.sampler(), schedule) as stats:
        made, again = run.run(seed), run.run(seed)
    assert torch.equal(made, again)
    assert not stats.recomputed
    return float(relative_l2(plain, made).mean())


@pytest.mark.parametrize("target", ["denoiser", "guidance", "site"])
@pytest.mark.parametrize("strength", [None, 3.0], ids=["one pass", "two passes in a batch"])
def test_both_latents_are_planned_for(target: str, strength: float | None):
    run = TwoRun(strength=strength)
    calibration = known(run)
    assert calibration.fingerprint.latent_shape == (42,)
    if target == "guidance" and strength is None:
        return
    schedule = plan(calibration, compute=0.7, target=target)
    assert 0 < error(run, schedule) < 0.05


def test_computing_everything_changes_no_bit():
    run, schedule = TwoRun(), None
    for names in (["denoiser"], ["own", "other"]):
        rows = dict.fromkeys(names, (1,) * EVALUATIONS)
        schedule = Schedule(evaluations=EVALUATIONS, rows=rows)
        assert error(run, schedule) == 0


def test_the_coefficients_are_those_of_both_latents():
    """A fill of the video alone would err in the sound: one that is fitted errs in neither."""
    run = TwoRun(strength=None)
    schedule = plan(known(run), compute=0.5, target="denoiser")
    fitted = fit(run.sampler(), schedule, seeds=range(4), progress=False)
    plain = run.run(9)
    like = [torch.zeros(2, 3, 6), torch.zeros(2, 4, 6)]
    with cached_sampler(run.sampler(), fitted):
        made = run.run(9)
    for one, other in zip(divided(plain, like), divided(made, like), strict=True):
        assert float(relative_l2(one, other).mean()) < 0.02


def test_a_calibration_is_taken_to_another_number_of_steps():
    run = TwoRun()
    taken = transfer(known(run), run.sampler())
    assert taken.evaluations == EVALUATIONS


def test_bytes_are_known_from_shapes():
    run = TwoRun()
    assert cost_from_shapes(run.sampler()) == known(run).cost


def test_another_strength_for_the_sound_is_not_planned_for():
    calibration = known(TwoRun(sound_strength=7.0))
    assert calibration.dynamics is None
    assert "not affine" in calibration.remark
    with pytest.raises(ScheduleError, match="not affine"):
        plan(calibration, compute=0.5, target="denoiser")
    rule = smooth_to_compute(calibration, compute=0.8)  # which needs to know no solver
    assert 0 < error(TwoRun(sound_strength=7.0), rule) < 0.2


def test_the_final_latents_may_be_laid_out_in_another_way():
    """As decoders are given them; only what the last evaluation does to them is not known."""
    run = TwoRun(moved=True)
    calibration = known(run)
    assert "scaled, clipped or laid out in another way" in calibration.remark
    schedule = plan(calibration, compute=0.5, target="denoiser")
    assert schedule.row(DENOISER)[-1] == 1
    assert 0 < error(run, schedule) < 0.05


@pytest.mark.filterwarnings("ignore::smoothcache_core.errors.SmoothCacheWarning")
def test_a_sound_of_another_length_is_another_layout():
    model = TwoLatents()
    run, longer = TwoRun(model), TwoRun(model, tones=7)
    schedule = plan(known(run), compute=0.5, target="denoiser")
    alone = []
    for each in (run, longer):
        with cached_sampler(run.sampler(), schedule):
            alone.append(each.run(3))
    with cached_sampler(run.sampler(), schedule):
        together = [each.run(3) for each in (run, longer, run)]
    assert torch.equal(together[0], alone[0])
    assert torch.equal(together[1], alone[1])
    assert torch.equal(together[2], alone[0])


class TestPassesThatIsolateTheLatents:
    """A site that only some passes call: it attends to the other latent."""

    def test_sites_are_reused_where_they_are_called(self):
        run = TwoRun(isolating=True)
        calibration = known(run)
        assert "the calls of one evaluation have [4, 2] rows" in calibration.remark
        row = (1, 0) * (EVALUATIONS // 2)
        schedule = Schedule(evaluations=EVALUATIONS, rows={"own": row, "other": row})
        assert error(run, schedule) > 0
        assert error(run, schedule.changed(rows={"own": (1,) * EVALUATIONS})) == 0

    @pytest.mark.filterwarnings("ignore::smoothcache_core.errors.SmoothCacheWarning")
    def test_a_site_that_is_passed_by_later_is_refused(self):
        run = TwoRun(strength=None)
        row = (1,) * 5 + (0,) * 5
        schedule = Schedule(evaluations=EVALUATIONS, rows={"other": row})
        with cached(run.model, TWO, schedule):
            run.run(0)
            timestep, condition = torch.ones(2), torch.zeros(2, 6)
            with pytest.raises(AttachError, match=r"'blocks.0.other' was not called"):
                run.model(torch.zeros(2, 3, 6), torch.zeros(2, 4, 6), timestep, condition, True)


class TestArguments:
    """Latents are found by their names, wherever they stand."""

    def test_a_model_says_by_its_names_that_it_has_two(self):
        assert whole_evaluations(TwoLatents()).latent == TWO.latent

    def test_both_are_read_and_put_back(self):
        model = TwoLatents()
        reader = CallReader(model, TWO)
        video, sound = torch.randn(2, 3, 6), torch.randn(2, 4, 6)
        for args, kwargs in (((video, sound), {}), ((video,), {"audio_hidden_states": sound})):
            both = reader.latent(args, kwargs)
            assert isinstance(both, Latents)
            assert both.shapes == ((2, 3, 6), (2, 4, 6))
            others, named = reader.with_latent(args, kwargs, 2 * both.joined())
            again = reader.latent(others, named)
            assert all(
                torch.equal(a, 2 * b) for a, b in zip(again.tensors, (video, sound), strict=True)
            )

    def test_an_exchange_of_lengths_is_another_layout(self):
        reader = CallReader(TwoLatents(), TWO)
        one, two = torch.zeros(2, 3, 6), torch.zeros(2, 4, 6)
        first, second = reader.read((one, two), {}), reader.read((two, one), {})
        assert first.layout == second.layout
        assert first.inside != second.inside
        assert first.batch == 2

    def test_one_alone_is_a_latent_as_any_other(self):
        reader = CallReader(TwoLatents(), TWO)
        video = torch.zeros(2, 3, 6)
        assert reader.latent((video, None), {}) is video

    def test_a_schedule_records_both_names(self):
        adapter = replace(TWO, guidance=None)
        run = TwoRun()
        calibration = calibrate(run.sampler(adapter), seeds=range(1), sensitivity=0, progress=False)
        recorded = calibration.fingerprint.recorded_adapter
        assert isinstance(recorded, PatternAdapter)
        assert recorded.latent == TWO.latent
        schedule = smooth_to_compute(calibration, compute=0.8)
        again = Schedule.imported(json.loads(schedule.to_json()))
        assert again.fingerprint.recorded_adapter == recorded
