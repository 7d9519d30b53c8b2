"""Breaking files: their bytes, the structure of their JSON, and their arrays."""

import copy
import json
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

HEADER = "smoothcache"  # the entry of a calibration's metadata that holds its JSON header


EXTREMES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 4, 7, 8, 9, 255, 10**6, 2**31, 2**53, 2**63, 2**64, 10**30,
    10**400, -(2**63), 0.0, -0.0, 0.5, 1.0, 1.5, 3.7, -2.5, 65504.0, 65505.0, 1e-300, 1e30, 1e300,
    float("nan"), float("inf"), -float("inf"), "", "x", "1", "03", "+3", " 1", "1.0", "denoiser",
    "guidance", "attn", "attn-0", "\ud800", "\0", "é", "blocks.0.attn", [], {}, [1], [0], [[]],
    {"": 1}, {"a": None}, "9" * 5000,
)  # fmt: skip
"""What values are replaced by: all types, the edges of ranges, and names that mean something."""


class Pairs(list[list[Any]]):
    """A JSON object as key and value, one after the other, so that a key can occur twice."""


# ---------------------------------------------------------------------------- bytes


def broken_bytes(content: bytes, chance: random.Random) -> bytes:
    """Return content with a few bits flipped, a part cut off, taken out, doubled or put in."""
    broken = bytearray(content)
    place = chance.randrange(len(broken))
    length = chance.choice((1, 2, 8, 64))
    how = chance.randrange(6)
    if how <= 1:
        for _ in range(chance.randint(1, 4)):
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
    elif how == 2:
        del broken[place:]
    elif how == 3:
        del broken[place : place + length]
    elif how == 4:
        broken[place:place] = broken[place : place + length]
    else:
        broken[place:place] = chance.randbytes(length)
    return bytes(broken)


# ---------------------------------------------------------------------------- JSON


def broken_json(text: str, chance: random.Random) -> str:
    """Return a document with one to three edits of its structure."""
    document = json.loads(text, object_pairs_hook=lambda pairs: Pairs(map(list, pairs)))
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        places = list(_places(document))
        holder, index = chance.choice(places) if places else ([document], 0)
        chance.choice(_EDITS)(holder, index, chance)
    return _text(document)


def _places(document: Any) -> Iterator[tuple[list[Any], int]]:
    """Yield every list and index in a document, or object and index of a pair."""
    holders = [document]
    while holders:
        holder = holders.pop()
        if isinstance(holder, list):
            yield from ((holder, index) for index in range(len(holder)))
            holders += [item[1] if isinstance(holder, Pairs) else item for item in holder]


def _value(holder: list[Any], index: int) -> Any:
    return holder[index][1] if isinstance(holder, Pairs) else holder[index]


def _put(holder: list[Any], index: int, value: Any) -> None:
    if isinstance(holder, Pairs):
        holder[index][1] = value
    else:
        holder[index] = value


def _replace(holder: list[Any], index: int, chance: random.Random) -> None:
    _put(holder, index, copy.deepcopy(chance.choice(EXTREMES)))


def _retype(holder: list[Any], index: int, chance: random.Random) -> None:
    """Say the same by another type."""
    value = _value(holder, index)
    others = ["[]" if isinstance(value, list) else str(value), [value], Pairs([["0", value]])]
    if isinstance(value, int | float) and not isinstance(value, bool):
        others += [float(value), bool(value), -value, value + 1, value * 1000, value / 3]
    _put(holder, index, chance.choice(others))


def _remove(holder: list[Any], index: int, chance: random.Random) -> None:
    del chance, holder[index]


def _double(holder: list[Any], index: int, chance: random.Random) -> None:
    item = holder[index]
    holder.insert(chance.randint(0, len(holder)), list(item) if isinstance(item, list) else item)


def _rename(holder: list[Any], index: int, chance: random.Random) -> None:
    if isinstance(holder, Pairs):
        holder[index][0] = chance.choice([str(e) for e in EXTREMES] + ["self", "cls", "fields"])


def _exchange(holder: list[Any], index: int, chance: random.Random) -> None:
    other = chance.randrange(len(holder))
    one, two = _value(holder, index), _value(holder, other)
    _put(holder, index, two)
    _put(holder, other, one)


def _bury(holder: list[Any], index: int, chance: random.Random) -> None:
    value = _value(holder, index)
    for _ in range(chance.choice((1, 40, 2000))):
        value = [value]
    _put(holder, index, value)


_EDITS: tuple[Callable[[list[Any], int, random.Random], None], ...] = (
    _replace, _replace, _replace, _retype, _retype, _remove, _double, _rename, _exchange, _bury,
)  # fmt: skip


def _text(value: Any) -> str:
    """Return JSON of what may be deeper than Python's stack, and have a key twice."""
    parts: list[str] = []
    todo: list[Any] = [value]
    while todo:
        part = todo.pop()
        if isinstance(part, _Raw):
            parts.append(part)
        elif isinstance(part, Pairs):
            inner: list[Any] = [_Raw("{")]
            for index, (key, item) in enumerate(part):
                inner += [_Raw((", " if index else "") + json.dumps(key) + ": "), item]
            todo += reversed([*inner, _Raw("}")])
        elif isinstance(part, list):
            inner = [_Raw("[")]
            for index, item in enumerate(part):
                inner += [_Raw(", "), item] if index else [item]
            todo += reversed([*inner, _Raw("]")])
        else:
            parts.append(_plain(part))
    return "".join(parts)


class _Raw(str):
    """Text that stands as it is."""


def _plain(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**300:
        return "1" + "0" * 400  # Python refuses to print much longer ones
    return json.dumps(value)


# ---------------------------------------------------------------------------- arrays

Arrays = dict[str, NDArray[Any]]


def broken_calibration(content: bytes, chance: random.Random) -> bytes:
    """Return a calibration with its header or its arrays edited, mostly without its checksum."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8:end])["__metadata__"][HEADER])
    if chance.random() < 0.9:
        header.pop("checksum", None)
    arrays = load(content)
    text = json.dumps(header)
    if chance.random() < 0.5:
        text = broken_json(text, chance)
    else:
        for _ in range(chance.choice((1, 1, 2))):
            chance.choice(_ARRAY_EDITS)(arrays, chance.choice(sorted(arrays)), chance)
    contiguous: Mapping[str, Any] = {n: np.ascontiguousarray(a) for n, a in arrays.items()}
    return save(dict(contiguous), metadata={HEADER: text})


_NUMBERS = (
    0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 255.0, 256.0, 1e-9, 2.0**-24, 2.0**-32, 2.0**-56, 16.0, 17.0,
    1e6, 2.0**40, 1e30, 1e308, -1e308, float("nan"), float("inf"), -float("inf"),
)  # fmt: skip


def _some(arrays: Arrays, name: str, chance: random.Random) -> NDArray[Any]:
    """Return a flat view of a part of an array: an entry, a row, or all of it."""
    flat = arrays[name].reshape(-1)
    if not flat.size:
        return flat
    first = chance.randrange(flat.size)
    return flat[first : first + chance.choice((1, 1, 4, flat.size))]


def _fill(arrays: Arrays, name: str, chance: random.Random) -> None:
    place = _some(arrays, name, chance)
    with np.errstate(all="ignore"):  # counts are integers, which many of these numbers are not
        place[...] = np.asarray(chance.choice(_NUMBERS)).astype(place.dtype)


def _scale(arrays: Arrays, name: str, chance: random.Random) -> None:
    with np.errstate(all="ignore"):
        _some(arrays, name, chance)[...] *= chance.choice((-1.0, 2.0, 0.5, 1000.0, 1e-9, 1e300))


def _exchange_entries(arrays: Arrays, name: str, chance: random.Random) -> None:
    part = _some(arrays, name, chance)
    part[...] = part[::-1].copy()


def _turn(arrays: Arrays, name: str, chance: random.Random) -> None:
    axes = list(range(arrays[name].ndim))
    chance.shuffle(axes)
    arrays[name] = arrays[name].transpose(axes)


def _reshape(arrays: Arrays, name: str, chance: random.Random) -> None:
    array = arrays[name]
    shapes = [(-1,), (1, *array.shape), (*array.shape, 1), array.shape[::-1]]
    arrays[name] = array.reshape(chance.choice(shapes))


def _cut(arrays: Arrays, name: str, chance: random.Random) -> None:
    axis = chance.randrange(arrays[name].ndim)
    size = arrays[name].shape[axis]
    arrays[name] = np.take(arrays[name], range(chance.randint(0, size)), axis=axis)


def _double_rows(arrays: Arrays, name: str, chance: random.Random) -> None:
    axis = chance.randrange(arrays[name].ndim)
    arrays[name] = np.concatenate([arrays[name]] * 2, axis=axis)


def _retype_array(arrays: Arrays, name: str, chance: random.Random) -> None:
    kinds = (np.float32, np.float16, np.int64, np.int32, np.uint8, np.bool_)
    with np.errstate(all="ignore"):
        arrays[name] = np.nan_to_num(arrays[name]).astype(chance.choice(kinds))


def _drop(arrays: Arrays, name: str, chance: random.Random) -> None:
    del chance
    if len(arrays) > 1:
        del arrays[name]


def _add(arrays: Arrays, name: str, chance: random.Random) -> None:
    arrays[chance.choice(("x", "", "__metadata", "products.totals"))] = arrays[name].copy()


def _exchange_arrays(arrays: Arrays, name: str, chance: random.Random) -> None:
    other = chance.choice(sorted(arrays))
    arrays[name], arrays[other] = arrays[other], arrays[name]


def _flip(arrays: Arrays, name: str, chance: random.Random) -> None:
    """Flip one bit of one number."""
    whole = bytearray(np.ascontiguousarray(arrays[name]).tobytes())
    if whole:
        whole[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        arrays[name] = np.frombuffer(bytes(whole), arrays[name].dtype).reshape(arrays[name].shape)
        arrays[name] = arrays[name].copy()


_ARRAY_EDITS: tuple[Callable[[Arrays, str, random.Random], None], ...] = (
    _fill, _fill, _fill, _scale, _scale, _exchange_entries, _turn, _reshape, _cut, _double_rows,
    _retype_array, _drop, _add, _exchange_arrays, _flip, _flip,
)  # fmt: skip
