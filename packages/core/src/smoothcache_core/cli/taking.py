"""Commands that take the fields of a dataclass as options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


def taking(
    command: Callable[..., None],
    kind: type[T],
    *,
    only: Collection[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Callable[..., None]:
    """Return `command` with its first parameter replaced by one for every field of a dataclass.

    The command line then has an option for each, as the field's annotation describes it.

    Args:
        command: Takes a `kind` first, all else by name.
        kind: A dataclass all of whose fields are annotated with options and have defaults.
        only: The fields to take; the others keep their defaults. None for all.
        defaults: Other defaults of parameters, by name, than those of the fields and the command.
    """
    hints = get_type_hints(kind, include_extras=True)
    taken = {
        field.name: field.default
        for field in fields(kind)  # pyright: ignore[reportArgumentType] a dataclass
        if only is None or field.name in only
    }
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if default is MISSING else default,
            annotation=hints[name],
        )
        for name, default in taken.items()
    ]
    named = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    changed = defaults or {}
    parameters = [
        each.replace(default=changed[each.name]) if each.name in changed else each
        for each in (*named, *added)
    ]

    def run(**given: Any) -> None:
        values = {name: given.pop(name) for name in taken}
        command(kind(**values), **given)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    vars(run)["__signature__"] = inspect.Signature(parameters)
    return run
