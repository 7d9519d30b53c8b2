"""What a command is: a dataclass whose fields are its options. Loads nothing heavy."""

from __future__ import annotations

import re
from abc import ABC
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar, get_type_hints

from cyclopts import Parameter

from smoothcache_core.cli.source import Source

if TYPE_CHECKING:
    from smoothcache_core.cli.modality import Modality

T = TypeVar("T")

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Command(ABC):
    """A command. Its subclasses are dataclasses: a field is an option, the docstring is the help.

    A field is annotated with cyclopts' `Parameter`, which holds the option's help, and whatever
    does not follow from the name and the type of the field. In the docstring `{units}` is what
    the modality calls samples, `{shown}` what its demo samples, and `{duration}` how long it takes.
    """

    @classmethod
    def of(cls, modality: Modality) -> type[Self]:
        """Return the command as a modality has it: with its options and its defaults."""
        del modality
        return cls

    WORK: ClassVar[str]
    """What does the work, `"module:function"`, as entry points are written: a function of the
    command and the modality, whose module is loaded when the command runs."""

    @classmethod
    def called(cls) -> str:
        """Return the name of the command: that of its class, as `train-router` of `TrainRouter`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()

    def run(self, modality: Modality) -> None:
        """Do what the command does.

        Raises:
            SmoothCacheError: It is impossible; says why, in a line for the user.
        """
        module, _, function = self.WORK.partition(":")
        getattr(import_module(module), function)(self, modality)


@dataclass(frozen=True, kw_only=True)
class SamplingCommand(Command):
    """A command that samples, and so has the options of a modality's source beside its own."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = _NOTHING
    """Defaults of the source's fields, where they are not those of the source."""

    HIDDEN: ClassVar[Collection[str]] = ()
    """Fields of the source that are no options of this command."""

    WRITES: ClassVar[bool] = False
    """Whether it writes samples, and so has the options that say how."""

    source: Annotated[Source, Parameter(name="*")]

    @classmethod
    def of(cls, modality: Modality) -> type[Self]:
        """Return the command with the options of the modality's source."""
        hidden = (*cls.HIDDEN, *(() if cls.WRITES else modality.source.WRITTEN))
        return with_source(cls, varied(modality.source, defaults=cls.DEFAULTS, hidden=hidden))


def with_source(command: type[T], source: type[Source]) -> type[T]:
    """Return a command whose field `source` is of this type, all of whose fields have defaults."""
    return varied(
        command,
        defaults={"source": source()},  # pyright: ignore[reportCallIssue] all have defaults
        types={"source": Annotated[source, Parameter(name="*")]},
    )


def varied(
    kind: type[T],
    *,
    defaults: Mapping[str, Any] = _NOTHING,
    hidden: Collection[str] = (),
    types: Mapping[str, Any] = _NOTHING,
) -> type[T]:
    """Return a subclass of a dataclass of options, in which some fields differ.

    Args:
        kind: The dataclass of options to vary.
        defaults: Defaults that differ, by the names of the fields.
        hidden: Fields that are no options; they have their defaults.
        types: Annotations that differ, by the names of the fields.
    """
    hints = get_type_hints(kind, include_extras=True) | dict(types)
    hints |= {name: Annotated[hints[name], Parameter(parse=False)] for name in hidden}
    listed = [
        (
            each.name,
            hints[each.name],
            field(
                default=defaults.get(each.name, each.default),
                default_factory=each.default_factory,
                kw_only=each.kw_only,
            ),
        )
        for each in fields(kind)  # pyright: ignore[reportArgumentType] a dataclass
    ]
    made = make_dataclass(kind.__name__, listed, bases=(kind,), frozen=True)
    made.__doc__, made.__module__ = kind.__doc__, kind.__module__
    return made
