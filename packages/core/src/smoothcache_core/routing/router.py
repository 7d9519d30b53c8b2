"""Routers: one score for every output and evaluation, whatever the sample."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn

from smoothcache_core.adapters.sites import Site
from smoothcache_core.compat.routers import router_at, routers_in
from smoothcache_core.errors import RouterError
from smoothcache_core.routing.settings import Decides
from smoothcache_core.schedule.cost import Cost
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.provenance import Provenance
from smoothcache_core.schedule.schedule import Schedule

LIMIT = 5.0
"""Logits stay within it, as in both papers: beyond, a sigmoid hardly has a gradient."""


class _Router(nn.Module):
    """Scores of one evaluation, as published checkpoints name them: `"i.prob"`."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.prob = nn.Parameter(logits)


class Routers(nn.Module):
    """Scores of all sites at all evaluations.

    Args:
        evaluations: Evaluations of one run, at least 2.
        sites: What is reused or computed, in the order of the slots.
        decides: At which evaluations; at all others everything is computed.
        seed: Logits begin at normal numbers of this seed, as in both papers.

    Raises:
        RouterError: There is nothing to decide on.
    """

    def __init__(
        self, evaluations: int, sites: Sequence[Site], *, decides: Decides = "all", seed: int = 0
    ) -> None:
        super().__init__()
        if evaluations < 2 or not sites:
            raise RouterError(
                f"routers decide on sites after the first evaluation; there are {len(sites)} sites "
                f"and {evaluations} evaluations"
            )
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(evaluations, len(sites), generator=generator)
        self.routers = nn.ModuleList(_Router(row.clamp(-LIMIT, LIMIT)) for row in logits)
        self.sites = tuple(sites)
        self.decides: Decides = decides

    @property
    def evaluations(self) -> int:
        """Evaluations of one run."""
        return len(self.routers)

    def logits(self, evaluation: int) -> nn.Parameter | None:
        """Return the logits that decide at an evaluation, (sites,); None if all is computed.

        Args:
            evaluation: Index in the run, from 0.
        """
        number = router_at(evaluation, self.evaluations, self.decides)
        if number is None:
            return None
        router = self.routers[number]
        assert isinstance(router, _Router)
        return router.prob

    def scores(self, evaluation: int) -> Tensor | None:
        """Return how much each output is needed at an evaluation, (sites,) in [0, 1].

        Args:
            evaluation: Index in the run, from 0.
        """
        logits = self.logits(evaluation)
        return None if logits is None else logits.sigmoid()

    @torch.no_grad()
    def clamp(self) -> None:
        """Bring all logits within `LIMIT`."""
        for parameter in self.parameters():
            parameter.clamp_(-LIMIT, LIMIT)

    @torch.no_grad()
    def schedule(
        self,
        *,
        threshold: float | None = None,
        compute: float | None = None,
        cost: Cost | None = None,
        fingerprint: Fingerprint | None = None,
    ) -> Schedule:
        """Return the schedule of what is computed where the score exceeds a threshold.

        Scores rank outputs by how much they are needed, so a schedule can be cut from them at
        another compute than the one that the training came to.

        Args:
            threshold: In [0, 1).
            compute: In place of a threshold: the most that is computed, in (0, 1]. The smallest
                threshold is taken that keeps to it; where many scores are equal, less is computed.
                Of the plain run's MACs if there is a cost, else of the outputs of all sites.
            cost: What the sites cost, such as `calibration.cost`; the schedule records it.
            fingerprint: What it is for; not compared if not given.

        Raises:
            RouterError: Neither or both of threshold and compute are given, the threshold is out of
                range, all scores are alike, or more is computed where nothing is decided on.
        """
        if (threshold is None) == (compute is None):
            raise RouterError("give either a threshold of the scores or the compute, not both")
        if threshold is not None:
            if not 0.0 <= threshold < 1.0:
                raise RouterError(f"threshold is in [0, 1), got {threshold}")
            return self._at(threshold, cost, fingerprint)
        assert compute is not None
        if not 0.0 < compute <= 1.0:
            raise RouterError(f"compute is in (0, 1], got {compute}")
        found = self._cut(compute, lambda each: self._at(each, cost, fingerprint))
        settings = {**found.source.settings, "compute": compute}
        return found.changed(source=Provenance(name="router", settings=settings))

    def _cut(self, compute: float, at: Callable[[float], Schedule]) -> Schedule:
        """Return the schedule of the smallest threshold that keeps to a compute fraction."""
        decided = [self.scores(each) for each in range(self.evaluations)]
        values = sorted({value for each in decided if each is not None for value in each.tolist()})
        if _computed(everything := at(0.0)) <= compute:
            return everything
        if len(values) == 1:
            raise RouterError(
                f"all scores are alike ({values[0]:.4g}), so they do not say which outputs to "
                "compute; train for longer, or with another sparsity"
            )
        least = _computed(at(values[-1]))
        if least > compute:
            raise RouterError(
                f"{least:.3f} is computed where nothing is decided on (decides={self.decides!r}), "
                f"which is more than the {compute:g} that was asked for"
            )
        place = bisect_left(values, True, key=lambda value: _computed(at(value)) <= compute)
        return at(values[place])

    def _at(self, threshold: float, cost: Cost | None, fingerprint: Fingerprint | None) -> Schedule:
        rows: dict[str, list[int]] = {site.path: [] for site in self.sites}
        for evaluation in range(self.evaluations):
            scores = self.scores(evaluation)
            for index, site in enumerate(self.sites):
                needed = scores is None or float(scores[index]) > threshold
                rows[site.path].append(int(needed))
        settings = {"threshold": threshold, "decides": self.decides}
        return Schedule(
            evaluations=self.evaluations,
            rows=rows,
            source=Provenance(name="router", settings=settings),
            fingerprint=fingerprint or Fingerprint(),
            cost=cost,
        )


def _computed(schedule: Schedule) -> float:
    """Return the share that a schedule computes: of MACs if they are known, else of outputs."""
    if schedule.has_compute:
        return schedule.compute_fraction()
    return fmean(entry for row in schedule.rows.values() for entry in row)


def load_routers(path: str | Path, sites: Sequence[Site], *, decides: Decides = "all") -> Routers:
    """Read routers from a checkpoint, without running code in it.

    Args:
        path: What `train_router` or a published training wrote.
        sites: The sites of the model, in the order of the slots.
        decides: At which evaluations they decide.

    Raises:
        ScheduleError: It is no checkpoint of routers.
        RouterError: They are of another number of sites.
    """
    logits = routers_in(path)
    if logits.shape[1] != len(sites):
        raise RouterError(
            f"{str(path)!r} has scores of {logits.shape[1]} outputs, but the model has "
            f"{len(sites)} sites: it is a router of another model"
        )
    made = Routers(len(logits), sites, decides=decides)
    for router, row in zip(made.routers, logits, strict=True):
        router.load_state_dict({"prob": row.float()})
    return made
