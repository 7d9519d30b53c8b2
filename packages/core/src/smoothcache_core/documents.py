"""JSON documents: read strictly, so that a file means one thing only, and laid out for people."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from smoothcache_core.errors import SmoothCacheError
from smoothcache_core.files import read_file

DEEPEST = 32
"""Levels of lists and objects in one another. What this library writes has up to 7; far beyond,
whatever looks into a document would run out of stack."""


LEAST, MOST = -(2**63), 2**64 - 1
"""Integers are those that fit into 64 bits, with or without a sign. The seeds of torch are."""


_LARGEST = 256 * 2**20
"""Bytes of the largest document: schedules have up to a few megabytes, reports hardly more."""


_DIGITS = 20  # of an integer of 64 bits, at most, and one for the sign


def read_document(
    path: str | Path, what: str, error: type[SmoothCacheError], *, constants: bool = False
) -> Any:
    """Read a JSON file strictly; see `parsed`.

    Args:
        path: A JSON file.
        what: What it should hold, for the message, such as `"schedule"`.
        error: Class of the error to raise.
        constants: Whether NaN and Infinity may be among the numbers, as Python writes them.

    Raises:
        SmoothCacheError: The file cannot be read, or is not JSON; of the class `error`.
    """
    content = read_file(path, what, error, most=_LARGEST)
    try:
        return parsed(content, constants=constants)
    except ValueError as problem:
        raise error(f"{str(path)!r} is not a JSON file: {problem}") from problem


def parsed(content: bytes | str, *, constants: bool = False) -> Any:
    """Return the document that UTF-8 text holds.

    What two readers may take for different things is refused: a key that occurs twice, NaN and
    infinity, numbers beyond what 64 bits hold, halves of surrogate pairs, byte order marks.

    Args:
        content: The text; bytes are UTF-8.
        constants: Whether NaN and Infinity are allowed nevertheless.

    Returns:
        Dictionaries, lists, texts, numbers, booleans and None.

    Raises:
        ValueError: The text is not JSON, or not what is said above.
    """
    try:
        text = content if isinstance(content, str) else content.decode()
        document = json.loads(
            text,
            object_pairs_hook=_without_doubles,
            parse_constant=float if constants else _no_constant,
            parse_int=_integer,
            parse_float=_number,
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error.reason} at byte {error.start}") from error
    except RecursionError as error:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep") from error
    for value in _parts(document):
        if isinstance(value, str):
            check_unicode(value)
    return document


def _parts(document: Any) -> Iterator[Any]:
    """Yield everything in a document, keys of objects too; not by recursion."""
    level, parts = 0, [document]
    while parts:
        yield from parts
        inside = [item for part in parts if isinstance(part, list) for item in part]
        for part in parts:
            if isinstance(part, dict):
                inside += [*part, *part.values()]
        level, parts = level + 1, inside
        if level > DEEPEST and parts:
            raise ValueError(f"it is nested more than {DEEPEST} levels deep")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {_short(twice)} occurs twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _integer(text: str) -> int:
    if len(text) > _DIGITS or not LEAST <= int(text) <= MOST:
        raise ValueError(f"the integer {_short(text)} does not fit into 64 bits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), -float("inf")):
        raise ValueError(f"the number {_short(text)} is beyond what 64 bits hold")
    return value


def check_unicode(text: str) -> None:
    """Refuse text that no file can hold.

    Raises:
        ValueError: It holds half of a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{_short(text)} holds half of a surrogate pair") from error


def _short(text: str) -> str:
    return ascii(text if len(text) <= 40 else f"{text[:37]}...")


def json_text(
    value: Any,
    on_one_line: Callable[[tuple[str, ...], Any], bool],
    *,
    path: tuple[str, ...] = (),
) -> str:
    """Return JSON that is indented by 2, but for the parts that are to stand on one line.

    Args:
        value: What to print; no NaN and no infinity.
        on_one_line: Whether a part stands on one line, given its keys from the top (an item of a
            list has its list's keys and an empty one), and the part.
        path: Keys that lead to `value`.

    Raises:
        ValueError: A number is not finite.
    """
    if not isinstance(value, dict | list) or not value or on_one_line(path, value):
        return json.dumps(value, allow_nan=False)
    inner = "  " * (len(path) + 1)
    if isinstance(value, dict):
        parts = [
            f"{json.dumps(key)}: {json_text(item, on_one_line, path=(*path, key))}"
            for key, item in value.items()
        ]
        first, last = "{", "}"
    else:
        parts = [json_text(item, on_one_line, path=(*path, "")) for item in value]
        first, last = "[", "]"
    return f"{first}\n" + ",\n".join(inner + part for part in parts) + f"\n{inner[2:]}{last}"
