"""Policies across modalities: who errs least at equal compute."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

OFF_BUDGET = 0.02
"""Compute above a budget from which a policy does not keep to it, as in the other records."""

_TINY = 1e-12  # error below which all are as good


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The error of a policy in a modality at a budget.

    Attributes:
        modality: Name of the modality.
        policy: Name of the policy.
        budget: Compute that was asked for, in (0, 1).
        compute: Compute of what was measured, in (0, 1].
        error: Mean relative L2 distance of the final latents from the plain run's, at least 0.
        ours: Whether it is a method of this library's own.
    """

    modality: str
    policy: str
    budget: float
    compute: float
    error: float
    ours: bool = False

    @property
    def kept(self) -> bool:
        """Whether it keeps to its budget."""
        return self.compute <= self.budget + OFF_BUDGET


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a policy stands among all.

    Attributes:
        policy: Name of the policy.
        ours: Whether it is a method of this library's own.
        rank: Mean over modalities and budgets of its rank by error there, 1 for the least.
        ratio: Geometric mean of its error over the least error there, at least 1.
        cells: Modalities and budgets that it was measured at.
        missing: Those where others were, but it was not possible within the budget.
    """

    policy: str
    ours: bool
    rank: float
    ratio: float
    cells: int
    missing: int


def standings(cells: Iterable[Cell], budget: float | None = None) -> list[Standing]:
    """Return where policies stand, the best first; those that miss most come last.

    Args:
        cells: What was measured; what does not keep to its budget counts as missing.
        budget: Only at this one; at all if not given.
    """
    within = [each for each in cells if budget in (None, each.budget)]
    places: dict[tuple[str, float], list[Cell]] = {}
    for cell in within:
        if cell.kept:
            places.setdefault((cell.modality, cell.budget), []).append(cell)
    policies = dict.fromkeys(cell.policy for cell in within)
    found = [_standing(policy, list(places.values())) for policy in policies]
    known = [each for each in found if each is not None]
    return sorted(known, key=lambda each: (each.missing, each.ratio))


def _standing(policy: str, places: Sequence[Sequence[Cell]]) -> Standing | None:
    mine = [(cell, place) for place in places for cell in place if cell.policy == policy]
    if not mine:
        return None
    ranks = [1 + sum(other.error < cell.error for other in place) for cell, place in mine]
    ratios = [
        math.log(max(cell.error, _TINY) / max(min(each.error for each in place), _TINY))
        for cell, place in mine
    ]
    return Standing(
        policy=policy,
        ours=mine[0][0].ours,
        rank=statistics.fmean(ranks),
        ratio=math.exp(statistics.fmean(ratios)),
        cells=len(mine),
        missing=len(places) - len(mine),
    )
