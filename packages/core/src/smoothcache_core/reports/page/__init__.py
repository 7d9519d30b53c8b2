"""A report as one HTML page: what it shows, as values, and how it is written."""

from smoothcache_core.reports.page.building import section_of
from smoothcache_core.reports.page.media import Comparison, Media, Variant
from smoothcache_core.reports.page.values import (
    Alternative,
    ErrorPoint,
    Headline,
    Page,
    Section,
)
from smoothcache_core.reports.page.writing import PAGE, write_page
from smoothcache_core.reports.skip_rows import SkipMap, SkipRow
from smoothcache_core.reports.tables import Table

__all__ = [
    "PAGE",
    "Alternative",
    "Comparison",
    "ErrorPoint",
    "Headline",
    "Media",
    "Page",
    "Section",
    "SkipMap",
    "SkipRow",
    "Table",
    "Variant",
    "section_of",
    "write_page",
]
