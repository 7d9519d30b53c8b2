"""What ranks of one run do together: a sharded denoiser, and guidance shared out among them."""

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from kit.ranks import WORLD
from smoothcache_core import PatternAdapter, Sampler, Schedule, SitePattern, cached, calibrate
from smoothcache_core.adapters import whole_evaluations
from smoothcache_core.errors import AttachError
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

STEPS = 7  # from 6 down, plans warn that little can be skipped
WIDTH = 8
WHOLE = Schedule(evaluations=STEPS, rows={"denoiser": (1, 0, 1, 0, 1, 1, 1)})
SITES = Schedule(evaluations=STEPS, rows={"block": (1, 0, 1, 0, 1, 1, 1)})


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear(tokens).tanh()


class Tokens(nn.Module):
    """Mixes tokens; may be given a share of them, and gathers what others computed.

    Args:
        ranks: Ranks that share the tokens of one call.
    """

    def __init__(self, ranks: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.requires_grad_(False)
        self.ranks = ranks
        self.calls = 0

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        self.calls += 1
        share = x.chunk(self.ranks, dim=1)[distributed.get_rank() if self.ranks > 1 else 0]
        for block in self.blocks:
            mean = gathered(share, self.ranks).mean(dim=1, keepdim=True)
            share = share + block(share + mean * label[:, None, None]) * t[:, None, None]
        return gathered(share, self.ranks)


def gathered(share: Tensor, ranks: int, dim: int = 1) -> Tensor:
    """Return the shares of all ranks, one after the other."""
    if ranks == 1:
        return share
    parts = [torch.empty_like(share) for _ in range(ranks)]
    distributed.all_gather(parts, share.contiguous())
    return torch.cat(parts, dim=dim)


ADAPTER = PatternAdapter(
    name="tokens", patterns=(SitePattern("blocks.*", "block"),), latent="x", timestep="t"
)


def sample(model: Callable[..., Tensor], seed: int = 0, *, split: bool = False) -> Tensor:
    """Guide and step; with `split` each rank evaluates one pass of guidance."""
    latent = torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(seed))
    for step in range(STEPS):
        time = torch.full((2,), 1.0 - step / STEPS)
        if split:
            label = torch.full((2,), 1.0 - distributed.get_rank())
            both = gathered(model(latent, time, label), WORLD, dim=0)
        else:
            labels = torch.tensor([1.0, 1.0, 0.0, 0.0])
            both = model(torch.cat((latent, latent)), time.repeat(2), labels)
        conditional, unconditional = both.chunk(2)
        latent = latent - 0.1 * (unconditional + 3.0 * (conditional - unconditional))
    return latent


@contextmanager
def group(file: Path, rank: int) -> Generator[None]:
    """Join the ranks; no warning passes unseen."""
    distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=WORLD)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        distributed.destroy_process_group()


# ---------------------------------------------------------------------------- jobs


def run_sharded(*, file: Path, rank: int) -> dict[str, Any]:
    """Return what a sharded model samples by schedules of whole evaluations and of sites."""
    with group(file, rank):
        model, plain = Tokens(), Tokens()
        mesh = init_device_mesh("cpu", (WORLD,))
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        found: dict[str, Any] = {"plain": torch.equal(sample(model), sample(plain))}
        fingerprint = calibrated(plain).fingerprint
        for name, schedule in (("whole", WHOLE), ("sites", SITES)):
            planned = schedule.changed(fingerprint=fingerprint)
            with cached(plain, ADAPTER, schedule):
                expected = sample(plain)
            with cached(model, ADAPTER, planned, solver="euler") as stats:
                outcome = sample(model)
            found[name] = torch.equal(outcome, expected), stats.reused
        found["after"] = torch.equal(sample(model), sample(plain))
        return found


def calibrated(model: nn.Module) -> Any:
    """Return a calibration of one run, without sensitivities."""
    sampler = Sampler(
        model=model, adapter=ADAPTER, run=lambda seed: sample(model, seed), samples=2,
        solver="euler",
    )  # fmt: skip
    return calibrate(sampler, seeds=[1], sensitivity=0, progress=False)


def run_split(*, file: Path, rank: int, schedule: Schedule) -> dict[str, Any]:
    """Return what comes of a schedule where each rank evaluates one pass of guidance."""
    with group(file, rank):
        whole, part = Tokens(), Tokens()
        with cached(whole, whole_evaluations(whole), schedule, solver="euler"):
            expected = sample(whole)
        calls = part.calls
        with cached(part, whole_evaluations(part), schedule, solver="euler") as stats:
            outcome = sample(part, split=True)
        return {
            "apart": float((outcome - expected).norm() / expected.norm()),
            "reused": stats.reused,
            "calls": part.calls - calls,
            "outcome": outcome,
        }


def run_sequence(*, file: Path, rank: int) -> dict[str, Any]:
    """Return what comes of schedules where the ranks share the tokens of every call."""
    with group(file, rank):
        plain, shared = Tokens(), Tokens(ranks=WORLD)
        found: dict[str, Any] = {}
        for name, schedule in (("whole", WHOLE), ("sites", SITES)):
            with cached(plain, ADAPTER, schedule):
                expected = sample(plain)
            with cached(shared, ADAPTER, schedule) as stats:
                outcome = sample(shared)
            found[name] = float((outcome - expected).norm() / expected.norm()), stats.reused
        return found


def run_unlike(*, file: Path, rank: int) -> str:
    """Attach another schedule to a sharded model on every rank; return what it is told."""
    with group(file, rank):
        model = Tokens()
        fully_shard(model, mesh=init_device_mesh("cpu", (WORLD,)))
        schedule = WHOLE if rank else SITES
        try:
            with cached(model, ADAPTER, schedule):
                return "attached"
        except AttachError as error:
            return str(error)


def calibrate_together(**settings: Any) -> Any:
    """Calibrate whole runs, shared out among the ranks."""
    model = Tokens()
    sampler = Sampler(
        model=model, adapter=whole_evaluations(model), run=lambda seed: sample(model, seed),
        samples=2,
    )  # fmt: skip
    with torch.no_grad():
        return calibrate(sampler, seeds=range(3), progress=False, **settings)
