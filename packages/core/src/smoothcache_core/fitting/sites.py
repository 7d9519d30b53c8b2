"""Fitting the fills of sites while cached runs unfold.

Runs are taken one after the other. At every evaluation of a cached run the denoiser is called once
more, with all sites computed and on the plain run's latent, which shows what the fills should give.
Their normal equations, summed over the runs so far, are solved at once, and the run goes on with
what was found, so every fit sees the trajectory that the fits before it lead to. Nothing but inner
products outlives an evaluation.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from smoothcache_core.adapters.sites import Site
from smoothcache_core.calls.call import CallReader
from smoothcache_core.fills import rounded
from smoothcache_core.fitting.normal_equations import NormalEquations
from smoothcache_core.fitting.rollout import attached
from smoothcache_core.outputs.tensors import flat
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.sampling.trajectory import Trajectory
from smoothcache_core.schedule.fill import Fill
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.schedule.timeline import PLAIN
from smoothcache_core.wrapping.denoiser import sites_of
from smoothcache_core.wrapping.modules import Inner, layered
from smoothcache_core.wrapping.site_modules import CallOutputs


class SiteFitting:
    """Fits the fills of a schedule of sites.

    Args:
        sampler: The model and its sampler.
        schedule: What to compute and what to skip.
        terms: The most computed outputs that a fill combines; if not given, as many as in
            `schedule`, and plain reuse stays what it is.
    """

    def __init__(self, sampler: Sampler, schedule: Schedule, terms: int | None = None) -> None:
        self._sampler = sampler
        self._reader = CallReader(sampler.model, sampler.adapter)
        found = sites_of(sampler.adapter, sampler.model)
        sites = [site for site in found if 0 in schedule.row(site)]
        fills = {site.path: _unfitted(schedule, site, terms) for site in sites}
        self._fills = {path: fill for path, fill in fills.items() if fill.terms}
        rows = {site.path: schedule.row(site) for site in sites if site.path in self._fills}
        self._schedule = schedule.changed(rows={**schedule.rows, **rows}, fills=self._fills)
        self._normals: dict[tuple[str, int], NormalEquations] = defaultdict(NormalEquations)

    @property
    def has_fills(self) -> bool:
        """Whether there is anything to fit."""
        return bool(self._fills)

    @torch.no_grad()
    def run(self, plain: Trajectory) -> None:
        """Fit along the cached run of one seed, given its plain run."""
        latents = iter([call.latent for call in plain.calls])

        def beside(call: Inner, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            others, named = self._reader.with_latent(args, kwargs, next(latents))
            attachment.refill(lambda: call(*others, **named), self._refit)
            return call(*args, **kwargs)

        sampler = self._sampler
        with layered(sampler.model, beside), attached(sampler, self._schedule) as attachment:
            sampler.final_latent(plain.seed)

    def _refit(
        self, path: str, evaluation: int, outputs: Sequence[CallOutputs], computed: CallOutputs
    ) -> Sequence[float]:
        normal = self._normals[path, evaluation]
        normal.add([_entries(values) for values in outputs], _entries(computed))
        return normal.solve().tolist()

    @property
    def schedule(self) -> Schedule:
        """The schedule with the fills found so far."""
        found: dict[str, dict[int, tuple[float, ...]]] = defaultdict(dict)
        for (path, evaluation), normal in self._normals.items():
            found[path][evaluation] = rounded(normal.solve())
        fills = {path: Fill(terms=terms) for path, terms in found.items()}
        counts = [len(c) for fill in self._fills.values() for c in fill.terms.values()]
        source = self._schedule.source.fitted(max(counts))
        return self._schedule.changed(fills={**self._fills, **fills}, source=source)


def _unfitted(schedule: Schedule, site: Site, terms: int | None) -> Fill:
    """Return a fill of as many coefficients as shall be fitted, all of them 0."""
    row = schedule.row(site)
    counts = {
        evaluation: len(given) if terms is None else min(terms, sum(row[:evaluation]))
        for evaluation, given in enumerate(schedule.terms(site))
        if given and (terms is not None or given != PLAIN)
    }
    return Fill(terms={evaluation: (0.0,) * count for evaluation, count in counts.items()})


def _entries(values: CallOutputs) -> Tensor:
    """Return all entries of what a site gave in one evaluation, (n,)."""
    tensors = [tensor for output in values for tensor in flat(output)]
    return torch.cat([t.reshape(-1) for t in tensors if t.is_floating_point()])
