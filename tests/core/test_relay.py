"""Denoisers that take turns in one run: one clock, one calibration, one schedule."""

import copy
import io
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.helpers import anatomy
from kit.planning import MIXTURE, PAIR, Mixture, OneStep, ToySampler
from kit.relays import BOUNDARY, EVALUATIONS, Pair, Turns
from smoothcache_core import (
    Calibration,
    Sampler,
    Schedule,
    SmoothCacheWarning,
    attach,
    cached,
    calibrate,
    evaluate,
    fit,
    plan,
    transfer,
)
from smoothcache_core.adapters import whole_evaluations
from smoothcache_core.calls import FunctionDenoiser
from smoothcache_core.errors import (
    AdapterError,
    AttachError,
    CalibrationError,
    SamplerError,
    ScheduleError,
)
from smoothcache_core.metrics import relative_l2
from smoothcache_core.pipelines import Relay
from smoothcache_core.runtime import attachment_of
from smoothcache_core.sources import plan_sites, smooth
from smoothcache_core.sources.interval import interval_of
from torch import nn

SITES = ("parts.0", "parts.1")
STAGES = (0,) * BOUNDARY + (1,) * (EVALUATIONS - BOUNDARY)


def calibration_of(pair: Pair, **settings: Any) -> Calibration:
    known = {"seeds": range(6), "progress": False} | settings
    return calibrate(pair.sampler(), **known)


@pytest.fixture(scope="module")
def measured() -> Calibration:
    return calibration_of(Pair())


@pytest.fixture(scope="module")
def guided() -> Calibration:
    return calibration_of(Pair("sequential"))


def error_of(pair: Pair, schedule: Schedule, seeds: tuple[int, ...] = (20, 21, 22)) -> float:
    plain = [pair.run(seed) for seed in seeds]
    with cached(pair.relay, MIXTURE, schedule, branches=pair.run.branches) as stats:
        others = [pair.run(seed) for seed in seeds]
    assert stats.recomputed == 0
    return float(torch.cat([relative_l2(a, b) for a, b in zip(plain, others, strict=True)]).mean())


# ---------------------------------------------------------------------------- measuring


def test_one_calibration_is_of_all_evaluations(measured: Calibration):
    assert measured.evaluations == EVALUATIONS
    assert measured.fingerprint.denoisers == STAGES
    assert measured.fingerprint.handovers == (BOUNDARY,)
    assert measured.fingerprint.model_class == "Mixture + Mixture"
    assert [site.path for site in measured.sites] == list(SITES)
    assert not measured.remark


def test_a_calibration_file_keeps_who_took_which_turn(measured: Calibration, tmp_path: Path):
    measured.save(tmp_path / "c.safetensors")
    assert Calibration.load(tmp_path / "c.safetensors").fingerprint == measured.fingerprint


def test_outputs_of_sites_are_infinitely_far_across_a_handover(measured: Calibration):
    errors = measured.totals[:, 0]
    lags, evaluations = errors.shape[1:]
    for lag in range(1, lags + 1):
        for first in range(evaluations - lag):
            across = first < BOUNDARY <= first + lag
            assert np.isinf(errors[:, lag - 1, first]).all() == across, (lag, first)


def test_costs_are_the_mean_of_those_of_both():
    small, large = Mixture((1.0,), 4), Mixture((1.0,), 4)
    large.get_submodule("parts.0").linear = nn.Sequential(twice(), twice())
    run = ToySampler(lambda *a: (small, large)[int(a[1]) > 0](*a), lambda: OneStep(4))
    one = calibrate(run.value(MIXTURE, model=small, run=lambda seed: alone(small, seed)), seeds=[0])
    both = calibrate(run.value(MIXTURE, model=Relay(small, large)), seeds=[0], progress=False)
    assert both.cost.total * 4 == one.cost.total * (1 + 2 * 3)


def twice() -> nn.Module:
    return nn.Linear(4, 4, bias=False).requires_grad_(False)


def alone(model: Mixture, seed: int) -> torch.Tensor:
    return ToySampler(model, lambda: OneStep(4))(seed)


def test_another_boundary_is_another_measurement(measured: Calibration):
    other = calibration_of(Pair(boundaries=(6,)), seeds=[9])
    with pytest.raises(CalibrationError, match="denoisers is"):
        Calibration.merge(measured, other)


def test_a_checkpoint_of_another_boundary_is_not_continued(tmp_path: Path):
    file = tmp_path / "c.safetensors"
    calibration_of(Pair(), seeds=[0], checkpoint=file)
    with pytest.raises(CalibrationError, match="denoisers is"):
        calibration_of(Pair(boundaries=(6,)), seeds=[0, 1], checkpoint=file)


def test_it_is_not_transferred(measured: Calibration):
    with pytest.raises(CalibrationError, match="calibrate at the new number"):
        transfer(measured, Pair().sampler())


# ---------------------------------------------------------------------------- planning and applying


@pytest.mark.parametrize("passes", ["one", "sequential", "batched"])
def test_computing_everything_changes_no_bit(passes: Any):
    pair = Pair(passes)
    schedule = Schedule(evaluations=EVALUATIONS, rows={"part": (1,) * EVALUATIONS})
    plain = pair.run(0)
    with (
        pytest.warns(SmoothCacheWarning, match="computes everything"),
        cached(pair.relay, MIXTURE, schedule, branches=pair.run.branches),
    ):
        assert torch.equal(pair.run(0), plain)


@pytest.mark.parametrize("target", ["denoiser", "site", "kind", "evaluation"])
def test_a_plan_is_followed_as_it_was_planned(measured: Calibration, target: Any):
    pair = Pair()
    schedule = plan(measured, compute=0.6, target=target)
    plain = pair.run(30)
    pair.calls()
    before = [anatomy(member) for member in pair.members]
    with cached(pair.relay, MIXTURE, schedule) as stats:
        first, second = pair.run(30), pair.run(30)
    assert torch.equal(first, second)
    assert not torch.equal(first, plain)
    called = pair.calls()
    assert [anatomy(member) for member in pair.members] == before
    assert stats.recomputed == 0
    for name in ("denoiser",) if target == "denoiser" else SITES:
        row = next(schedule.rows[key] for key in (name, "part") if key in schedule.rows)
        assert stats.computed[name] == 2 * sum(row)
        assert stats.reused[name] == 2 * row.count(0)
    if target == "denoiser":
        row = schedule.rows["denoiser"]
        assert called == (2 * sum(row[:BOUNDARY]), 2 * sum(row[BOUNDARY:]))


@pytest.mark.parametrize("target", ["denoiser", "site"])
def test_a_plan_errs_less_than_reuse(measured: Calibration, target: Any):
    schedule = plan(measured, compute=0.6, target=target)
    rows = {
        "denoiser": {"denoiser": (1, 0, 1, 0, 1, 0, 1, 0, 1, 1)},
        "site": {"part": (1, 0, 1, 0, 1, 0, 1, 0, 1, 1)},
    }[target]
    naive = Schedule(evaluations=EVALUATIONS, rows=rows, fingerprint=measured.fingerprint)
    planned = error_of(Pair(), schedule)
    assert planned < error_of(Pair(), naive)
    assert schedule.prediction is not None
    assert 0.2 < planned / schedule.prediction.error < 5.0


def test_sites_compute_where_another_denoiser_takes_over(measured: Calibration):
    made = [
        *(plan_sites(measured, compute=0.6, per=per) for per in ("site", "kind", "evaluation")),
        smooth(measured, alpha=10.0),
        interval_of(measured, 3),
    ]
    for schedule in made:
        assert all(row[BOUNDARY] for row in schedule.rows.values()), schedule.source
        for site in measured.sites:
            timeline = schedule.timeline(site)
            for evaluation, sources in enumerate(timeline.sources):
                assert all(STAGES[each] == STAGES[evaluation] for each in sources)


def test_whole_evaluations_are_filled_across_the_handover_as_measured(measured: Calibration):
    row = (1, 1, 1, 1, 0, 1, 1, 1, 1, 1)
    filled = Schedule(
        evaluations=EVALUATIONS, rows={"denoiser": row}, fingerprint=measured.fingerprint
    )
    pair = Pair()
    with cached(pair.relay, MIXTURE, filled) as stats:
        pair.run(0)
    assert stats.reused == {"denoiser": 1}
    assert pair.calls() == (BOUNDARY, EVALUATIONS - BOUNDARY - 1)


def test_what_one_kept_never_fills_the_sites_of_the_other(measured: Calibration):
    rows = {"part": (1, 1, 1, 1, 0, 1, 1, 1, 1, 0)}
    filled = Schedule(evaluations=EVALUATIONS, rows=rows, fingerprint=measured.fingerprint)
    pair = Pair()
    plain = pair.run(0)
    with cached(pair.relay, MIXTURE, filled) as stats:
        assert not torch.equal(pair.run(0), plain)
    assert stats.recomputed == 2
    assert stats.reused == {"parts.0": 1, "parts.1": 1}


def test_unconditional_passes_are_skipped_where_they_are_calls(guided: Calibration):
    pair = Pair("sequential")
    schedule = plan(guided, compute=0.7, target="guidance")
    assert 0 in schedule.rows["guidance"]
    plain = pair.run(30)
    pair.calls()
    with cached(pair.relay, MIXTURE, schedule, branches=PAIR) as stats:
        first, second = pair.run(30), pair.run(30)
    assert torch.equal(first, second)
    assert stats.recomputed == 0
    called, both = schedule.rows["denoiser"], schedule.rows["guidance"]
    passes = [one + (one and two) for one, two in zip(called, both, strict=True)]
    assert pair.calls() == (2 * sum(passes[:BOUNDARY]), 2 * sum(passes[BOUNDARY:]))
    assert relative_l2(plain, first).mean() < 0.1


def test_fitting_lowers_the_error(measured: Calibration):
    schedule = plan(measured, compute=0.5, target="denoiser")
    fitted = fit(Pair().sampler(), schedule, seeds=range(6), progress=False)
    assert fitted.prediction is not None
    assert error_of(Pair(), fitted) <= 1.05 * error_of(Pair(), schedule)


def test_fills_of_sites_are_fitted(measured: Calibration):
    schedule = plan(measured, compute=0.7, target="site")
    fitted = fit(Pair().sampler(), schedule, seeds=range(6), progress=False)
    assert error_of(Pair(), fitted) <= 1.05 * error_of(Pair(), schedule)


def test_it_is_judged_like_one_model(measured: Calibration):
    schedule = plan(measured, compute=0.6, target="denoiser")
    report = evaluate(Pair().sampler(), {"planned": schedule}, seeds=[40, 41], progress=False)
    assert report.fingerprint.model_class == "Mixture + Mixture"


# ---------------------------------------------------------------------------- another handover


@pytest.mark.parametrize("boundary", [3, 6])
@pytest.mark.parametrize("target", ["denoiser", "site"])
def test_another_boundary_is_told_and_never_filled_across(
    measured: Calibration, target: Any, boundary: int
):
    schedule = plan(measured, compute=0.6, target=target)
    pair = Pair(boundaries=(boundary,))
    told = pytest.warns(SmoothCacheWarning, match="take turns in another way")
    with told, cached(pair.relay, MIXTURE, schedule) as stats:
        pair.run(0)
    assert stats.recomputed > 0
    first, second = pair.calls()
    if target == "denoiser":
        others = range(*sorted((BOUNDARY, boundary)))
        computed = set(np.flatnonzero(schedule.rows["denoiser"])) | {*others, others.stop}
        assert first >= sum(each < boundary for each in computed)
        assert second >= sum(each >= boundary for each in computed)


def test_whole_evaluations_of_a_schedule_that_was_not_measured_are_not_filled_across():
    row = (1, 1, 1, 0, 0, 0, 1, 1, 1, 1)
    pair = Pair()
    schedule = Schedule(evaluations=EVALUATIONS, rows={"denoiser": row})
    told = pytest.warns(SmoothCacheWarning, match="takes over at evaluation 4")
    with told, cached(pair.relay, MIXTURE, schedule) as stats:
        pair.run(0)
    assert pair.calls() == (3, 5)
    assert stats.recomputed == 1


def test_nothing_is_told_where_nothing_crosses():
    row = (1, 1, 1, 0, 1, 0, 1, 1, 1, 1)
    pair = Pair()
    with cached(pair.relay, MIXTURE, Schedule(evaluations=EVALUATIONS, rows={"denoiser": row})):
        pair.run(0)
    assert pair.calls() == (3, 5)


@pytest.mark.parametrize("boundaries", [(3, 7), tuple(range(1, EVALUATIONS))])
def test_denoisers_may_take_turns_more_than_once(boundaries: tuple[int, ...]):
    pair = Pair(boundaries=boundaries)
    known = calibration_of(pair)
    assert known.fingerprint.handovers == boundaries
    schedule = plan(known, compute=0.6, target="denoiser")
    assert error_of(pair, schedule) < 0.1
    if len(boundaries) < 3:
        assert error_of(pair, plan(known, compute=0.8, target="site")) < 0.1


def test_three_denoisers_take_turns():
    members = [Mixture((1.0, 0.3), EVALUATIONS, seed=seed) for seed in (1, 2, 3)]
    turns = Turns(members, (3, 6))
    run = ToySampler(turns, lambda: OneStep(EVALUATIONS))
    sampler = run.value(MIXTURE, model=Relay(*members))
    known = calibrate(sampler, seeds=range(4), progress=False)
    assert known.fingerprint.denoisers == (0, 0, 0, 1, 1, 1, 2, 2, 2, 2)
    with cached(sampler.model, MIXTURE, plan(known, compute=0.6)) as stats:
        run(0)
    assert stats.recomputed == 0


def test_one_that_is_never_called_is_not_touched_by_a_run(measured: Calibration):
    pair = Pair(boundaries=(EVALUATIONS,))
    known = calibration_of(pair, seeds=range(4))
    assert known.fingerprint.denoisers == (0,) * EVALUATIONS
    assert pair.calls()[1] == 0
    assert error_of(pair, plan(known, compute=0.6)) < 0.1


# ---------------------------------------------------------------------------- what is refused


def test_a_schedule_of_two_is_refused_on_one(measured: Calibration):
    schedule = plan(measured, compute=0.6)
    with pytest.raises(ScheduleError, match=r"'Mixture' instead of 'Mixture \+ Mixture'"):
        attach(Pair().members[0], MIXTURE, schedule)


def test_a_schedule_of_one_is_refused_on_two():
    model = Pair().members[0]
    alone = ToySampler(model, lambda: OneStep(EVALUATIONS)).value(MIXTURE)
    schedule = plan(calibrate(alone, seeds=range(4), progress=False), compute=0.6)
    with pytest.raises(ScheduleError, match=r"'Mixture \+ Mixture' instead of 'Mixture'"):
        attach(Pair().relay, MIXTURE, schedule)


def test_other_weights_of_either_are_told(measured: Calibration):
    schedule = plan(measured, compute=0.6)
    for changed in (0, 1):
        pair = Pair()
        nn.init.normal_(next(pair.members[changed].parameters()))
        with pytest.warns(SmoothCacheWarning, match="weights are those of another model"):
            attach(pair.relay, MIXTURE, schedule).detach(quietly=True)


def test_what_cannot_take_turns_is_refused():
    model = Pair().members[0]
    with pytest.raises(SamplerError, match="two denoisers or more"):
        Relay(model)
    with pytest.raises(SamplerError, match="occurs twice"):
        Relay(model, model)
    with pytest.raises(SamplerError, match="not a str"):
        Relay(model, "transformer_2")  # pyright: ignore[reportArgumentType]
    with pytest.raises(SamplerError, match="not called itself"):
        Pair().relay(torch.zeros(1))


def test_denoisers_that_take_their_latent_elsewhere_are_refused():
    class Other(Mixture):
        def forward(self, timestep: Any, hidden_states: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            return super().forward(hidden_states, timestep)

    relay = Relay(Mixture((1.0, 0.3), EVALUATIONS), Other((1.0, 0.3), EVALUATIONS))
    with pytest.raises(AdapterError, match="at the same places"):
        attach(relay, MIXTURE, Schedule(evaluations=2, rows={"denoiser": (1, 0)}))


def test_sites_that_only_one_has_are_computed():
    members = Mixture((1.0, 0.3), EVALUATIONS), Mixture((0.8, 0.4, 0.2), EVALUATIONS)
    run = ToySampler(Turns(members), lambda: OneStep(EVALUATIONS))
    known = calibrate(run.value(MIXTURE, model=Relay(*members)), seeds=range(4), progress=False)
    assert [site.path for site in known.sites] == list(SITES)
    for member in members:
        member.forget()
    with cached(Relay(*members), MIXTURE, plan(known, compute=0.8, target="site")):
        run(0)
    assert vars(members[1].get_submodule("parts.2"))["calls"] == members[1].calls


# ---------------------------------------------------------------------------- as for one model


def test_a_cache_is_found_by_any_of_them(measured: Calibration):
    pair = Pair()
    attachment = attach(pair.relay, MIXTURE, plan(measured, compute=0.6))
    found = [attachment_of(model) for model in (pair.relay, *pair.members, Relay(*pair.members))]
    assert found == [attachment] * 4
    for model in (pair.relay, pair.members[1], Relay(pair.members[1], Mixture((1.0,), 2))):
        with pytest.raises(AttachError, match="attached to this Mixture already"):
            attach(model, MIXTURE, Schedule(evaluations=2, rows={"denoiser": (1, 0)}))
    attachment.detach(quietly=True)
    assert attachment_of(pair.relay) is None


def test_an_exception_leaves_nothing_behind(measured: Calibration):
    pair = Pair()
    schedule = plan(measured, compute=0.6, target="site")
    expected = error_of(pair, schedule)
    pair.calls()
    before = [anatomy(member) for member in pair.members]
    attachment = attach(pair.relay, MIXTURE, schedule)
    broken = Turns(pair.members)

    def run_into_it(latent: Any, timestep: Any, label: Any) -> Any:
        if int(timestep) == BOUNDARY + 1:
            return broken(latent[..., :2], timestep, label)
        return broken(latent, timestep, label)

    with pytest.raises(RuntimeError):
        ToySampler(run_into_it, lambda: OneStep(EVALUATIONS))(0)
    assert attachment.stats.bytes_held == 0
    again = pair.run(20)
    attachment.detach()
    pair.calls()
    assert [anatomy(member) for member in pair.members] == before
    assert expected == error_of(pair, schedule)
    with cached(pair.relay, MIXTURE, schedule):
        assert torch.equal(pair.run(20), again)


@pytest.mark.parametrize("target", ["denoiser", "site"])
def test_copies_have_no_cache(measured: Calibration, target: Any):
    pair = Pair()
    plain = pair.run(0)
    with cached(pair.relay, MIXTURE, plan(measured, compute=0.6, target=target)):
        pair.run(0)
        copied = copy.deepcopy(pair.relay)
        buffer = io.BytesIO()
        torch.save(pair.members[1], buffer)
    again = ToySampler(Turns(tuple(copied.members)), lambda: OneStep(EVALUATIONS))
    assert torch.equal(again(0), plain)
    assert attachment_of(copied) is None


def test_requests_take_turns_on_denoisers_that_take_turns(measured: Calibration):
    pair = Pair()
    schedule = plan(measured, compute=0.6, target="site")
    with cached(pair.relay, MIXTURE, schedule):
        alone = [pair.run(seed) for seed in (0, 1)]
    solver = OneStep(EVALUATIONS)
    latents = [
        torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)
    ]
    attachment = attach(pair.relay, MIXTURE, schedule)
    starts = (0, 3)  # the second is three steps behind the first
    for step in range(EVALUATIONS + 3):
        for key, start in enumerate(starts):
            if 0 <= step - start < EVALUATIONS:
                with attachment.run(key):
                    output = pair.run.guided(latents[key], solver.timesteps[step - start])
                latents[key] = solver.step(output, step - start, latents[key])[0]
    attachment.detach()
    assert all(map(torch.equal, latents, alone))


class Announcing(Mixture):
    """Names its passes as diffusers' models do."""

    def cache_context(self, name: str, **more: Any) -> Any:
        del name, more
        return nullcontext()

    def _reset_stateful_cache(self) -> None:
        """Do what diffusers' pipelines ask for at their end."""


def test_passes_are_announced_to_whichever_takes_its_turn():
    members = Announcing((1.0, 0.3), EVALUATIONS), Announcing((0.8, 0.4), EVALUATIONS, seed=7)

    def run(seed: int) -> torch.Tensor:
        solver, generator = OneStep(EVALUATIONS), torch.Generator().manual_seed(seed)
        latent = torch.randn(2, 3, 4, generator=generator)
        for timestep in solver.timesteps:
            model = members[int(timestep) >= BOUNDARY]
            passes = []
            for label, name in enumerate(PAIR):
                with model.cache_context(name, step_index=int(timestep)):
                    passes.append(model(latent, timestep, torch.full((2,), label)))
            guided = passes[1] + 2.5 * (passes[0] - passes[1])
            latent = solver.step(guided, timestep, latent)[0]
        for member in members:
            member._reset_stateful_cache()  # pyright: ignore[reportPrivateUsage]
        return latent

    sampler = Sampler(model=Relay(*members), adapter=MIXTURE, run=run, samples=2)
    known = calibrate(sampler, seeds=range(6), progress=False)
    assert known.branches == PAIR
    schedule = plan(known, compute=0.7, target="guidance")
    plain = run(9)
    for member in members:
        member.forget()
    with cached(sampler.model, MIXTURE, schedule) as stats:
        first, second = run(9), run(9)
    assert stats.runs == 2
    assert stats.recomputed == 0
    assert torch.equal(first, second)
    assert relative_l2(plain, first).mean() < 0.1
    assert sum(member.calls for member in members) == 2 * sum(
        one + (one and two)
        for one, two in zip(schedule.rows["denoiser"], schedule.rows["guidance"], strict=True)
    )


def test_compiled_ones_stay_compiled(measured: Calibration):
    pair = Pair()
    schedule = plan(measured, compute=0.6, target="denoiser")
    with cached(pair.relay, MIXTURE, schedule):
        expected = pair.run(0)
    compiled = tuple(torch.compile(member, backend="eager") for member in pair.members)
    run = ToySampler(Turns(compiled), lambda: OneStep(EVALUATIONS))
    with cached(Relay(*compiled), MIXTURE, schedule) as stats:  # pyright: ignore[reportArgumentType]
        first, second = run(0), run(0)
    assert stats.recomputed == 0
    assert torch.equal(first, second)
    assert torch.equal(first, expected)


def test_functions_take_turns(measured: Calibration):
    pair = Pair()
    functions = [
        FunctionDenoiser(member, arguments=("hidden_states", "timestep", "label"), name="f")
        for member in (pair.members[0].forward, pair.members[1].forward)
    ]
    adapter = whole_evaluations(Relay(*functions))
    run = ToySampler(Turns(functions), lambda: OneStep(EVALUATIONS))
    sampler = run.value(adapter, model=Relay(*functions))
    known = calibrate(sampler, seeds=range(4), progress=False)
    assert known.fingerprint.handovers == (BOUNDARY,)
    schedule = plan(known, compute=0.6)
    pair.calls()
    with cached(sampler.model, adapter, schedule):
        run(0)
    row = schedule.rows["denoiser"]
    assert pair.calls() == (sum(row[:BOUNDARY]), sum(row[BOUNDARY:]))
