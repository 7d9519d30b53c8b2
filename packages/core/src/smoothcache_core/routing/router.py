"""Routers: one score for every output and evaluation, whatever the sample."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from smoothcache_core.adapters.sites import Site
from smoothcache_core.compat.routers import router_at, routers_in
from smoothcache_core.errors import RouterError
from smoothcache_core.routing.settings import Decides
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
    def schedule(self, *, threshold: float, fingerprint: Fingerprint | None = None) -> Schedule:
        """Return the schedule of what is computed where the score exceeds a threshold.

        Args:
            threshold: In [0, 1).
            fingerprint: What it is for; not compared if not given.
        """
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
        )


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
