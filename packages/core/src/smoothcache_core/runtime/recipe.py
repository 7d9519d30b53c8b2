"""A schedule compiled once for the sites of a model: one recipe for each of them."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from smoothcache_core.adapters.sites import DENOISER, GUIDANCE, Site
from smoothcache_core.runtime.graphs import variants
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.schedule.timeline import Timeline


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a schedule has one site do, worked out before the first run; E is its evaluations.

    Attributes:
        site: The site; `DENOISER` or `GUIDANCE` for a row of the whole model.
        row: 1 where the schedule computes it, 0 where it fills it, (E,).
        timeline: Modes, sources, coefficients and live ranges, evaluation by evaluation.
        latents: Coefficients in its fills of the latent that the evaluation is given, and of the
            latent of the newest evaluation it is filled from, (E, 2); 0 where there is none.
        keeps_latent: Whether the latents of computed evaluations are kept for that.
        inputs: Coefficients of the latent in corrections of computed outputs, by evaluation.
        variants: What compiled code sees of its modules, by their paths, (E,) each.
        passes: 1 where an evaluation has the unconditional pass too, (E,).
        mean: Whether outputs of both passes fill evaluations of one by their mean.
    """

    site: Site
    row: tuple[int, ...]
    timeline: Timeline
    latents: tuple[tuple[float, float], ...]
    keeps_latent: bool
    inputs: Mapping[int, float]
    variants: Mapping[str, Sequence[Hashable]]
    passes: tuple[int, ...]
    mean: bool

    @property
    def fills(self) -> bool:
        """Whether the site is filled at all."""
        return 0 in self.row

    @property
    def corrects(self) -> bool:
        """Whether the solver gets something else than some computed outputs of it."""
        return bool(self.timeline.corrections)

    def keeping_all(self) -> "Recipe":
        """Return it with every computed output kept until its evaluation is over.

        Sites then compute in one mode in place of two, so compiled code has fewer variants.
        """
        timeline = self.timeline.keeping_all()
        seen = _variants(self.site, timeline, self.passes)
        return replace(self, timeline=timeline, variants=seen)

    def last_with_both(self, source: int) -> int:
        """Return the last evaluation of both passes that is filled from one, -1 if none is."""
        filled = (
            evaluation
            for evaluation, sources in enumerate(self.timeline.sources)
            if source in sources and self.passes[evaluation]
        )
        return max(filled, default=-1)


def compile_schedule(schedule: Schedule, sites: Sequence[Site]) -> tuple[Recipe, ...]:
    """Return the recipes of sites, in their order.

    Raises:
        ScheduleError: A fill has more terms than outputs are computed before it.
    """
    return tuple(_recipe(schedule, site) for site in sites)


def _recipe(schedule: Schedule, site: Site) -> Recipe:
    fill, timeline, passes = schedule.fill(site), schedule.timeline(site), schedule.row(GUIDANCE)
    corrected = schedule.corrected
    return Recipe(
        site=site,
        row=schedule.row(site),
        timeline=timeline,
        latents=tuple(
            (fill.inputs.get(evaluation, 0.0), fill.anchors.get(evaluation, 0.0))
            for evaluation in range(schedule.evaluations)
        ),
        keeps_latent=bool(fill.anchors),
        inputs=corrected.inputs if corrected and site == DENOISER else {},
        variants=_variants(site, timeline, passes),
        passes=passes,
        mean=fill.passes == "mean",
    )


def _variants(
    site: Site, timeline: Timeline, passes: Sequence[int]
) -> Mapping[str, Sequence[Hashable]]:
    """Return what compiled code sees; a batch of one pass is of another shape than one of both."""
    seen = variants(site, timeline)
    if all(passes):
        return seen
    return {path: [*zip(modes, passes, strict=True)] for path, modes in seen.items()}
