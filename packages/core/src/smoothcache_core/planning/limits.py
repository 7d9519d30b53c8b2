"""What every plan keeps to, whatever its target."""

from dataclasses import dataclass

from smoothcache_core.errors import ScheduleError
from smoothcache_core.sources.evaluations import WholeSettings
from smoothcache_core.sources.sites import SiteLimits


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What every plan must keep to.

    Attributes:
        first: How many of the first evaluations are computed, at least 1.
        pinned: More evaluations that are computed.
        max_lag: The most evaluations skipped in a row.
        max_bytes: The most bytes of cached tensors.
        max_rows: The most distinct rows of sites; each is a graph of a compiled model.
    """

    first: int = 1
    pinned: tuple[int, ...] = ()
    max_lag: int | None = None
    max_bytes: int | None = None
    max_rows: int | None = None

    def check(self, evaluations: int) -> None:
        """Raise `ScheduleError` if no run of so many evaluations can keep to them."""
        if not 1 <= self.first <= evaluations:
            raise ScheduleError(f"first is from 1 to {evaluations} evaluations, got {self.first}")
        outside = [i for i in self.pinned if not 0 <= i < evaluations]
        if outside:
            raise ScheduleError(
                f"pinned evaluations are from 0 to {evaluations - 1}, got {outside}"
            )
        bounds = {
            "max_lag": (self.max_lag, 1),
            "max_bytes": (self.max_bytes, 0),
            "max_rows": (self.max_rows, 1),
        }
        for name, (value, least) in bounds.items():
            if value is not None and value < least:
                raise ScheduleError(f"{name} is at least {least}, got {value}")

    def whole(self, *, guidance: bool) -> WholeSettings:
        """Return the limits of whole evaluations."""
        return WholeSettings(
            guidance=guidance, first=self.first, pinned=self.pinned, max_lag=self.max_lag
        )

    def sites(self) -> SiteLimits:
        """Return the limits of sites."""
        return SiteLimits(
            first=self.first,
            pinned=self.pinned,
            max_lag=self.max_lag,
            max_bytes=self.max_bytes,
            max_rows=self.max_rows,
        )
