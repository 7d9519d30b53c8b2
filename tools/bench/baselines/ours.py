"""What speed benchmarks compare: policies that are put on a copy of a model, and taken off again.

This library's are here; those of other people depend on the model, see `models/`.
"""

import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from smoothcache_core import Adapter, Schedule, SmoothCacheWarning, attach
from smoothcache_core.adapters import DENOISER
from smoothcache_core.runtime import CacheStats
from smoothcache_core.schedule import Fill
from torch import nn

from tools.bench.baselines.peers import Around

Row = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the policies of one benchmark have in common.

    Attributes:
        row: One entry per evaluation, 1 compute, 0 reuse.
        sigmas: Noise level of each evaluation, falling, of a scale in [0, 1].
        adapter: Where the sites of the model are.
        scheduler: The sampler's scheduler, if it has one.
        dtype: Data type of the model.
    """

    row: Row
    sigmas: Sequence[float]
    adapter: Adapter
    dtype: torch.dtype
    scheduler: Any = None

    @property
    def evaluations(self) -> int:
        """Evaluations of one run."""
        return len(self.row)


@dataclass(frozen=True, kw_only=True)
class Attached:
    """A policy at work.

    Attributes:
        around: Gives what has to be in force during an evaluation.
        schedule: This library's schedule.
        stats: What this library's cache counted.
    """

    around: Around = lambda evaluation: nullcontext()
    schedule: Schedule | None = None
    stats: CacheStats | None = None


RowOf = Callable[[Setup], Row]
Attach = Callable[[Any, Setup], AbstractContextManager[Attached]]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One policy at one setting.

    Attributes:
        name: Its name in records.
        setting: Its setting in words.
        attach: Puts it on a model.
        ours: Whether it is this library's.
        looks_at_data: Whether it reads tensors to decide, so that it cannot run on shapes alone.
    """

    name: str
    setting: str
    attach: Attach
    ours: bool = False
    looks_at_data: bool = False

    @property
    def key(self) -> str:
        """Name and setting."""
        return f"{self.name} ({self.setting})"


def of_setup(setup: Setup) -> Row:
    """Return the row of the setup."""
    return setup.row


def all_computed(setup: Setup) -> Row:
    """Return a row that skips nothing."""
    return (1,) * setup.evaluations


def one_reused(setup: Setup) -> Row:
    """Return a row that skips the evaluation in the middle."""
    return tuple(int(i != setup.evaluations // 2) for i in range(setup.evaluations))


@contextmanager
def plain(model: nn.Module, setup: Setup) -> Generator[Attached]:
    """Change nothing."""
    del model, setup
    yield Attached()


PLAIN = Policy(name="plain", setting="-", attach=plain)
CONTROL = Policy(name="plain", setting="a second time, as a control", attach=plain)


def evenly_spaced(evaluations: int, fraction: float) -> Row:
    """Return a row that computes a fraction of the evaluations, the first and the last among them.

    Args:
        evaluations: Evaluations of one run, at least 2.
        fraction: In [0, 1]; at least two are computed.
    """
    computed = max(round(fraction * evaluations), 2)
    places = set(np.linspace(0, evaluations - 1, computed).round().astype(int).tolist())
    return tuple(int(i in places) for i in range(evaluations))


def spaced(fraction: float) -> RowOf:
    """Return `evenly_spaced` rows of any setup."""

    def row(setup: Setup) -> Row:
        return evenly_spaced(setup.evaluations, fraction)

    return row


def smoothcache(*kinds: str, row: RowOf = of_setup) -> Attach:
    """Return this library's cache on sites of `kinds`."""

    @contextmanager
    def put(model: nn.Module, setup: Setup) -> Generator[Attached]:
        rows: Any = dict.fromkeys(kinds, row(setup))
        with _attached(model, setup, Schedule(evaluations=setup.evaluations, rows=rows)) as made:
            yield made

    return put


def whole_evaluations(row: RowOf = of_setup) -> Attach:
    """Return this library's cache of whole evaluations, each filled by two terms and the latent."""

    @contextmanager
    def put(model: nn.Module, setup: Setup) -> Generator[Attached]:
        schedule = Schedule(
            evaluations=setup.evaluations,
            rows={DENOISER.kind: row(setup)},
            fills={DENOISER.kind: _two_terms(row(setup))},
        )
        with _attached(model, setup, schedule) as made:
            yield made

    return put


@contextmanager
def _attached(model: nn.Module, setup: Setup, schedule: Schedule) -> Generator[Attached]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmoothCacheWarning)  # that all is computed is meant
        attachment = attach(model, setup.adapter, schedule, scheduler=setup.scheduler)
    yield Attached(schedule=schedule, stats=attachment.stats)
    attachment.detach(quietly=True)


def _two_terms(row: Row) -> Fill:
    skipped = [i for i, computed in enumerate(row) if not computed and sum(row[:i]) > 1]
    return Fill(terms=dict.fromkeys(skipped, (1.5, -0.5)), inputs=dict.fromkeys(skipped, 0.01))
