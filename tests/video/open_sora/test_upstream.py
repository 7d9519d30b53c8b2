"""Open-Sora's own installation: its models in its loops are calibrated, planned for and cached."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kit.open_sora_models import denoiser
from kit.open_sora_upstream import (
    RFLOW,
    MMDiTModel,
    STDiT3,
    TextEncoder,
    denoise,
    video_info,
)
from smoothcache_core import Calibration, PatternAdapter, Sampler, Schedule, cached, calibrate, plan
from smoothcache_core.adapters import latent_and_timestep
from smoothcache_core.discovering import find_by_structure
from smoothcache_core.errors import SmoothCacheWarning
from smoothcache_video import OPEN_SORA, OPEN_SORA2, adapter_for
from torch import Tensor, nn

STEPS = 10
pytestmark = pytest.mark.filterwarnings("ignore:a run of 10 evaluations", "ignore:only .* samples")
Run = Callable[[int], Tensor]


def lively(model: nn.Module) -> Any:
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1 and parameter.requires_grad:
            parameter.detach().normal_(std=0.15)
    return model.eval()


def rflow(
    model: Any, *, frames: int = 17, side: int = 32, mask: Tensor | None = None, videos: int = 1
) -> Run:
    """Return what samples a latent by the loop of version 1.2."""
    scheduler, latents = RFLOW(STEPS, cfg_scale=7.0), -(-frames // 17) * 5

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return scheduler.sample(
            model,
            TextEncoder(model),
            torch.randn(videos, 4, latents, side // 8, side // 8),
            ["a cat"] * videos,
            "cpu",
            additional_args=video_info(frames, side, side, videos),
            mask=mask,
            progress=False,
        )

    return run


KEPT = torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0]])
CASES: dict[str, tuple[type[nn.Module], PatternAdapter, Callable[[Any], Run]]] = {
    "1.2": (STDiT3, OPEN_SORA, rflow),
    "1.2 with a frame kept": (STDiT3, OPEN_SORA, lambda model: rflow(model, mask=KEPT)),
    "2.0": (MMDiTModel, OPEN_SORA2, lambda model: lambda seed: denoise(model, seed)),
    "2.0, oscillating": (
        MMDiTModel,
        OPEN_SORA2,
        lambda model: lambda seed: denoise(model, seed, steps=14, oscillating=True),
    ),
}


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> tuple[Any, PatternAdapter, Run]:
    kind, adapter, loop = CASES[request.param]
    model = lively(kind())
    return model, adapter, loop(model)


@pytest.fixture(scope="module")
def calibration(case: tuple[Any, PatternAdapter, Run]) -> Calibration:
    model, adapter, run = case
    sampler = Sampler(model=model, adapter=adapter, run=run, solver="rflow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmoothCacheWarning)  # of few samples
        return calibrate(sampler, seeds=range(3), progress=False)


def error(made: Tensor, plain: Tensor) -> float:
    return float((made - plain).norm() / plain.norm())


def test_the_double_is_the_model_that_is_here():
    ours, theirs = denoiser(), STDiT3().eval()
    theirs.load_state_dict(ours.state_dict())
    assert torch.allclose(rflow(theirs, mask=KEPT)(0), rflow(ours, mask=KEPT)(0), atol=1e-4)
    assert torch.allclose(rflow(theirs, videos=2)(1), rflow(ours, videos=2)(1), atol=1e-4)


def test_the_adapter_is_found_by_the_class(case: tuple[Any, PatternAdapter, Run]):
    model, adapter, _ = case
    assert adapter_for(model) is adapter
    assert latent_and_timestep(model) == (adapter.latent, adapter.timestep)
    kinds = {site.kind for site in adapter.sites(model)}
    assert len(kinds) == (6 if adapter is OPEN_SORA else 2)


@pytest.mark.parametrize("target", ["denoiser", "site", "smooth"])
def test_a_plan_stays_near_the_plain_run(
    case: tuple[Any, PatternAdapter, Run], calibration: Calibration, target: str
):
    model, adapter, run = case
    assert not calibration.remark
    schedule = plan(calibration, compute=0.6, target=target)
    with cached(model, adapter, schedule, solver="rflow") as stats:
        made, again = run(9), run(9)
    assert torch.equal(made, again)
    assert stats.recomputed == 0
    assert stats.reused
    assert schedule.prediction is not None
    assert 0 < error(made, run(9)) < 3 * schedule.prediction.error


@pytest.mark.filterwarnings("ignore:the schedule computes everything")
def test_computing_everything_changes_no_bit(case: tuple[Any, PatternAdapter, Run]):
    model, adapter, run = case
    calls: list[int] = []
    handle = model.register_forward_pre_hook(lambda *_: calls.append(1))
    plain = run(3)
    handle.remove()
    rows = {site.kind: (1,) * len(calls) for site in adapter.sites(model)}
    with cached(model, adapter, Schedule(evaluations=len(calls), rows=rows)):
        assert torch.equal(run(3), plain)
    assert torch.equal(run(3), plain)


def half(adapter: PatternAdapter, model: Any) -> Schedule:
    rows = {site.kind: (1, 1, 0, 1, 0, 1, 0, 1, 0, 1) for site in adapter.sites(model)}
    return Schedule(evaluations=STEPS, rows=rows)


def test_runs_of_other_sizes_and_masks_in_turn_leak_nothing():
    model = lively(STDiT3())
    runs = [
        rflow(model),
        rflow(model, mask=KEPT),
        rflow(model, frames=34),
        rflow(model, side=48),
        rflow(model, videos=2),
    ]
    alone = []
    for run in runs:
        with cached(model, OPEN_SORA, half(OPEN_SORA, model)):
            alone.append(run(1))
    with cached(model, OPEN_SORA, half(OPEN_SORA, model)) as stats:
        for _ in range(2):
            for run, expected in zip(runs, alone, strict=True):
                assert torch.equal(run(1), expected)
    assert stats.runs == 2 * len(runs)


def test_conditional_and_unconditional_rows_never_mix():
    model = lively(STDiT3())
    schedule, outputs = half(OPEN_SORA, model), []
    for rows in ((0, 1), (1, 0)):  # the passes in the other order give the same, in that order
        pick = list(rows)

        def turned(module: nn.Module, args: Any, kwargs: Any, pick: Any = pick) -> Any:
            picked = {**kwargs, "y": kwargs["y"][pick]}
            return (args[0][pick], args[1]), picked

        handle = model.register_forward_pre_hook(turned, with_kwargs=True)
        back = model.register_forward_hook(lambda _, __, out, pick=pick: out[pick])
        with cached(model, OPEN_SORA, schedule):
            outputs.append(rflow(model)(2))
        handle.remove()
        back.remove()
    assert torch.allclose(*outputs, atol=1e-5)


@pytest.mark.parametrize("case", ["1.2"], indirect=True)
@pytest.mark.parametrize(("other", "said"), [({"frames": 34}, "10"), ({"side": 48}, "6")])
def test_other_frames_or_sizes_are_told_before_anything_is_computed(
    case: tuple[Any, PatternAdapter, Run],
    calibration: Calibration,
    other: dict[str, Any],
    said: str,
):
    model, calls = case[0], []
    schedule = plan(calibration, compute=0.6, target="site")
    handle = model.x_embedder.register_forward_pre_hook(lambda *_: calls.append(1))
    with (
        pytest.raises(SmoothCacheWarning, match=rf"latent_shape is \(4, .*{said}.* instead of"),
        cached(model, OPEN_SORA, schedule, solver="rflow"),
    ):
        rflow(model, **other)(1)
    handle.remove()
    assert not calls


def test_without_an_adapter_the_blocks_of_version_2_are_found():
    model = lively(MMDiTModel())
    found = find_by_structure(model, lambda seed: denoise(model, seed))
    kinds = {pattern.path for pattern in found.patterns}
    assert kinds == {"double_blocks.*", "single_blocks.*"}
