"""What fields of a schedule may be: values without a second reading, and their base class.

Numbers are numbers here, never text or truth values, whoever makes the value: a file, a planner or
a user. Scalars of numpy are what they hold.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
)

from smoothcache_core.documents import LEAST, MOST, check_unicode
from smoothcache_core.errors import ScheduleError


def _scalar(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def _encodable(text: str) -> str:
    check_unicode(text)
    return text


def _numbers_as_keys(values: object) -> object:
    """Read numbers that are keys as JSON has them, where keys are text."""
    if not isinstance(values, Mapping):
        return values
    read = {_number(key): value for key, value in values.items()}
    if len(read) < len(values):
        raise ValueError("a number occurs twice as a key")
    return read


def _number(key: object) -> object:
    if not isinstance(key, str):
        return key
    if not re.fullmatch(r"-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?", key):
        raise ValueError(f"the key {key!a} is no number")
    return float(key)


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise ValueError(f"{twice!r} occurs twice")
    return values


Text = Annotated[str, Strict(), AfterValidator(_encodable)]
"""Any text that a file can hold."""


Name = Annotated[Text, Field(min_length=1)]
"""Text that is not empty."""


Flag = Annotated[bool, Strict(), BeforeValidator(_scalar)]
"""True or False."""


Integer = Annotated[int, Strict(), Field(ge=LEAST, le=MOST), BeforeValidator(_scalar)]
"""An integer of 64 bits; a seed, for example."""


Count = Annotated[Integer, Field(ge=0, lt=2**63)]
"""An integer of at least 0: how many there are."""


Positive = Annotated[Count, Field(gt=0)]
"""An integer of at least 1."""


Number = Annotated[float, Strict(), AllowInfNan(False), BeforeValidator(_scalar)]
"""A finite number."""


NonNegative = Annotated[Number, Field(ge=0)]
"""A finite number of at least 0."""


ByStrength = Annotated[Mapping[Number, NonNegative], BeforeValidator(_numbers_as_keys)]
"""Numbers of at least 0 by numbers."""


Seeds = Annotated[tuple[Integer, ...], AfterValidator(_distinct)]
"""Seeds, none of them twice."""


Names = Annotated[tuple[Text, ...], AfterValidator(_distinct)]
"""Texts, none of them twice."""


class _OwnErrors(type(BaseModel)):
    """Makes wrong content an error of this library, where a value is made by calling its class.

    Values inside other values are made by pydantic, which names the place of what is wrong.
    """

    def __call__(cls, /, *args: Any, **fields: Any) -> Any:
        try:
            return super().__call__(*args, **fields)
        except ValidationError as error:
            raise ScheduleError(first_problem(error, cls.__name__.lower())) from error


if TYPE_CHECKING:
    _Base = BaseModel
else:  # a type checker would take every call for what `__call__` says

    class _Base(BaseModel, metaclass=_OwnErrors):
        """A model whose class raises errors of this library."""


class Value(_Base):
    """Base class of schedules and of what they are made of: frozen, and validated as a whole.

    A value that is put into another is validated again, so that none is ever used that was not.

    Raises:
        ScheduleError: From every constructor, if the content is invalid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", revalidate_instances="always")

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Return the value with these fields, as from a file: any names at all are looked at.

        Args:
            fields: Contents by the names of fields.

        Raises:
            ScheduleError: A field is unknown, missing or wrong.
        """
        try:
            return cls.model_validate(dict(fields))
        except ValidationError as error:
            raise ScheduleError(first_problem(error, cls.__name__.lower())) from error

    def changed(self, **changes: Any) -> Self:
        """Return the value with other contents of some fields, validated like any.

        Args:
            changes: New contents by the names of fields; the others stay.

        Raises:
            ScheduleError: They are invalid, or do not go with those that stay.
        """
        return self.of(dict(self) | changes)


def first_problem(error: ValidationError, what: str) -> str:
    """Return the first of what is wrong, in one line.

    Args:
        error: What pydantic found.
        what: What is invalid, such as `"schedule"`.
    """
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"invalid {what}: {where + ': ' if where else ''}{message}"
