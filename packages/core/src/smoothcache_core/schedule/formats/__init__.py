"""Other file formats of schedules: one file for each family, one name here for each."""

from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule.formats.format import Format
from smoothcache_core.schedule.formats.smoothcache_v1 import SMOOTHCACHE_V1
from smoothcache_core.schedule.formats.step_masks import (
    CACHE_DIT,
    CACHED_LIST,
    COMPUTED_LIST,
    SD_CPP,
    SGLANG,
)

FORMATS: tuple[Format, ...] = (
    CACHE_DIT,
    SGLANG,
    SD_CPP,
    COMPUTED_LIST,
    CACHED_LIST,
    SMOOTHCACHE_V1,  # whatever is a mapping, so it comes last
)
"""All of them; a document is read by the first that recognises it, or by name."""


def format_named(name: str) -> Format:
    """Return a format by its name.

    Args:
        name: Such as `"sglang"`.

    Raises:
        ScheduleError: There is no such format.
    """
    known = {other.name: other for other in FORMATS}
    if name not in known:
        raise ScheduleError(f"there is no format {name!r}, but {sorted(known)}")
    return known[name]


__all__ = ["FORMATS", "SMOOTHCACHE_V1", "Format", "format_named"]
