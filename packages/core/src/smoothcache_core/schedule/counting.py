"""What a schedule computes and keeps, counted from what the sites of a model cost."""

from typing import Protocol

from smoothcache_core.adapters.sites import DENOISER, GUIDANCE, Site
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule.cost import Cost
from smoothcache_core.schedule.fill import Fill
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.storage import Storage, width_of
from smoothcache_core.schedule.timeline import Timeline


class Rows(Protocol):
    """What is counted: the part of a schedule that says what is computed and what is kept."""

    @property
    def evaluations(self) -> int:
        """Evaluations of one run."""
        ...

    @property
    def fingerprint(self) -> Fingerprint:
        """What it is for, which says the data type of outputs."""
        ...

    @property
    def storage(self) -> Storage | None:
        """How outputs are kept."""
        ...

    @property
    def whole(self) -> bool:
        """Whether its rows are of the whole denoiser."""
        ...

    def row(self, site: Site) -> tuple[int, ...]:
        """Return the row of a site."""
        ...

    def fill(self, site: Site) -> Fill:
        """Return how the skipped outputs of a site are made."""
        ...

    def timeline(self, site: Site) -> Timeline:
        """Return what happens to a site at every evaluation."""
        ...


def computed_fraction(plan: Rows, cost: Cost | None) -> float:
    """Return MACs computed over MACs of the plain run; see `Schedule.compute_fraction`."""
    if cost is None:
        raise ScheduleError(
            "the compute fraction needs a cost: pass one, or plan from a calibration"
        )
    total = cost.total or _one_evaluation(plan)
    saved = sum(macs.macs * plan.row(macs.site()).count(0) for macs in cost.sites)
    evaluated, guided = plan.row(DENOISER), plan.row(GUIDANCE)
    saved += total * evaluated.count(0)
    halves = [one and not both for one, both in zip(evaluated, guided, strict=True)]
    plain, twice = total * plan.evaluations, total * sum(halves)
    for macs in cost.sites:  # what is filled in one pass saves the half of it
        row = plan.row(macs.site())
        twice -= macs.macs * sum(half and not one for half, one in zip(halves, row, strict=True))
    return (plain - saved - twice / 2) / plain


def _one_evaluation(plan: Rows) -> int:
    """Return what one evaluation counts where its MACs are not known."""
    if not plan.whole:
        raise ScheduleError(
            "the denoiser costs no MACs, so sites have no share in them; of whole evaluations "
            "there are fractions"
        )
    return 1


def most_bytes(plan: Rows, cost: Cost | None) -> int:
    """Return the most bytes held after any evaluation; see `Schedule.predicted_bytes`."""
    if cost is None:
        raise ScheduleError("bytes need a cost: pass one, or plan from a calibration")
    sizes = {each.site(): each.bytes * _stored(plan, each.width) for each in cost.sites}
    copies = 2 if plan.fill(DENOISER).anchors else 1
    share = _stored(plan, cost.output_width)
    whole = {DENOISER: copies * cost.output_bytes, GUIDANCE: cost.output_bytes // 2}
    sizes |= {site: size * share for site, size in whole.items()}
    if not cost.output_bytes and any(
        any(plan.timeline(site).live_counts()) for site in (DENOISER, GUIDANCE)
    ):
        raise ScheduleError("this cost does not know the size of the denoiser's output")
    totals = [0.0] * plan.evaluations
    for site, size in sizes.items():
        passes = plan.row(GUIDANCE) if site.path else (1,) * plan.evaluations
        for evaluation, number in enumerate(plan.timeline(site).live_shares(passes)):
            totals[evaluation] += size * number
    return round(max(totals))


def _stored(plan: Rows, width: float | None) -> float:
    """Return what is stored over what was computed, of outputs of so many bytes an entry."""
    if plan.storage is None:
        return 1.0
    return plan.storage.share(width or width_of(plan.fingerprint.dtype))
