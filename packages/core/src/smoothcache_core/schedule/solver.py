"""Comparing solvers by their names and settings, as files of this and earlier versions hold them.

Files of before hold a name with a few settings, `"DDIMScheduler(prediction_type=epsilon)"`; later
ones hold all settings beside it. What only one of the two knows is not compared.
"""

from collections.abc import Mapping

from smoothcache_core.schedule.provenance import Setting

Solver = tuple[str | None, Mapping[str, Setting] | None]
"""A name and settings; either may be unknown."""


def solver_differences(one: Solver, other: Solver, word: str) -> list[str]:
    """Return how another solver differs, one line for each setting.

    Args:
        one: The solver that was planned for.
        other: The solver that runs.
        word: What stands before the values of `one`.
    """
    (here, had), (there, has) = _parted(one[0]), _parted(other[0])
    if here is not None and there is not None and here != there:
        return [f"solver is {other[0]!r} instead of {one[0]!r}"]
    mine = had | _texts(one[1])
    theirs = has | _texts(other[1])
    reasons = [
        f"the solver's {name} is {theirs[name]}, {word} {mine[name]}"
        for name in mine
        if name in theirs and mine[name] != theirs[name]
    ]
    if reasons or one[1] is not None or other[1] is not None:
        return reasons
    unlike = None not in (one[0], other[0]) and one[0] != other[0]
    return [f"solver is {other[0]!r} instead of {one[0]!r}"] if unlike else []


def named_settings(solver: str) -> tuple[str, dict[str, str]]:
    """Divide a solver's name, such as `"euler(end=0.1)"`, into the name and its settings.

    Args:
        solver: The name. What has no settings in brackets at its end is a name as a whole.
    """
    name, bracket, rest = solver.partition("(")
    parts = [part.partition("=") for part in rest.removesuffix(")").split(", ")]
    if not bracket or not rest.endswith(")") or not all(equals for _, equals, _ in parts):
        return solver.removesuffix("()"), {}
    return name, {key: value for key, _, value in parts}


def _parted(solver: str | None) -> tuple[str | None, dict[str, str]]:
    if solver is None:
        return None, {}
    name, settings = named_settings(solver)
    return name, _texts(settings)


def _texts(settings: Mapping[str, Setting] | None) -> dict[str, str]:
    return {name: _text(value) for name, value in (settings or {}).items()}


def _text(value: Setting) -> str:
    """Return a setting as text, the same for 0, 0.0 and `"0"`."""
    if isinstance(value, bool) or value is None:
        return str(value)
    try:
        return f"{float(value):g}"
    except ValueError:
        return str(value)
