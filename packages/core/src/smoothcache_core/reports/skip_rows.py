"""What a schedule computes and fills, site by site, as values."""

from collections.abc import Sequence
from dataclasses import dataclass

from smoothcache_core.adapters.sites import DENOISER, GUIDANCE, Site
from smoothcache_core.errors import EvaluationError
from smoothcache_core.schedule.provenance import described
from smoothcache_core.schedule.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class SkipRow:
    """A site of a skip map, or the whole denoiser.

    Attributes:
        kind: Its kind, such as `"attn1"`.
        site: Its path in the model, such as `"blocks.3.attn1"`; empty for the whole denoiser.
        block: Number of its block, if it has one.
        computed: Whether it is computed, for every evaluation.
    """

    kind: str
    site: str
    block: int | None = None
    computed: Sequence[bool]


@dataclass(frozen=True, kw_only=True)
class SkipMap:
    """What a schedule computes and what it fills.

    Attributes:
        policy: Name of the policy.
        rows: Sites, those of a kind after each other; all of as many evaluations.
        compute: MACs over those of the plain run, in (0, 1], if known.
    """

    policy: str
    rows: Sequence[SkipRow]
    compute: float | None = None


def skip_rows(schedule: Schedule, sites: Sequence[Site], *, name: str | None = None) -> SkipMap:
    """Return what a schedule computes, grouped by kind.

    Where whole evaluations or unconditional passes are skipped, that is shown instead of sites, and
    above them where both are.

    Args:
        schedule: What is shown.
        sites: The sites to show, such as those of a calibration; at least one if the schedule is of
            sites.
        name: What to call the schedule; how it was made if not given.

    Raises:
        EvaluationError: There are no sites.
    """
    whole = [site for site in (DENOISER, GUIDANCE) if site.kind in schedule.rows]
    shown = whole if schedule.whole else [*whole, *sites]
    if not shown:
        raise EvaluationError("a skip map of a schedule of sites needs at least one site")
    kinds = dict.fromkeys(site.kind for site in shown)
    return SkipMap(
        policy=name or described(schedule.source),
        rows=[_row(schedule, site) for kind in kinds for site in shown if site.kind == kind],
        compute=schedule.compute_fraction() if schedule.has_compute else None,
    )


def _row(schedule: Schedule, site: Site) -> SkipRow:
    """Return one row; no unconditional pass is computed where no evaluation is."""
    cells = [bool(cell) for cell in schedule.row(site)]
    if site == GUIDANCE and DENOISER.kind in schedule.rows:
        whole = schedule.row(DENOISER)
        cells = [cell and bool(there) for cell, there in zip(cells, whole, strict=True)]
    block = site.block if site.path else None
    return SkipRow(kind=site.kind, site=site.path, block=block, computed=cells)
