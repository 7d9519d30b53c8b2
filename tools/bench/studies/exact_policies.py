"""Policies of the study of exact solutions: ours toward both aims, peers, and other solvers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule.provenance import Aim

from tools.bench.baselines.ours import Plan, fitted, planned
from tools.bench.bench import Bench
from tools.bench.models.model import WithSteps
from tools.bench.policies import OutOfReachError, Policy
from tools.bench.studies.exact_settings import Settings
from tools.bench.studies.quality_policies import (
    Family,
    Known,
    families,
    fewer_steps_of,
    of_plan,
    whole_evaluations,
)

PEERS = (
    "smoothcache (K=3)",
    "smoothcache (K=10)",
    "fora+taylor (order 1)",
    "fora+taylor (order 2)",
    "cache-dit",
    "cache-dit (taylor 1)",
)
"""Those of the quality benchmark that are compared here too: the paper's, and the best caches."""


@dataclass(frozen=True, kw_only=True)
class Within:
    """A family that has policies at some budgets only.

    Attributes:
        family: Makes the policies.
        budgets: Where it has any.
    """

    family: Family
    budgets: tuple[float, ...]

    def __call__(self, known: Known, budget: float) -> Iterable[Policy]:
        """Return the policies of a budget."""
        return self.family(known, budget) if budget in self.budgets else ()


def all_families(bench: Bench, settings: Settings) -> dict[str, Family]:
    """Return all families by the label of their policies.

    Args:
        bench: The bench.
        settings: At which budgets there is what.
    """
    skipping = tuple(budget for budget in settings.budgets if budget < 1.0)
    known = families(bench, {}) | whole_evaluations()
    wanted = [*PEERS, *whole_evaluations()]
    wanted += [label for label in known if label.startswith("fewer-steps")]
    found: dict[str, Family] = dict(ours(settings))
    found |= {label: Within(family=known[label], budgets=skipping) for label in wanted}
    for title, ways in bench.modality.others(bench.sampler).items():
        found[f"solver ({title})"] = partial(_solver, title, ways)
    return found


def ours(settings: Settings) -> dict[str, Family]:
    """Return this library's policies: planned and fitted, toward either aim."""
    aims: tuple[Aim, ...] = ("plain", "exact")
    found: dict[str, Family] = {}
    for toward in aims:
        plans: Mapping[str, tuple[Plan, Sequence[float]]] = {
            f"toward {toward}": (partial(planned, toward=toward), settings.budgets),
            f"toward {toward}, fitted": (partial(fitted, toward=toward), settings.fitted),
        }
        for name, (plan, budgets) in plans.items():
            # to compute all toward the plain run is the plain run itself
            where = tuple(budget for budget in budgets if budget < 1.0 or toward == "exact")
            found[name] = Within(family=partial(of_plan, name, plan), budgets=where)
    return found


def _solver(
    title: str, ways: Mapping[str, WithSteps], known: Known, budget: float
) -> Iterable[Policy]:
    """Yield a solver on the grid that is nearest to the exact solution of the choosing samples."""
    yield from fewer_steps_of("solver", title, ways, known, budget)


def refusal(error: Exception) -> str:
    """Return in a line why a policy cannot be run."""
    reason = (str(error).strip().splitlines() or [""])[0]
    known = isinstance(error, OutOfReachError | ScheduleError)
    return reason if known else f"{type(error).__name__}: {reason}"
