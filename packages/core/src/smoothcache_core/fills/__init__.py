"""Fill rules: one file per way of making skipped outputs from computed ones, a line in `FILLS`."""

from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills.linear import linear as linear
from smoothcache_core.fills.reuse import reuse as reuse
from smoothcache_core.fills.rule import (
    FillRule as FillRule,
    residual as residual,
    rounded as rounded,
)
from smoothcache_core.fills.taylor import taylor as taylor
from smoothcache_core.schedule.fill import MOST_TERMS

FILLS: tuple[FillRule, ...] = (
    reuse(),
    *(linear(terms) for terms in range(1, MOST_TERMS + 1)),
    *(taylor(order) for order in range(MOST_TERMS)),
)
"""Every rule with every order, as `plan --fill` and `fill_named` know them."""


def fill_named(name: str) -> FillRule:
    """Return the rule of a name, as schedules record it: `"reuse"`, `"linear-2"`, `"taylor-1"`.

    Example:
        >>> fill_named("taylor-1").terms
        2

    Args:
        name: Name of a rule, with its number of terms or its order.

    Raises:
        ScheduleError: There is no such rule; names those that there are.
    """
    found = next((rule for rule in FILLS if rule.name == name), None)
    if found is None:
        names = ", ".join(rule.name for rule in FILLS)
        raise ScheduleError(f"a fill rule is one of {names}, got {name!r}")
    return found


__all__ = ["FILLS", "FillRule", "fill_named", "linear", "residual", "reuse", "rounded", "taylor"]
