"""The one framework of policies: what is compared, and how it is put on and taken off.

A policy is attached to a denoiser that nobody else uses, inside a `with` block that restores it,
also after an error. This library's policies, other people's and fewer steps are in `baselines/`.
"""

import itertools
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from smoothcache_core import Adapter, Schedule
from smoothcache_core.patching import replaced
from smoothcache_core.runtime import CacheStats
from torch import nn

Row = tuple[int, ...]
"""One entry per evaluation: 1 compute, 0 reuse."""
RowOf = Callable[[int], Row]
"""Returns the row of so many evaluations."""
Around = Callable[[int], AbstractContextManager[object]]
"""Gives what has to be in force during an evaluation, by its index; 0 begins a new run."""


class OutOfReachError(Exception):
    """A policy cannot meet a budget."""


class Attachable(Protocol):
    """A sampler as far as policies know it: its denoiser, and what names its solver and passes."""

    @property
    def model(self) -> Any:
        """The module that the solver calls."""
        ...

    @property
    def adapter(self) -> Adapter:
        """Where its sites are."""
        ...

    @property
    def steps(self) -> int:
        """Evaluations of one run."""
        ...

    @property
    def scheduler(self) -> Any:
        """The scheduler, if there is one."""
        ...

    @property
    def solver_name(self) -> str | None:
        """Name of the solver, if there is no scheduler to name it."""
        ...

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the conditioning passes, if they are not announced."""
        ...

    def around(self) -> AbstractContextManager[object]:
        """Return what to enter around everything that is done with the denoiser."""
        ...


@dataclass(frozen=True, kw_only=True)
class Attached:
    """A policy at work.

    Attributes:
        sampler: Samples by it: what it was attached to, or the same with other steps.
        schedule: This library's schedule, if it is this library's.
        stats: What this library's cache counts, if it is this library's.
    """

    sampler: Any
    schedule: Schedule | None = None
    stats: CacheStats | None = None


Attach = Callable[[Any], AbstractContextManager[Attached]]
"""Attaches a policy to an `Attachable` whose denoiser nobody else uses."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One policy at one setting.

    Attributes:
        name: Its name in records.
        attach: Attaches it.
        variant: Which of several of this name, the same at all settings; may be empty.
        setting: Its setting in words.
        ours: Whether it is this library's own method, not a published one.
        looks_at_data: Whether it reads tensors to decide, so that it cannot run on shapes alone.
        evaluations: Evaluations of one run, if it takes other steps than the plain run.
        schedule: The schedule, if it is known before it runs.
    """

    name: str
    attach: Attach
    variant: str = ""
    setting: str = ""
    ours: bool = False
    looks_at_data: bool = False
    evaluations: int | None = None
    schedule: Schedule | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """Name and variant."""
        return f"{self.name} ({self.variant})" if self.variant else self.name

    @property
    def key(self) -> str:
        """Name and setting."""
        return f"{self.name} ({self.setting})"


@contextmanager
def plain(sampler: Any) -> Generator[Attached]:
    """Change nothing."""
    yield Attached(sampler=sampler)


PLAIN = Policy(name="plain", setting="-", attach=plain)
CONTROL = Policy(name="plain", setting="a second time, as a control", attach=plain)


def fewer_steps(make: Callable[[Any, int], Any], steps: int) -> Attach:
    """Return a solver that takes `steps` steps from the same noise.

    Args:
        make: Returns a sampler like the given one, but with so many steps.
        steps: How many, at least 1.
    """

    @contextmanager
    def attach(sampler: Any) -> Generator[Attached]:
        yield Attached(sampler=make(sampler, steps))

    return attach


@contextmanager
def driven(model: nn.Module, around: Around, evaluations: int) -> Generator[None]:
    """Put `around` into force during every call of the denoiser, which is one evaluation."""
    forward, count = model.forward, itertools.cycle(range(evaluations))

    def call(*args: Any, **kwargs: Any) -> Any:
        with around(next(count)):
            return forward(*args, **kwargs)

    with replaced(model, "forward", call):
        yield


# ---------------------------------------------------------------------------- rows


def all_computed(evaluations: int) -> Row:
    """Return a row that skips nothing."""
    return (1,) * evaluations


def one_reused(evaluations: int) -> Row:
    """Return a row that skips the evaluation in the middle."""
    return tuple(int(i != evaluations // 2) for i in range(evaluations))


def spaced_row(evaluations: int, computed: int) -> Row:
    """Return a row that computes so many evaluations, evenly spaced from the first to the last."""
    places = np.linspace(0, evaluations - 1, computed).round().astype(int)
    return tuple(int(i in set(places.tolist())) for i in range(evaluations))


def evenly_spaced(evaluations: int, fraction: float) -> Row:
    """Return a row that computes a fraction of the evaluations, the first and the last among them.

    Args:
        evaluations: Evaluations of one run, at least 2.
        fraction: In [0, 1]; at least two are computed.
    """
    return spaced_row(evaluations, max(round(fraction * evaluations), 2))


def spaced(fraction: float) -> RowOf:
    """Return `evenly_spaced` rows of any number of evaluations."""
    return lambda evaluations: evenly_spaced(evaluations, fraction)


def asked_for(labels: Iterable[str], only: Collection[str]) -> list[str]:
    """Return the labels that are asked for, all if none is.

    Args:
        labels: Labels of policies, as tables show them: `"teacache (taylor 2)"`.
        only: Labels, or names without a variant for all of that name.

    Raises:
        ValueError: There is no policy of a label or name.
    """
    names = {label: label.split(" (")[0] for label in labels}
    if unknown := sorted(set(only) - {*names, *names.values()}):
        raise ValueError(f"no policy is called {unknown}; there are {list(names)}")
    return [label for label, name in names.items() if not only or {label, name} & set(only)]


def named(policies: Sequence[Policy], only: Sequence[str]) -> list[Policy]:
    """Return the policies of these names or keys, all if none is given; the plain one always.

    Raises:
        ValueError: There is no policy of a name.
    """
    known = {name for policy in policies for name in (policy.name, policy.key)}
    if unknown := set(only) - known:
        raise ValueError(f"no policy is called {sorted(unknown)}; there are {sorted(known)}")
    wanted = {PLAIN.name, *only}
    return [p for p in policies if not only or wanted & {p.name, p.key}]
