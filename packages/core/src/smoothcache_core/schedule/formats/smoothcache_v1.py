"""SmoothCache's flat JSON: `{"attn": [1, 0, ...], "attn-3": [...]}`, kinds to rows of 0 and 1.

It holds no number of evaluations, no model and no fills; all rows have the same length.
Source: the repository of SmoothCache (arXiv 2411.10510), folder `smoothcache_schedules`.
"""

from collections.abc import Mapping
from typing import Any

from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule.formats.format import Format


def _recognises(document: Any) -> bool:
    return isinstance(document, Mapping) and "format" not in document


def _read(document: Any) -> dict[str, Any]:
    wrong = [key for key, row in document.items() if not isinstance(row, list | tuple)]
    if wrong:
        raise ScheduleError(f"v1 schedule: {wrong[0]!r} is not a list of 0 and 1")
    if not document:
        raise ScheduleError("v1 schedule: it has no rows")
    lengths = {key: len(row) for key, row in document.items()}
    if len(set(lengths.values())) > 1:
        raise ScheduleError(f"v1 schedule: rows differ in length: {lengths}")
    evaluations = next(iter(lengths.values()))
    return {"evaluations": evaluations, "rows": document, "source": {"name": "v1"}}


def _write(schedule: Mapping[str, Any]) -> dict[str, list[int]]:
    paths = [key for key in schedule["rows"] if "." in key]
    if schedule["fills"] or schedule.get("channels"):
        raise ScheduleError("v1 knows reuse only, and this schedule has calibrated fills")
    if paths:
        raise ScheduleError(
            f"v1 knows kinds and blocks ('attn', 'attn-3'), not module paths like {paths[0]!r}"
        )
    return {key: list(row) for key, row in schedule["rows"].items()}


SMOOTHCACHE_V1 = Format(
    name="smoothcache-v1",
    title="SmoothCache's flat JSON",
    recognises=_recognises,
    read=_read,
    write=_write,
)
