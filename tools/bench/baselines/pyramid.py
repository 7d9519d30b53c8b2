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
from smoothcache_core.sources import pyramid
from smoothcache_core.sources.pyramid import WINDOW

RANGES = ((2, 4, 6), (3, 5, 7), (5, 7, 9), (7, 9, 12), (9, 12, 15))
"""Ranges of spatial, temporal and cross-attention; the first three are published."""

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
    evaluations = calibration.evaluations
    ends = _ENDS / evaluations
    schedule = pyramid(
        {kind: every[ranks[kind]] for kind in calibration.kinds},
        evaluations=evaluations,
        window=(ends, 1.0 - ends) if setting.whole else WINDOW,
        fingerprint=calibration.fingerprint,
        cost=calibration.cost,
    )
    return schedule.changed(source=schedule.source.changed(seeds=calibration.seeds))
