"""A small denoiser whose arithmetic is exact, and samplers that drive it.

Every sub-layer doubles its input and writes the number of the denoiser call that computed it into
the last channel of its output, so a test can read off where a reused output came from.
"""

import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import MethodType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from smoothcache_core import (
    Adapter,
    Calibration,
    PatternAdapter,
    Sampler,
    Schedule,
    SitePattern,
)
from smoothcache_core.adapters import Site
from smoothcache_core.schedule import Cost, Fingerprint, SiteCost
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

ADAPTER = PatternAdapter(
    name="toy",
    patterns=(SitePattern("blocks.*.attn", "attn"), SitePattern("blocks.*.ff", "ff")),
)
STEPS = (9.0, 7.0, 5.0, 4.0, 2.0, 1.0)
ROW = (1, 0, 0, 1, 0, 1)


class Journal:
    """What really happened in a toy.

    Attributes:
        call: Number of the denoiser call under way, over all runs.
        computed: For each site the calls in which it was computed, once per chunk.
        delivered: For each site and call the number of the call whose output it was given.
    """

    def __init__(self) -> None:
        self.call = -1
        self.computed: dict[str, list[int]] = defaultdict(list)
        self.delivered: dict[str, list[int]] = defaultdict(list)


class Sublayer(nn.Module):
    """Doubles its input by a linear layer without bias and signs its output."""

    def __init__(self, path: str, width: int, journal: Journal) -> None:
        super().__init__()
        self.path = path
        self.journal = journal
        self.linear = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.linear.weight).data.mul_(2.0)

    def forward(self, hidden: Tensor) -> Tensor:
        self.journal.computed[self.path].append(self.journal.call)
        doubled = self.linear(hidden)
        signature = torch.full_like(doubled[..., :1], float(self.journal.call))
        return torch.cat((doubled[..., :-1], signature), dim=-1)


class PairSublayer(Sublayer):
    """Gives a tuple, as joint attention does, with a place that is None."""

    def forward(self, hidden: Tensor) -> tuple[Tensor, None, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        output = super().forward(hidden)
        return output, None, output[:, :1]


class Block(nn.Module):
    """`hidden += attn(hidden); hidden += ff(hidden)`, where the signature is left out."""

    def __init__(self, index: int, width: int, chunks: int, pair: bool, journal: Journal) -> None:
        super().__init__()
        self.chunks = chunks
        self.journal = journal
        path = f"blocks.{index}"
        self.attn = (PairSublayer if pair else Sublayer)(f"{path}.attn", width, journal)
        self.ff = Sublayer(f"{path}.ff", width, journal)
        self.gate: Tensor
        self.register_buffer("gate", torch.tensor([1.0] * (width - 1) + [0.0]))

    def forward(self, hidden: Tensor) -> Tensor:
        attended = self.attn(hidden=hidden)
        parts = attended if isinstance(attended, tuple) else (attended,)
        self.deliver(self.attn.path, *parts)
        hidden = hidden + parts[0] * self.gate
        chunks = [self.ff(chunk) for chunk in hidden.chunk(self.chunks, dim=1)]
        self.deliver(self.ff.path, *chunks)
        return hidden + torch.cat(chunks, dim=1) * self.gate

    def deliver(self, path: str, *outputs: Tensor | None) -> None:
        numbers = {int(v) for o in outputs if o is not None for v in o[..., -1].unique().tolist()}
        assert len(numbers) == 1, f"{path} was given a mixture of calls {numbers}"
        self.journal.delivered[path].append(numbers.pop())


class Toy(nn.Module):
    """A denoiser. The sum of its residual branches is scaled so that solvers stay bounded."""

    def __init__(
        self, blocks: int = 2, *, width: int = 4, chunks: int = 1, pair: bool = False
    ) -> None:
        super().__init__()
        self.journal = Journal()
        self.blocks = nn.ModuleList(
            Block(index, width, chunks, pair, self.journal) for index in range(blocks)
        )
        self.scale = 2.0 ** -math.ceil(math.log2(9.0**blocks))

    def forward(self, hidden_states: Tensor, timestep: Any, label: object = None) -> Tensor:
        del timestep, label
        self.journal.call += 1
        hidden = hidden_states
        for block in self.blocks:
            hidden = block(hidden)
        return hidden * self.scale

    def forward_with_cfg(self, hidden_states: Tensor, timestep: Any, scale: float = 2.0) -> Tensor:
        """Guide as facebook's DiT does: one call of `self.forward` on the repeated batch."""
        half = hidden_states[: len(hidden_states) // 2]
        both = self.forward(torch.cat((half, half)), timestep)
        conditional, unconditional = both.chunk(2)
        guided = unconditional + scale * (conditional - unconditional)
        return torch.cat((guided, guided))


class ContextToy(Toy):
    """A denoiser with the two methods by which diffusers' pipelines announce what they do."""

    @contextmanager
    def cache_context(self, name: str) -> Generator[None]:
        del name
        yield

    def _reset_stateful_cache(self) -> None:
        pass

    def end_of_pipeline(self) -> None:
        """Do what every diffusers pipeline does at its end."""
        self._reset_stateful_cache()


class Residual(nn.Module):
    """A block that changes its input in place, as some models do."""

    def forward(self, hidden: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        hidden += 2 * other
        return hidden, 3 * other


class DeltaToy(nn.Module):
    """A denoiser of one block whose two outputs are cached as deltas."""

    def __init__(self) -> None:
        super().__init__()
        self.block: nn.Module = Residual()

    def forward(self, hidden_states: Tensor, timestep: float) -> Tensor:
        del timestep
        one, other = self.block(hidden_states.clone(), other=hidden_states)
        return one + other


DELTA = PatternAdapter(
    name="delta", patterns=(SitePattern("block", "block", "delta", ("hidden", "other")),)
)


class NoWaiting(TorchDispatchMode):
    """Refuses what needs a value of a tensor on the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero)
        assert func.overloadpacket not in waits, func
        return func(*args, **(kwargs or {}))


# ---------------------------------------------------------------------------- samplers


def noise(
    seed: int = 0, shape: Sequence[int] = (2, 3, 4), dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return small whole numbers, so that sums and products of them are exact."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-8, 9, tuple(shape), generator=generator).to(dtype)


def sample(
    model: Any,
    timesteps: Sequence[Any] = STEPS,
    *,
    latent: Tensor | None = None,
    branches: Sequence[str] = ("",),
    announce: bool = False,
) -> list[Tensor]:
    """Sample by a plain loop.

    Args:
        model: The denoiser.
        timesteps: One evaluation each.
        latent: What to begin with; `noise()` if not given.
        branches: Conditioning passes; each is a call of its own, with an input of its own.
        announce: Name each pass by `cache_context`.

    Returns:
        The output of every call.
    """
    present = noise() if latent is None else latent
    outputs = []
    for timestep in timesteps:
        for number, branch in enumerate(branches):
            with model.cache_context(branch) if announce else nullcontext():
                outputs.append(model(present + number, timestep))
        present = present - outputs[-1] / 4
    return outputs


def solve(
    model: Callable[..., Tensor],
    scheduler: Any,
    steps: int,
    *,
    seed: int = 0,
    branches: Sequence[str] = ("",),
) -> list[Tensor]:
    """Sample by a diffusers scheduler; return the latent after every step."""
    scheduler.set_timesteps(steps)
    latent = noise(seed) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    generator = torch.Generator().manual_seed(seed)
    random = {"generator": generator} if _takes_generator(scheduler) else {}
    latents = []
    for timestep in scheduler.timesteps:
        scale = getattr(scheduler, "scale_model_input", lambda latent, _: latent)
        inputs = scale(latent, timestep)
        outputs = [model(inputs + number, timestep) for number, _ in enumerate(branches)]
        guided = torch.stack(outputs).mean(dim=0)
        latent = scheduler.step(guided, timestep, latent, **random)[0]
        latents.append(latent)
    return latents


def _takes_generator(scheduler: Any) -> bool:
    return "generator" in inspect.signature(scheduler.step).parameters


def silent(
    model: nn.Module,
    run: Callable[[int], object],
    *,
    adapter: Adapter = ADAPTER,
    **settings: Any,
) -> Sampler:
    """Return a sampler that gives no final latent, whatever `run` returns."""

    def without_latent(seed: int) -> None:
        run(seed)

    return Sampler(model=model, adapter=adapter, run=without_latent, **settings)


# ---------------------------------------------------------------------------- what must hold

Place = tuple[object, int, str]
"""What a call belongs to: a run (or a part of one that must share nothing), evaluation, branch."""


def places(
    *runs: object, evaluations: int = len(STEPS), branches: Sequence[str] = ("",)
) -> list[Place]:
    """Return the place of every call of whole runs, one after the other."""
    return [(run, e, branch) for run in runs for e in range(evaluations) for branch in branches]


def sources(row: Sequence[int], calls: Sequence[Place]) -> list[int]:
    """Return for each call the number of the call whose output `row` says it is given.

    What a branch kept serves the next evaluation only: after a pause it is computed anew.
    """
    latest: dict[tuple[object, str], tuple[int, int]] = {}
    given = []
    for number, (run, evaluation, branch) in enumerate(calls):
        before, source = latest.get((run, branch), (-2, number))
        reused = not row[evaluation] and evaluation - before == 1
        source = source if reused else number
        latest[run, branch] = evaluation, source
        given.append(source)
    return given


def assert_followed(
    toy: Toy, schedule: Schedule, calls: Sequence[Place], *, chunks: int = 1
) -> None:
    """Assert that every site computed when it should, and was given what it should be given."""
    assert toy.journal.call + 1 == len(calls)
    for site in ADAPTER.sites(toy):
        given = sources(schedule.row(site), calls)
        times = chunks if site.kind == "ff" else 1
        computed = [n for n, source in enumerate(given) if n == source for _ in range(times)]
        assert toy.journal.delivered[site.path] == given, site.path
        assert toy.journal.computed[site.path] == computed, site.path


def schedule_of(row: Sequence[int] = ROW, **rows: Sequence[int]) -> Schedule:
    """Return a schedule with `row` for both kinds, or with the rows given by kind."""
    chosen: dict[str, Sequence[int]] = rows or {"attn": row, "ff": row}
    return Schedule(evaluations=len(next(iter(chosen.values()))), rows=chosen)


def anatomy(model: nn.Module) -> dict[str, tuple[type, dict[str, object]]]:
    """Return everything that can be set on the modules of `model`: classes and attributes."""
    return {
        name: (type(module), {key: _inside(value) for key, value in vars(module).items()})
        for name, module in model.named_modules(remove_duplicate=False)
    }


def _inside(value: object) -> object:
    if isinstance(value, dict):
        return [(key, id(item)) for key, item in value.items()]
    if isinstance(value, MethodType):
        return value.__func__, id(value.__self__)
    return value if isinstance(value, int | float | str | None) else id(value)


def calibration_of(
    means: NDArray[np.float64],
    *,
    seeds: Sequence[int] = (0,),
    macs: int = 1,
    total: int | None = None,
) -> Calibration:
    """Return a calibration of a `Toy` with one block.

    Args:
        means: Errors of attn and ff, (2, lags, evaluations); those past the end are ignored.
        seeds: One sample each, all with these errors.
        macs: MACs of each site.
        total: MACs of the denoiser; those of the sites if not given.
    """
    _, lags, evaluations = means.shape
    inside = np.add.outer(np.arange(1, lags + 1), np.arange(evaluations)) < evaluations
    errors = np.where(inside, np.round(means * 2.0**32) / 2.0**32, np.nan)[:, None]
    sites = ADAPTER.sites(Toy(blocks=1))
    costs = [SiteCost(path=s.path, kind=s.kind, block=s.block, macs=macs, bytes=1) for s in sites]
    return Calibration(
        sites=sites,
        branches=("",),
        totals=errors * len(seeds),
        squares=np.round(errors**2 * 2.0**32) / 2.0**32 * len(seeds),
        samples=len(seeds),
        seeds=tuple(seeds),
        fingerprint=Fingerprint(model_class="Toy", adapter="toy", evaluations=evaluations),
        cost=Cost(total=2 * macs if total is None else total, sites=tuple(costs)),
    )


def with_sites(calibration: Calibration, sites: Sequence[Site]) -> Calibration:
    """Return a calibration whose sites, and what they cost, have other names."""
    costs = tuple(
        cost.changed(path=site.path, kind=site.kind, block=site.block)
        for cost, site in zip(calibration.cost.sites, sites, strict=True)
    )
    cost = calibration.cost.changed(sites=costs)
    return replace(calibration, sites=tuple(sites), cost=cost)


def with_samples(calibration: Calibration, samples: int) -> Calibration:
    """Return a calibration that says it is of so many samples, whose errors are all 0."""
    seeds = calibration.seeds[:samples]
    dynamics, influence = calibration.dynamics, calibration.influence
    nothing = np.where(np.isnan(calibration.totals), np.nan, 0.0)
    return replace(
        calibration,
        samples=samples,
        seeds=seeds,
        totals=nothing,
        squares=nothing,
        dynamics=dynamics
        and replace(
            dynamics,
            samples=samples,
            effect_counts=np.minimum(dynamics.effect_counts, len(seeds)),
        ),
        influence=influence and replace(influence, counts=np.minimum(influence.counts, len(seeds))),
    )
