"""Writing a report as a folder: JSON, Markdown and pictures."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from smoothcache_core.adapters.sites import Site
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.errors import EvaluationError
from smoothcache_core.files import check_output, write_atomically
from smoothcache_core.planning.front import Point
from smoothcache_core.reports.error_curves import error_curves
from smoothcache_core.reports.report import Report
from smoothcache_core.reports.rows import ReportRow
from smoothcache_core.reports.skip_map import skip_map
from smoothcache_core.reports.style import png
from smoothcache_core.reports.text import to_markdown
from smoothcache_core.reports.trade_off import predicted_and_measured, trade_off
from smoothcache_core.schedule.schedule import Schedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# ---------------------------------------------------------------------------- pictures


def _drawn(
    report: Report,
    overview: "Callable[[Sequence[ReportRow]], Figure]",
    schedules: Mapping[str, Schedule],
    calibration: Calibration | None,
) -> "list[tuple[str, Figure, str]]":
    """Return name, figure and caption of every figure of a report."""
    drawn = []
    if any(row.compute is not None for row in report.rows):
        drawn.append(("compute-and-error.png", overview(report.rows), "Compute and error"))
    if any(row.prediction is not None for row in report.rows):
        figure = predicted_and_measured(report.rows)
        drawn.append(("predicted-and-measured.png", figure, "Predicted and measured errors"))
    if calibration is not None and calibration.sites and calibration.max_lag:
        drawn.append(("error-curves.png", error_curves(calibration), "Calibrated errors"))
    names = _file_names(schedules)
    for policy, schedule in schedules.items():
        figure = skip_map(schedule, _sites(schedule, calibration), name=policy)
        drawn.append((names[policy], figure, f"Computed and reused: {policy}"))
    return drawn


def _sites(schedule: Schedule, calibration: Calibration | None) -> Sequence[Site]:
    """Return all sites if anything knows them, else one for every row of the schedule."""
    if calibration is not None:
        return calibration.of(schedule).sites
    if schedule.cost is not None:
        return [cost.site() for cost in schedule.cost.sites]
    return [Site(path=key, kind=key, block=0) for key in schedule.rows]


def _file_names(policies: Iterable[str]) -> dict[str, str]:
    """Return a file name for the map of every policy, all different on any file system."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for policy in policies:
        stem = name = "skip-map-" + re.sub(r"[^a-z0-9.]+", "-", policy.lower()).strip("-.")
        number = 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name)
        names[policy] = f"{name}.png"
    return names


def _check_names(pictures: Iterable[str], taken: Sequence[str]) -> None:
    for name in pictures:
        if not name or Path(name).name != name or name in taken:
            raise EvaluationError(
                f"a picture needs a file name of its own, such as 'samples.png', got {name!r}"
            )


def write_report(
    report: Report,
    folder: str | Path,
    *,
    schedules: Mapping[str, Schedule] | None = None,
    calibration: Calibration | None = None,
    pictures: "Mapping[str, Figure | bytes] | None" = None,
    notes: str = "",
    points: Sequence[Point] = (),
    chosen: Point | None = None,
    peers: "Sequence[ReportRow]" = (),
) -> tuple[Path, ...]:
    """Write `report.json`, pictures, and `report.md`, which shows them, each in one step.

    Example:
        >>> report = evaluate(sampler, {"half": schedule}, seeds=[100, 101], progress=False)
        >>> files = write_report(report, "evaluation", schedules={"half": schedule})
        >>> files[0].name, files[-1].name
        ('report.json', 'report.md')

    Args:
        report: What was measured.
        folder: Where to; made if it is not there.
        schedules: Policies to draw a map of computed and reused outputs of, by name.
        calibration: Errors to draw, if it has sites, which are those of the maps too.
        pictures: Further files by name, for example `"samples.png"`: a figure, or the bytes of a
            file.
        notes: Markdown to end `report.md` with.
        points: Plans to draw beside what was measured, see `Planner.front`.
        chosen: One of `points`, to be marked.
        peers: Other methods' rows to draw beside them, see `load_peers`.

    Returns:
        The files written, `report.md` last.

    Raises:
        EvaluationError: The name of a picture is not a plain file name, or is taken.
        OutputError: The folder or a file cannot be written.
    """
    check_output(folder, folder=True)
    overview = partial(trade_off, points=points, chosen=chosen, peers=peers)
    drawn = _drawn(report, overview, schedules or {}, calibration)
    files = {name: content for name, content, _ in drawn}
    _check_names(pictures or {}, taken=(*files, "report.json", "report.md"))
    shown = {caption: name for name, _, caption in drawn}
    shown |= {Path(name).stem: name for name in pictures or {}}
    target = Path(folder)
    written = [report.save(target / "report.json")]
    for name, content in {**files, **(pictures or {})}.items():
        data = content if isinstance(content, bytes) else png(content)
        written.append(write_atomically(target / name, data))
    text = to_markdown(report, pictures=shown) + notes
    return (*written, write_atomically(target / "report.md", text.encode()))
