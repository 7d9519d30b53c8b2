"""Searching what to compute, by simulating cached runs.

The error of the final sample is not a sum over evaluations: an early error is taken back by the
fills that follow, a late one is not. So the search judges whole schedules, from several evenly
spread ones on, and moves one computed evaluation at a time.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from smoothcache_core.optimize.masks import Basis, Mask
from smoothcache_core.optimize.surrogate import ReducedRun, Simulation
from smoothcache_core.schedule.limits import Limits

_BENDS = (0.8, 1.0, 1.2, 1.5)
"""Exponents of the power-law spacings that a search starts from: at 1 computed evaluations are
evenly spaced, above 1 more of them are late. The descent moves them on, so a few will do."""


_STARTS = 4  # of these spacings, the best by simulation; each costs a descent


_REACH = 2  # evaluations that a computed one moves at once


_ROUNDS = 12  # passes over all evaluations at most; a descent ends as soon as one changes nothing


def allows(limits: Limits, mask: Mask) -> bool:
    """Return whether `mask` computes what is pinned, both passes of it, and keeps to `max_lag`."""
    computed = [i for i, one in enumerate(mask.denoiser) if one]
    edges = [*computed, len(mask.denoiser)]
    gaps = [later - earlier - 1 for earlier, later in itertools.pairwise(edges)]
    both = {i for i in computed if mask.guidance[i]}
    return limits.computed <= both and max(gaps) <= (limits.max_lag or len(mask.denoiser))


@dataclass(frozen=True, kw_only=True)
class Found:
    """The best mask found, and what was minimised: error and drift, see `Search.cost`."""

    mask: Mask
    error: float


class Search:
    """Searches skips of one budget after the other; simulations are remembered."""

    def __init__(self, reduced: ReducedRun, limits: Limits, basis: Basis | None = None) -> None:
        self._reduced = reduced
        self._limits = limits
        self._basis = basis or Basis()
        self._known: dict[Mask, float] = {}
        self._near: Simulation | None = None  # of the skips that are being moved

    def cost(self, mask: Mask) -> float:
        """Return what is minimised: the final error, and the drift that makes it less certain."""
        if mask not in self._known:
            self._known[mask] = self._simulation(mask).result().uncertain_error
        return self._known[mask]

    def _simulation(self, mask: Mask) -> Simulation:
        return Simulation(self._reduced, mask, self._basis, self._near)

    def best(self, budget: float, *, guidance: bool) -> Found:
        """Return the best skips that compute at most `budget` evaluations.

        Args:
            budget: Evaluations to compute, at least as many as `Limits.fewest`; those without
                their unconditional pass count a half.
            guidance: Whether unconditional passes may be skipped.
        """
        starts = [s for s in self._starts(budget, guidance) if allows(self._limits, s)]
        starts = sorted(dict.fromkeys(starts), key=self.cost)[:_STARTS]
        ends = [self._descend(start) for start in starts]
        chosen = min(ends, key=self.cost)
        return Found(mask=chosen, error=self.cost(chosen))

    def _starts(self, budget: float, guidance: bool) -> Iterator[Mask]:
        total, pinned = self._reduced.evaluations, self._limits.computed
        shares = (1.0, 0.75, 0.5) if guidance else (1.0,)
        for share in shares:
            count = min(int(budget / (0.5 + 0.5 * share) + 1e-9), total)
            both = min(int(2 * budget - count + 1e-9), count)
            if both < len(pinned):
                continue
            for bend, kept in itertools.product(_BENDS, (pinned, self._limits.fewest(total))):
                computed = _spread(total, count, bend, kept)
                places = frozenset(k for k, i in enumerate(computed) if i in pinned)
                guided = {computed[k] for k in _spread(len(computed), both, 1.0, places)}
                yield _mask(total, computed, guided)

    def _descend(self, mask: Mask) -> Mask:
        self._near = self._simulation(mask)
        for _ in range(_ROUNDS):
            better = mask
            for position in reversed(range(1, self._reduced.evaluations)):
                options = [s for s in moves(better, position) if allows(self._limits, s)]
                best = min([better, *options], key=self.cost)
                if best != better:
                    better, self._near = best, self._simulation(best)
            if better == mask:
                break
            mask = better
        return mask


def _spread(total: int, count: int, bend: float, pinned: frozenset[int]) -> list[int]:
    """Return `count` evaluations from 0 on, evenly spread up to a bend, with the pinned ones."""
    chosen = set(pinned) | {0}
    places = np.linspace(0, 1, count, endpoint=False)
    for place in places:
        ideal = total * (1 - (1 - place) ** bend)
        free = [i for i in range(total) if i not in chosen]
        if len(chosen) < count and free and int(ideal) not in chosen:
            chosen.add(min(free, key=lambda i: abs(i - ideal)))
    free = [i for i in reversed(range(total)) if i not in chosen]
    chosen.update(free[: max(count - len(chosen), 0)])
    return sorted(chosen)


def _mask(total: int, computed: Sequence[int], guided: set[int]) -> Mask:
    members = set(computed)
    return Mask(
        denoiser=tuple(i in members for i in range(total)),
        guidance=tuple(i in guided for i in range(total)),
    )


def moves(mask: Mask, position: int) -> Iterator[Mask]:
    """Yield what moving the computed evaluation at `position` a little gives."""
    if not mask.denoiser[position]:
        return
    for step in range(-_REACH, _REACH + 1):
        other = position + step
        if 0 < other < len(mask.denoiser) and not mask.denoiser[other]:
            yield _swapped(mask, position, other)
        elif 0 < other < len(mask.denoiser) and mask.guidance[other] != mask.guidance[position]:
            yield replace(mask, guidance=_exchange(mask.guidance, position, other))


def _swapped(mask: Mask, one: int, other: int) -> Mask:
    return Mask(
        denoiser=_exchange(mask.denoiser, one, other),
        guidance=_exchange(mask.guidance, one, other),
    )


def _exchange(row: tuple[bool, ...], one: int, other: int) -> tuple[bool, ...]:
    values = list(row)
    values[one], values[other] = values[other], values[one]
    return tuple(values)
