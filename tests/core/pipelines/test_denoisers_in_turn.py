"""Wan 2.2, whose pipeline hands over from one denoiser to another, with tiny random models."""

from typing import Any

import pytest
import torch
from kit.hook_reference import assert_restored, snapshot
from kit.wan import STEPS, WAN, sample, transformer, wan_pipeline, wan_sampler
from smoothcache_core import Calibration, Schedule, SmoothCacheWarning, calibrate, plan
from smoothcache_core.discovering import structure_of
from smoothcache_core.metrics import relative_l2
from smoothcache_core.pipelines import Relay, cached_sampler
from smoothcache_core.pipelines.diffusers_shaped import denoiser_part
from smoothcache_core.wrapping.denoiser import sites_of

HANDOVER = 3  # with shift 3 and 8 steps the third timestep is the last above 0.875


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", name="measured")
def measured_once(one_thread: None) -> Calibration:
    del one_thread
    return calibrate(wan_sampler(wan_pipeline()), seeds=range(4), sensitivity=1, progress=False)


def counted(pipe: Any) -> list[int]:
    """Count the calls of both transformers' innermost parts from now on."""
    calls = [0, 0]

    def count(index: int) -> Any:
        def hook(*_: object) -> None:
            calls[index] += 1

        return hook

    for index, model in enumerate((pipe.transformer, pipe.transformer_2)):
        model.proj_out.register_forward_pre_hook(count(index))
    return calls


def test_the_denoiser_of_a_pipeline_with_two_is_both():
    pipe = wan_pipeline()
    found = denoiser_part(pipe, "transformer", "unet")
    assert isinstance(found, Relay)
    assert list(found.members) == [pipe.transformer, pipe.transformer_2]
    pipe.transformer_2 = None
    assert denoiser_part(pipe, "transformer") is pipe.transformer
    alone = transformer()
    assert denoiser_part(type("Pipe", (), {"components": {"unet": alone}})(), "unet") is alone
    assert denoiser_part(type("Pipe", (), {"components": {}})(), "unet") is None


def test_sites_of_both_are_found_by_structure():
    known = wan_sampler(wan_pipeline())
    found = structure_of(known.model, known.run, around=known.around).adapter
    assert sites_of(found, known.model) == sites_of(WAN, known.model)


def test_all_evaluations_of_both_are_measured(measured: Calibration):
    known = measured.fingerprint
    assert (measured.evaluations, measured.branches) == (STEPS, ("cond", "uncond"))
    assert known.denoisers == (0,) * HANDOVER + (1,) * (STEPS - HANDOVER)
    assert not measured.remark
    assert known.guidance == {"guidance_scale": 5.0}


@pytest.mark.parametrize("target", ["denoiser", "guidance", "site", "kind"])
def test_a_plan_is_followed(measured: Calibration, target: Any):
    schedule = plan(measured, compute=0.7, target=target)
    pipe = wan_pipeline()
    plain = sample(pipe, 10)
    before = [snapshot(model) for model in (pipe.transformer, pipe.transformer_2)]
    with cached_sampler(wan_sampler(pipe), schedule) as stats:
        first = sample(pipe, 10)
        second = sample(pipe, 10)
    for model, known in zip((pipe.transformer, pipe.transformer_2), before, strict=True):
        assert_restored(model, known)
    assert (stats.runs, stats.recomputed, stats.bytes_held) == (2, 0, 0)
    assert torch.equal(first, second)
    assert schedule.prediction is not None
    assert float(relative_l2(plain, first).mean()) < 3.0 * schedule.prediction.error
    rows = {name: schedule.rows.get(name, (1,) * STEPS) for name in ("denoiser", "guidance")}
    if target in ("denoiser", "guidance"):
        calls = counted(pipe)
        with cached_sampler(wan_sampler(pipe), schedule):
            sample(pipe, 10)
        each = [one + (one and two) for one, two in zip(*rows.values(), strict=True)]
        assert calls == [sum(each[:HANDOVER]), sum(each[HANDOVER:])]
    else:
        for path, number in stats.computed.items():
            row = next(schedule.rows[key] for key in schedule.rows if key.split("-")[0] in path)
            row = schedule.rows.get(path, row)
            assert number == 2 * 2 * sum(row), path


def test_another_strength_in_the_second_stage_is_measured():
    pipe = wan_pipeline()
    known = calibrate(
        wan_sampler(pipe, guidance_scale_2=2.0), seeds=range(4), sensitivity=1, progress=False
    )
    assert known.dynamics is not None
    weights = known.dynamics.response.weights[:, 0]
    assert weights[0] == pytest.approx(5.0, rel=1e-3)
    assert weights[HANDOVER] == pytest.approx(2.0, rel=1e-3)
    schedule = plan(known, compute=0.6)
    plain = sample(pipe, 10, guidance_scale_2=2.0)
    with cached_sampler(wan_sampler(pipe), schedule) as stats:
        other = sample(pipe, 10, guidance_scale_2=2.0)
    assert stats.recomputed == 0
    assert float(relative_l2(plain, other).mean()) < 0.1


def test_another_boundary_is_told(measured: Calibration):
    schedule = plan(measured, compute=0.6, target="denoiser")
    pipe = wan_pipeline(0.6)
    told = pytest.warns(SmoothCacheWarning, match="take turns in another way")
    with told, cached_sampler(wan_sampler(pipe), schedule) as stats:
        sample(pipe, 10)
    assert stats.recomputed > 0


@pytest.mark.parametrize("how", ["model", "group"])
def test_offloading_brings_only_what_is_called(measured: Calibration, how: str):
    schedule = plan(measured, compute=0.6, target="denoiser")
    pipe = wan_pipeline()
    with cached_sampler(wan_sampler(pipe), schedule):
        expected = sample(pipe, 10)
    offload(pipe, how)
    calls = counted(pipe)
    with cached_sampler(wan_sampler(pipe), schedule) as stats:
        first, second = sample(pipe, 10), sample(pipe, 10)
    assert torch.equal(first, expected)
    assert torch.equal(second, expected)
    row = schedule.rows["denoiser"]
    assert stats.recomputed == 0
    assert calls == [4 * sum(row[:HANDOVER]), 4 * sum(row[HANDOVER:])]
    plain = sample(pipe, 10)
    assert not torch.equal(plain, expected)


def offload(pipe: Any, how: str) -> None:
    cpu = torch.device("cpu")
    if how == "model":
        pipe.enable_model_cpu_offload(device="cpu")
    else:
        for model in (pipe.transformer, pipe.transformer_2):
            model.enable_group_offload(
                onload_device=cpu, offload_device=cpu, offload_type="leaf_level"
            )


def test_one_that_never_takes_its_turn_is_not_touched():
    pipe = wan_pipeline(0.0)
    calls = counted(pipe)
    sampler = wan_sampler(pipe)
    known = calibrate(sampler, seeds=[0], sensitivity=0, progress=False)
    assert known.fingerprint.denoisers == (0,) * STEPS
    row = (1, 0) * (STEPS // 2)
    schedule = Schedule(evaluations=STEPS, rows={"denoiser": row}, fingerprint=known.fingerprint)
    with cached_sampler(sampler, schedule):
        sample(pipe, 10)
    assert calls[1] == 0


def test_a_hand_written_schedule_is_followed_and_not_across(measured: Calibration):
    pipe = wan_pipeline()
    row = tuple(int(step % 2 == 0) for step in range(STEPS))  # evaluation 3 would be filled across
    told = pytest.warns(SmoothCacheWarning, match="takes over at evaluation 3")
    schedule = Schedule(evaluations=STEPS, rows={"denoiser": row})
    with told, cached_sampler(wan_sampler(pipe), schedule) as stats:
        sample(pipe, 0)
    assert stats.recomputed == 2
    assert stats.reused == {"denoiser": 2 * 3}
