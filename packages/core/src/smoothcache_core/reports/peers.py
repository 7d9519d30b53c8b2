"""Other methods' results, from records of benchmarks."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smoothcache_core.documents import read_document
from smoothcache_core.errors import EvaluationError
from smoothcache_core.reports.rows import PLAIN, ReportRow

_KEYS = ("compute", "rel_l2")


def load_peers(path: str | Path, *, evaluations: int | None = None) -> tuple[ReportRow, ...]:
    """Read the rows of other methods from a record of a benchmark, to be drawn beside a report's.

    Rows of this library's own methods, of the plain run, and without compute or error are left out.

    Args:
        path: A JSON file as in benchmarks/: an object whose `rows` have `policy`, `ours`, `compute`
            and `rel_l2`.
        evaluations: Evaluations of the plain run that the record must have been measured with.

    Returns:
        One row for each of the others, in the order of the record; times and metrics that are not
        recorded are NaN or empty.

    Raises:
        EvaluationError: The file is missing, is no such record, has no row of another method, or
            is of another number of evaluations.
    """
    try:
        record = read_document(path, "record", EvaluationError, constants=True)
        rows: list[Mapping[str, Any]] = list(record["rows"])
        found = tuple(_row(row) for row in rows if _is_peer(row))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise EvaluationError(f"{str(path)!r} is no record of a benchmark: {reason}") from error
    if not found:
        raise EvaluationError(f"{str(path)!r} has no row of another method with compute and rel_l2")
    plain = [row["evaluations"] for row in rows if row["policy"] == PLAIN and "evaluations" in row]
    if evaluations is not None and plain and evaluations not in plain:
        raise EvaluationError(
            f"{str(path)!r} is of {min(plain)} evaluations, not of {evaluations}, so its "
            "errors cannot be compared"
        )
    return found


def _is_peer(row: Mapping[str, Any]) -> bool:
    numbers = [row.get(key) for key in _KEYS]
    known = all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
    return known and row["policy"] != PLAIN and not row.get("ours", False)


def _row(row: Mapping[str, Any]) -> ReportRow:
    return ReportRow(
        policy=row["policy"],
        ours=False,
        solver=row.get("solver"),
        evaluations=row.get("evaluations"),
        compute=row["compute"],
        seconds=row.get("seconds", math.nan),
        seconds_each=(),
        speedup=row.get("speedup", math.nan),
        rel_l2=row["rel_l2"],
        rel_l2_spread=row.get("rel_l2_spread", 0.0),
    )
