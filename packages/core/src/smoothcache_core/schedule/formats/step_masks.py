"""Lists of 0 and 1 over steps, as other engines take them: which evaluations are computed.

They say nothing of how a skipped evaluation is made: each engine fills it in its own way. So what
is exported loses its coefficients, and the error of the result is not what was predicted here.

Sources: cache-dit 1.5 (`DBCacheConfig.steps_computation_mask`, and `steps_mask`, whose bins are the
lengths of the runs of computed and of cached steps in turn), SGLang (`cache_dit_params`),
stable-diffusion.cpp (`--scm-mask`). Lists that papers publish have 1 for computed, or 1 for cached.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby, zip_longest
from typing import Any

from smoothcache_core.adapters.sites import DENOISER
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule.formats.format import Format


def _mask_of(schedule: Mapping[str, Any]) -> list[int]:
    """Return which evaluations are computed.

    Raises:
        ScheduleError: It is no schedule of whole evaluations.
    """
    others = [key for key in schedule["rows"] if key != DENOISER.kind]
    if others:
        raise ScheduleError(
            f"a list over steps knows whole evaluations only, and this schedule has rows of "
            f"{others[:3]}; plan with target='denoiser'"
        )
    return list(schedule["rows"].get(DENOISER.kind, (1,) * schedule["evaluations"]))


def _fields(mask: Sequence[int], name: str) -> dict[str, Any]:
    return {
        "evaluations": len(mask),
        "rows": {DENOISER.kind: list(mask)},
        "source": {"name": "imported", "settings": {"format": name}},
    }


def _checked(mask: Any, name: str) -> list[int]:
    """Return a list of 0 and 1 as it is.

    Raises:
        ScheduleError: It is none.
    """
    if not isinstance(mask, list | tuple) or not mask:
        raise ScheduleError(f"{name}: a list of 0 and 1 is expected, got {str(mask)[:60]!r}")
    wrong = [each for each in mask if type(each) is not int or each not in (0, 1)]
    if wrong:
        raise ScheduleError(f"{name}: entries are 0 or 1, got {wrong[0]!r}")
    return list(mask)


def _never(document: Any) -> bool:
    """Whether a list is of this kind: that cannot be seen, so it is asked for by name."""
    del document
    return False


def _has(key: str) -> Callable[[Any], bool]:
    return lambda document: isinstance(document, Mapping) and key in document


# ---------------------------------------------------------------------------- plain lists


def _inverted(mask: Iterable[int]) -> list[int]:
    return [1 - each for each in mask]


COMPUTED_LIST = Format(
    name="computed-list",
    title="a list over steps, 1 where a step is computed",
    recognises=_never,
    read=lambda document: _fields(_checked(document, "computed-list"), "computed-list"),
    write=_mask_of,
    keeps_fills=False,
    kinds=(list,),
)

CACHED_LIST = Format(
    name="cached-list",
    title="a list over steps, 1 where a step is cached",
    recognises=_never,
    read=lambda document: _fields(_inverted(_checked(document, "cached-list")), "cached-list"),
    write=lambda schedule: _inverted(_mask_of(schedule)),
    keeps_fills=False,
    kinds=(list,),
)


# ---------------------------------------------------------------------------- cache-dit


def _write_cache_dit(schedule: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "steps_computation_mask": _mask_of(schedule),
        "steps_computation_policy": "static",
    }


CACHE_DIT = Format(
    name="cache-dit",
    title="cache-dit's steps_computation_mask",
    recognises=_has("steps_computation_mask"),
    read=lambda document: _fields(
        _checked(document["steps_computation_mask"], "steps_computation_mask"), "cache-dit"
    ),
    write=_write_cache_dit,
    keeps_fills=False,
)


# ---------------------------------------------------------------------------- SGLang


def _bins(mask: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return how many steps are computed, and how many cached, in turn."""
    runs = [(computed, len(list(steps))) for computed, steps in groupby(mask)]
    return [n for computed, n in runs if computed], [n for computed, n in runs if not computed]


def _write_sglang(schedule: Mapping[str, Any]) -> dict[str, Any]:
    computed, cached = _bins(_mask_of(schedule))
    return {
        "cache_dit_params": {
            "scm_compute_bins": computed,
            "scm_cache_bins": cached,
            "scm_policy": "static",
        }
    }


def _read_sglang(document: Any) -> dict[str, Any]:
    given = document["cache_dit_params"]
    names = ("scm_compute_bins", "scm_cache_bins")
    bins = [given.get(name) if isinstance(given, Mapping) else None for name in names]
    for name, values in zip(names, bins, strict=True):
        if not isinstance(values, list) or any(type(n) is not int or n < 1 for n in values):
            raise ScheduleError(f"{name}: numbers of steps, at least 1, are expected, got {values}")
    computed, cached = bins
    assert computed is not None
    assert cached is not None
    if len(computed) - len(cached) not in (0, 1):
        raise ScheduleError(
            f"computed and cached steps take turns, beginning with computed ones, but there are "
            f"{len(computed)} and {len(cached)} runs of them"
        )
    pairs = zip_longest(computed, cached, fillvalue=0)
    mask = [bit for one, other in pairs for bit in (*[1] * one, *[0] * other)]
    return _fields(_checked(mask, "scm_compute_bins"), "sglang")


SGLANG = Format(
    name="sglang",
    title="SGLang's scm_compute_bins and scm_cache_bins",
    recognises=_has("cache_dit_params"),
    read=_read_sglang,
    write=_write_sglang,
    keeps_fills=False,
)


# ---------------------------------------------------------------------------- stable-diffusion.cpp


def _read_text(document: Any) -> dict[str, Any]:
    parts = [part.strip() for part in document.split(",")]
    numbers = [int(part) if part in ("0", "1") else part for part in parts]
    return _fields(_checked(numbers, "--scm-mask"), "sd-cpp")


SD_CPP = Format(
    name="sd-cpp",
    title="stable-diffusion.cpp's --scm-mask",
    recognises=_never,
    read=_read_text,
    write=lambda schedule: ",".join(map(str, _mask_of(schedule))),
    keeps_fills=False,
    kinds=(str,),
)
