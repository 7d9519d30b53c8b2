"""Names that the planner knows, for options. They are looked up when needed: that loads numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Names = Callable[[object], Sequence[str]]
"""Returns names; the argument is what cyclopts tells of a command line that is completed."""


def targets(_: object = None) -> Sequence[str]:
    """Return what `plan --target` takes: the schedule sources, and `"auto"`."""
    from smoothcache_core.sources import SOURCES

    return ["auto", *(kind.name for kind in SOURCES)]


def fill_rules(_: object = None) -> Sequence[str]:
    """Return what `plan --fill` takes: the fill rules with every order."""
    from smoothcache_core.fills import FILLS

    return [rule.name for rule in FILLS]


ROUTER = "router"
"""What `import --format` takes for a checkpoint of trained routers, which is no JSON."""


def formats(_: object = None) -> Sequence[str]:
    """Return what `export --format` takes: the formats of other programs."""
    from smoothcache_core.schedule.formats import FORMATS

    return [each.name for each in FORMATS]


def importable(_: object = None) -> Sequence[str]:
    """Return what `import --format` takes: these, and routers."""
    return [*formats(), ROUTER]


def one_of(names: Names) -> Callable[[Any, str | None], None]:
    """Return a validator that refuses a name, if one is given, that is not among these."""

    def check(_: Any, name: str | None) -> None:
        known = () if name is None else names(None)
        if name is not None and name not in known:
            raise ValueError(f"Choose from: {', '.join(known)}.")

    return check
