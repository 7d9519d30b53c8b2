"""Pyramid attention broadcast (PAB, arXiv 2408.12588) as schedules, for any compute.

As published a kind of attention is computed every n-th evaluation and its output broadcast to those
between: spatial attention most often, temporal attention less, cross-attention least; only in the
middle of the run, where outputs hardly change. Published are the ranges 2-4-6, 3-5-7 and 5-7-9.
They save little, so for less compute they are stretched: over the whole run but its first and last
evaluations, to longer ranges, and to feed-forwards, which PAB broadcasts in a few blocks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from smoothcache_core import Calibration, Schedule
from smoothcache_core.schedule import Provenance

from tools.bench.policies import Row

RANGES = ((2, 4, 6), (3, 5, 7), (5, 7, 9), (7, 9, 12), (9, 12, 15))
"""Ranges of spatial, temporal and cross-attention; the first three are published."""

WINDOW = (0.07, 0.55)
"""Timesteps 930 to 450 of 1000, as shares of the way from noise to data."""

_ENDS = 2  # evaluations at either end of a run that stretched ranges leave alone


@dataclass(frozen=True, kw_only=True)
class Broadcast:
    """One setting.

    Attributes:
        ranges: Ranges of spatial, temporal and cross-attention, in evaluations.
        whole: Whether all of the run is broadcast but its ends, not the published window.
        feed_forward: Range of feed-forwards; 1 computes all.
    """

    ranges: tuple[int, int, int]
    whole: bool = False
    feed_forward: int = 1

    def __str__(self) -> str:
        where = "all but the ends" if self.whole else "the published window"
        more = f", feed-forwards {self.feed_forward}" if self.feed_forward > 1 else ""
        return f"{'-'.join(map(str, self.ranges))}{more}, {where}"


def broadcasts() -> Iterable[Broadcast]:
    """Return all settings, the published ones first."""
    for whole in (False, True):
        for ranges in RANGES:
            for each in (1, 2, 3, ranges[0], ranges[1]) if whole else (1,):
                yield Broadcast(ranges=ranges, whole=whole, feed_forward=each)


def pyramid_schedule(
    calibration: Calibration, ranks: Mapping[str, int], setting: Broadcast
) -> Schedule:
    """Return the schedule of a setting.

    Args:
        calibration: Of what model, and what its parts cost.
        ranks: By kind of site 0 for spatial, 1 for temporal, 2 for cross-attention; 3 for
            feed-forwards.
        setting: Ranges, and where.
    """
    every = (*setting.ranges, setting.feed_forward)
    rows = {
        kind: _row(calibration.evaluations, every[ranks[kind]], setting.whole)
        for kind in calibration.kinds
    }
    return Schedule(
        evaluations=calibration.evaluations,
        rows=rows,
        source=Provenance(
            name="pyramid", settings={"ranges": str(setting)}, seeds=calibration.seeds
        ),
        fingerprint=calibration.fingerprint,
        cost=calibration.cost,
    )


def _row(evaluations: int, every: int, whole: bool) -> Row:
    """Return a row that computes every n-th evaluation of a window, and all outside."""
    low, high = (_ENDS, evaluations - _ENDS) if whole else _window(evaluations)
    return tuple(int(not low <= i < high or (i - low) % every == 0) for i in range(evaluations))


def _window(evaluations: int) -> tuple[int, int]:
    low, high = (round(share * evaluations) for share in WINDOW)
    return low, high
