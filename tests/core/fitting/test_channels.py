"""Reused outputs of sites, scaled and shifted channel by channel: Block Caching in closed form."""

from typing import Any

import numpy as np
import pytest
import torch
from kit.helpers import NoWaiting, anatomy
from kit.planning import Mixture, OneStep, Passes, ToySampler, error_of
from smoothcache_core import PatternAdapter, Sampler, Schedule, SitePattern, cached, fit
from smoothcache_core.errors import CalibrationError, ScheduleError
from smoothcache_core.schedule import Storage
from torch import Tensor, nn

E = 10
SEEDS = (0, 1)
ROW = (1, 1, 0, 1, 0, 0, 1, 0, 1, 0)
SKIPPED = [i for i, computed in enumerate(ROW) if not computed]
REUSE = Schedule(evaluations=E, rows={"part": ROW})


def toy(passes: Passes = "one") -> tuple[Mixture, ToySampler]:
    model = Mixture((1.0, 0.5), E, bend=0.2)
    return model, ToySampler(model, lambda: OneStep(E), passes=passes)


def fitted(model: Mixture, sampler: ToySampler, schedule: Schedule, **settings: Any) -> Schedule:
    settings = {"seeds": SEEDS, "progress": False, "channels": True} | settings
    return fit(sampler.value(model=model), schedule, **settings)


def test_they_are_the_straight_lines_through_what_plain_runs_gave():
    model, sampler = toy()
    outputs: list[list[Tensor]] = [[] for _ in range(E)]
    part = model.get_submodule("parts.0")
    count = iter(range(E * len(SEEDS)))
    handle = part.register_forward_hook(lambda *given: outputs[next(count) % E].append(given[2]))
    for seed in SEEDS:
        sampler(seed)
    handle.remove()
    schedule = fitted(model, sampler, REUSE)
    assert schedule.channels is not None
    (found,) = schedule.channels.known().of_site["parts.0"]
    series = [torch.cat(each).reshape(-1, found.shape[-1]).double().numpy() for each in outputs]
    for lines, i in zip(found, SKIPPED, strict=True):
        kept = max(j for j in range(i) if ROW[j])
        for channel in range(found.shape[-1]):
            wanted = np.polyfit(series[kept][:, channel], series[i][:, channel], 1)
            assert lines[:, channel] == pytest.approx(wanted, rel=1e-2, abs=1e-2)


@pytest.mark.parametrize("passes", ["one", "batched", "sequential"])
def test_the_error_is_what_is_promised_and_no_larger(passes: Passes):
    model, sampler = toy(passes)
    schedule = fitted(model, sampler, REUSE)
    assert schedule.prediction is not None
    error = error_of(model, sampler, SEEDS, schedule)
    assert schedule.prediction.error == pytest.approx(error, rel=1e-4)
    assert error <= error_of(model, sampler, SEEDS, REUSE)
    if passes == "one":  # parts of the toy give each pass something else
        assert error < 0.9 * error_of(model, sampler, SEEDS, REUSE)
        assert schedule.source.settings["fill"] == "scale-shift"


def test_a_fit_of_coefficients_drops_them_again():
    model, sampler = toy()
    schedule = fitted(model, sampler, REUSE)
    again = fitted(model, sampler, schedule, channels=False, terms=2)
    assert (again.channels is None) == bool(again.fills)
    kept = fitted(model, sampler, schedule, channels=False)
    assert kept.channels == schedule.channels


# ---------------------------------------------------------------------------- what sites give


class Pair(nn.Module):
    """Gives two tensors of different widths, and is called twice in an evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, hidden: Tensor, time: float) -> tuple[Tensor, None, Tensor]:
        return self.one(hidden).tanh() * time, None, self.two(hidden) - time


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = Pair()
        self.ff = nn.Linear(8, 8)

    def forward(self, hidden: Tensor, time: float) -> Tensor:
        halves = []
        for half in hidden.chunk(2, dim=1):
            one, _, two = self.attn(half, time)
            halves.append(half + 0.3 * one + 0.1 * two.sum(dim=-1, keepdim=True))
        return torch.cat(halves, dim=1) + 0.2 * self.ff(hidden).sin() * time


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.requires_grad_(False)

    def forward(self, hidden_states: Tensor, timestep: float) -> Tensor:
        for block in self.blocks:
            hidden_states = block(hidden_states, timestep)
        return hidden_states


PARTS = PatternAdapter(
    name="pairs", patterns=(SitePattern("blocks.*.attn", "attn"), SitePattern("blocks.*.ff", "ff"))
)
BLOCKS = PatternAdapter(
    name="pairs",
    patterns=(SitePattern("blocks.*", "block", target="delta", inputs=("hidden",)),),
)


def sampler_of(adapter: PatternAdapter) -> Sampler:
    model = Denoiser()

    def run(seed: int) -> Tensor:
        latent = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(seed))
        for step in range(E):
            latent = latent - model(latent, 1 - step / E) / E
        return latent

    return Sampler(model=model, adapter=adapter, run=run, samples=4, solver="euler")


@pytest.mark.parametrize(
    ("adapter", "rows"),
    [(PARTS, {"attn": ROW, "ff": ROW}), (BLOCKS, {"block-1": ROW, "block-2": ROW})],
    ids=["parts", "blocks"],
)
def test_tuples_chunks_and_deltas_are_scaled_wherever_they_are_kept(
    adapter: PatternAdapter, rows: dict[str, tuple[int, ...]]
):
    sampler = sampler_of(adapter)
    reuse, before = Schedule(evaluations=E, rows=rows), anatomy(sampler.model)
    schedule = fit(sampler, reuse, seeds=SEEDS, channels=True, progress=False)
    assert anatomy(sampler.model) == before
    assert schedule.channels is not None
    plain = sampler.final_latent(7)
    errors = []
    for each in (reuse, schedule):
        with cached(sampler.model, adapter, each) as stats:
            latent = sampler.final_latent(7)
            with NoWaiting():
                assert torch.equal(sampler.final_latent(7), latent)
        assert (stats.recomputed, stats.bytes_held) == (0, 0)
        errors.append(float((latent - plain).norm()))
        with cached(sampler.model, adapter, each, storage=Storage(place="cpu")) as there:
            assert torch.equal(sampler.final_latent(7), latent)
        assert there.bytes_peak == stats.bytes_peak
    assert errors[1] < 0.9 * errors[0]


def test_widths_of_every_tensor_are_known():
    schedule = fit(
        sampler_of(PARTS),
        Schedule(evaluations=E, rows={"attn-0": ROW}),
        seeds=[0],
        channels=True,
        progress=False,
    )
    assert schedule.channels is not None
    assert dict(schedule.channels.sites) == {"blocks.0.attn": (8, 3)}
    assert schedule.channels.nbytes == len(SKIPPED) * 2 * 11 * 4


def test_a_site_of_other_channels_is_refused():
    sampler = sampler_of(PARTS)
    schedule = fit(
        sampler,
        Schedule(evaluations=E, rows={"ff-1": ROW}),
        seeds=[0],
        channels=True,
        progress=False,
    )
    sampler.model.get_submodule("blocks.1").ff = nn.Linear(8, 1)
    said = r"tensors of \[8\] channels of 'blocks.1.ff'"
    with pytest.raises(ScheduleError, match=said), cached(sampler.model, PARTS, schedule):
        sampler.final_latent(0)


# ---------------------------------------------------------------------------- what is refused


def test_what_cannot_be_scaled_is_refused():
    model, sampler = toy()
    with pytest.raises(CalibrationError, match="terms=2 has no meaning"):
        fitted(model, sampler, REUSE, terms=2)
    with pytest.raises(ScheduleError, match="skips whole evaluations"):
        fitted(model, sampler, Schedule(evaluations=E, rows={"denoiser": ROW}))
    with pytest.raises(ScheduleError, match="skips no outputs of sites"):
        fitted(model, sampler, Schedule(evaluations=E, rows={"part": (1,) * E}))
