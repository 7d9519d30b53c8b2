"""Telling a user in one line what was given in place of what is needed.

Every entry point asks for its values here, before it does anything.
"""

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from smoothcache_core.errors import SmoothCacheError

_SWAPPED = "are two arguments swapped?"

_HINTS: Mapping[str, Mapping[str, str]] = {
    "Schedule": {
        "path": "load it: Schedule.load({value!r})",
        "dict": "convert it: Schedule.imported(document)",
        "Calibration": "create one: plan(calibration, compute=0.5)",
        "Fingerprint": _SWAPPED,
        "Sampler": _SWAPPED,
        "Module": _SWAPPED,
        "adapter": _SWAPPED,
    },
    "Calibration": {
        "path": "load it: Calibration.load({value!r})",
        "Schedule": "a schedule is planned already; cached(...) and fit(...) take it",
        "Sampler": "create one: calibrate(sampler, seeds=range(10))",
        "Module": "create one: calibrate(Sampler(model=..., adapter=..., run=...), seeds=...)",
    },
    "Sampler": {
        "pipeline": "create one: sampler_of(pipe, sample) of smoothcache_image or "
        "smoothcache_audio",
        "Module": "create one: Sampler(model=model, adapter=adapter, run=run)",
        "function": "create one: Sampler(model=model, adapter=adapter, run=run)",
        "Calibration": _SWAPPED,
        "Schedule": _SWAPPED,
        "adapter": "create one: Sampler(model=model, adapter=adapter, run=run)",
    },
    "Module": {
        "pipeline": "give the denoiser inside it: pipe.transformer",
        "path": "load the model first",
        "function": "make a module of it: smoothcache_core.calls.FunctionDenoiser(function)",
        "ExportedProgram": "give its module: program.module()",
        "InferenceSession": (
            "write a function that runs it, and make a module of that: "
            "smoothcache_core.calls.FunctionDenoiser(function)"
        ),
        "adapter": _SWAPPED,
        "Schedule": _SWAPPED,
    },
    "adapter": {
        "path": "find one by find_adapter(model, ADAPTERS), or make a PatternAdapter",
        "Schedule": _SWAPPED,
        "Module": _SWAPPED,
    },
}
"""What to do, by what is needed and what was given instead."""

_NAMES: Mapping[str, str] = {
    "Module": "the denoiser, a torch.nn.Module",
    "adapter": "an adapter, such as a PatternAdapter",
    "Schedule": "a Schedule",
    "Calibration": "a Calibration",
    "Sampler": "a Sampler",
    "LatentPart": "a LatentPart, such as LatentPart(dim=1, start=0, stop=4)",
    "Storage": "a Storage, such as Storage(place='cpu', dtype='bfloat16')",
}


def check_kind(value: object, kind: type, *, name: str, error: type[SmoothCacheError]) -> None:
    """Refuse a value of another kind, and say what to do.

    Args:
        value: What was given.
        kind: What it must be an instance of.
        name: Name of the argument.
        error: Class of the error to raise.

    Raises:
        SmoothCacheError: It is something else; of the class `error`.
    """
    if not isinstance(value, kind):
        raise error(wrong_kind(value, kind.__name__, name=name))


def wrong_kind(value: object, needed: str, *, name: str) -> str:
    """Return what to say of a value of the wrong kind.

    Args:
        value: What was given.
        needed: What is needed: the name of a class of this library, `"Module"` or `"adapter"`.
        name: Name of the argument.
    """
    return f"`{name}` must be {_NAMES[needed]}, not {described(value)}{_hint(value, needed)}"


def described(value: object) -> str:
    """Return what a value is, in a few words.

    Args:
        value: What was given where something else was expected.
    """
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    if isinstance(value, str | PurePath):
        return f"the text {str(value)!r}"
    if value is None:
        return "None"
    article = "an" if type(value).__name__[:1].lower() in "aeiou" else "a"
    return f"{article} {type(value).__name__}"


def check_names(names: Iterable[str], *, name: str, error: type[SmoothCacheError]) -> None:
    """Refuse one text where several names are meant: its letters would be taken for names.

    Args:
        names: What was given.
        name: Name of the argument.
        error: Class of the error to raise.

    Raises:
        SmoothCacheError: It is a text; of the class `error`.
    """
    if isinstance(names, str):
        raise error(f"`{name}` must be several names, such as ({names!r},), not the text {names!r}")


def listed_seeds(seeds: Any, error: type[SmoothCacheError]) -> list[Any]:
    """Return seeds as a list.

    Args:
        seeds: Seeds of several runs, numpy's integers included.
        error: Class of the error to raise.

    Raises:
        SmoothCacheError: They are not several; of the class `error`.
    """
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise error(
            f"`seeds` must be several seeds, such as range(10), not {described(seeds)}: {seeds!r}"
        )
    return list(seeds)


def _hint(value: object, needed: str) -> str:
    if isinstance(value, type):
        return ": make an instance of it"
    known = _HINTS.get(needed, {})
    hint = next((known[kind] for kind in _kinds(value) if kind in known), "")
    return f"; {hint.format(value=str(value))}" if hint else ""


def _kinds(value: object) -> list[str]:
    """Return what a value may be called, the most telling first."""
    if isinstance(value, str | PurePath):
        return ["path"]
    names = [base.__name__ for base in type(value).__mro__]
    parts = getattr(value, "components", None)
    if isinstance(parts, Mapping) or "DiffusionPipeline" in names:
        names.append("pipeline")
    if "PatternAdapter" in names or hasattr(value, "sites"):
        names.append("adapter")
    return names
