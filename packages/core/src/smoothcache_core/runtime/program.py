"""Schedules made ready for one live model: checked, compiled, their sites wrapped."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.adapters.sites import DENOISER, GUIDANCE, Adapter, Site
from smoothcache_core.errors import ScheduleError
from smoothcache_core.relay import members_of
from smoothcache_core.runtime.graphs import graphs_over_limit, recompile_limit
from smoothcache_core.runtime.guidance_cache import refuse_guidance
from smoothcache_core.runtime.recipe import Recipe, compile_schedule
from smoothcache_core.runtime.remarks import Remarks
from smoothcache_core.runtime.scales import Scales
from smoothcache_core.runtime.site_cache import Coefficients
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.wrapping.denoiser import Driver, Wrapping, removed_on_error
from smoothcache_core.wrapping.sites import WrappedSite


@dataclass(frozen=True, kw_only=True)
class Program:
    """A schedule ready to be followed by a model.

    Attributes:
        schedule: What is computed and what is filled.
        recipes: What happens to every site that is filled somewhere.
        sites: These sites as they are wrapped in each denoiser, in the same order.
        denoiser: What happens to the denoiser's output.
        guidance: What happens to the guidance difference.
        always: Paths of the sites that are computed at every evaluation.
        coefficients: Those of all fills of sites.
        scales: Scales and shifts of their channels.
        filled: The evaluations at which anything is filled, ascending.
        changed: Those at which the solver gets something else than a computed output, ascending.
    """

    schedule: Schedule
    recipes: tuple[Recipe, ...]
    sites: tuple[tuple[WrappedSite, ...], ...]
    denoiser: Recipe
    guidance: Recipe
    always: tuple[str, ...]
    coefficients: Coefficients
    scales: Scales
    filled: tuple[int, ...]
    changed: tuple[int, ...]


class Programs:
    """Makes the programs of a live model, and wraps their sites on it.

    Args:
        model: The denoiser the sampler calls, compiled or not.
        adapter: How its guidance is done.
        sites: The sites that the adapter finds in it.
        live: What is known of the model and of its runs, see `calls.fingerprints.live_fingerprint`.
        schedule: The first schedule that it will follow.
        driver: What stands around every call of the denoiser.
        remarks: Warns the user, each thing once.

    Attributes:
        wrapping: What is wrapped; its `remove` restores the model.

    Raises:
        AdapterError: The adapter does not fit the model.
        AttachError: The model has a cache already, or cannot be restored.
        ScheduleError: The schedule does not fit the model.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        sites: tuple[Site, ...],
        live: Fingerprint,
        schedule: Schedule,
        driver: Driver,
        remarks: Remarks,
    ) -> None:
        self._model, self._adapter, self._live, self._remarks = model, adapter, live, remarks
        self._sites = sites
        recipes = self._recipes(schedule)
        self.wrapping = Wrapping(model, (), driver)
        with removed_on_error(self.wrapping):
            self._made = [self._program(schedule, recipes)]

    def of(self, schedule: Schedule) -> Program:
        """Return the program of a schedule, compiled once for all schedules that are equal.

        Raises:
            AttachError: Its sites cannot be wrapped beside those of other schedules.
            ScheduleError: The schedule does not fit the model.
        """
        known = next((each for each in self._made if each.schedule == schedule), None)
        if known is not None:
            return replace(known, schedule=schedule)  # a server may read its file for each request
        self._made.append(self._program(schedule, self._recipes(schedule)))
        return self._made[-1]

    def _program(self, schedule: Schedule, compiled: Sequence[Recipe]) -> Program:
        *of_sites, of_denoiser, of_guidance = compiled
        recipes = self._filled(of_sites)
        program = Program(
            schedule=schedule,
            recipes=tuple(recipes),
            sites=tuple(self.wrapping.wrapped(recipe.site) for recipe in recipes),
            denoiser=of_denoiser,
            guidance=of_guidance,
            always=tuple(r.site.path for r in of_sites if not r.fills and not schedule.whole),
            coefficients=Coefficients([recipe.timeline for recipe in recipes]),
            scales=Scales(schedule),
            filled=tuple(filter(schedule.fills_at, range(schedule.evaluations))),
            changed=tuple(filter(schedule.changes_at, range(schedule.evaluations))),
        )
        self._warn_graphs(graphs_over_limit(self._model, _variants(recipes)))
        return program

    def _recipes(self, schedule: Schedule) -> tuple[Recipe, ...]:
        """Compile a schedule that fits: the recipes of all sites, the denoiser, and guidance."""
        self._check(schedule)
        recipes = compile_schedule(schedule, (*self._sites, DENOISER, GUIDANCE))
        branches = self._live.branches or ()
        members = [denoiser(member) for member in members_of(self._model)]
        refuse_guidance(recipes[-1], self._adapter, members, branches)
        return recipes

    def _filled(self, recipes: Sequence[Recipe]) -> list[Recipe]:
        """Return the recipes of sites that are filled, in as few modes as compiled code needs."""
        filled = [recipe for recipe in recipes if recipe.fills]
        refuse_nested([recipe.site for recipe in filled])
        if graphs_over_limit(self._model, _variants(filled)):
            return [recipe.keeping_all() for recipe in filled]
        return filled

    def _check(self, schedule: Schedule) -> None:
        """Refuse a schedule that does not fit; warn of what is harmless."""
        live = self._live
        reasons = _compared(schedule).conflicts(live)
        if reasons:
            raise ScheduleError(
                f"this schedule was planned for another model: {'; '.join(reasons)}"
            )
        unknown = schedule.unknown_keys(self._sites)
        if unknown:
            raise ScheduleError(
                f"the schedule names {unknown[:5]}, which {live.model_class} does not have; with "
                f"adapter {live.adapter!r} {_had(self._sites)}"
            )
        self._remarks.unlike(schedule.fingerprint, live)
        if not schedule.skips and schedule.corrected is None:
            self._remarks.once(
                "the schedule computes everything: nothing will be reused and nothing gets faster"
            )

    def _warn_graphs(self, graphs: int) -> None:
        if graphs:
            self._remarks.once(
                f"this schedule may make torch.compile build {graphs} graphs of one function, more "
                f"than torch's limit of {recompile_limit()}; the excess runs uncompiled or fails. "
                "Raise torch._dynamo.config.recompile_limit, compile block by block, or plan with "
                'target="kind"'
            )


def _compared(schedule: Schedule) -> Fingerprint:
    """Return what a schedule was planned for; the adapter matters where it names sites."""
    known = schedule.fingerprint
    return known.changed(adapter=None) if schedule.whole else known


def _had(sites: Sequence[Site]) -> str:
    if not sites:
        return "it has no sites, so only whole evaluations can be skipped"
    kinds = sorted({site.kind for site in sites})
    return f"its kinds are {kinds}, its first site {sites[0].path!r}"


def _variants(recipes: Sequence[Recipe]) -> Mapping[str, Sequence[Hashable]]:
    """Return the variants of the modules of all sites, by their paths."""
    return {path: seen for recipe in recipes for path, seen in recipe.variants.items()}


def refuse_nested(sites: Sequence[Site]) -> None:
    """Raise `ScheduleError` if one site is inside another: skipping the outer skips the inner."""
    filled = {path: site for site in sites for path in site.paths}
    for inner in sites:
        for path in inner.paths:
            parents = path.split(".")
            above = (".".join(parents[:depth]) for depth in range(1, len(parents)))
            outer = next((filled[each] for each in above if each in filled), None)
            if outer is not None:
                raise ScheduleError(
                    f"{inner.path!r} is inside {outer.path!r}; a schedule may skip only one of them"
                )
