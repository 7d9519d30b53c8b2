"""Other file formats of schedules: one file for each, one line here."""

from smoothcache_core.schedule.formats.format import Format
from smoothcache_core.schedule.formats.smoothcache_v1 import SMOOTHCACHE_V1

FORMATS: tuple[Format, ...] = (SMOOTHCACHE_V1,)
"""All of them; a document is read by the first that recognises it."""

__all__ = ["FORMATS", "SMOOTHCACHE_V1", "Format"]
