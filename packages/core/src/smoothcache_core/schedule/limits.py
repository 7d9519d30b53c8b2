"""What every plan keeps to, whatever it is made of and however it is searched."""

import itertools
from collections.abc import Collection
from dataclasses import dataclass

from smoothcache_core.errors import ScheduleError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What every plan must keep to.

    Example:
        >>> limits = Limits(first=2, max_lag=4, max_bytes=2 * 10**9)
        >>> schedule = plan(calibration, compute=0.5, limits=limits)

    Attributes:
        first: How many of the first evaluations are computed, at least 1.
        pinned: More evaluations that are computed, counted from 0; none if not given.
        max_lag: The most evaluations skipped in a row, at least 1. If not given, whole evaluations
            may be skipped any number of times in a row; sites as often as was calibrated, or half
            of that where a fill combines several outputs.
        max_bytes: The most bytes of cached tensors held after any evaluation, at least 0; no limit
            if not given.
        max_rows: The most distinct rows of sites, at least 1; each is a graph of a compiled model.
            No limit if not given.

    Raises:
        ScheduleError: A limit is out of range.
    """

    first: int = 1
    pinned: Collection[int] = ()
    max_lag: int | None = None
    max_bytes: int | None = None
    max_rows: int | None = None

    def __post_init__(self) -> None:
        bounds = {
            "first": (self.first, 1),
            "max_lag": (self.max_lag, 1),
            "max_bytes": (self.max_bytes, 0),
            "max_rows": (self.max_rows, 1),
        }
        for name, (value, least) in bounds.items():
            if value is not None and value < least:
                raise ScheduleError(f"{name} is at least {least}, got {value}")
        before = sorted(i for i in self.pinned if i < 0)
        if before:
            raise ScheduleError(f"pinned evaluations are counted from 0, got {before}")

    def check(self, evaluations: int) -> None:
        """Refuse limits that no run of so many evaluations can keep to.

        Args:
            evaluations: Evaluations of a run.

        Raises:
            ScheduleError: `first` or a pinned evaluation is past the end.
        """
        if self.first > evaluations:
            raise ScheduleError(f"first is from 1 to {evaluations} evaluations, got {self.first}")
        outside = sorted(i for i in self.pinned if i >= evaluations)
        if outside:
            raise ScheduleError(
                f"pinned evaluations are from 0 to {evaluations - 1}, got {outside}"
            )

    @property
    def computed(self) -> frozenset[int]:
        """The evaluations that are computed in any case: the first ones and the pinned ones."""
        return frozenset({*range(self.first), *self.pinned})

    def fewest(self, evaluations: int) -> frozenset[int]:
        """Return the fewest evaluations that can be computed, of a run of so many.

        Args:
            evaluations: Evaluations of a run.

        Returns:
            Indices of evaluations, from 0: those computed in any case, and as many between them as
            `max_lag` needs.
        """
        step = (self.max_lag or evaluations) + 1
        edges = [*sorted(self.computed), evaluations]
        return frozenset(
            i for start, end in itertools.pairwise(edges) for i in range(start, end, step)
        )
