"""Writing a report as a folder: a page, JSON, Markdown, schedules and pictures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.errors import EvaluationError
from smoothcache_core.files import check_output, write_atomically
from smoothcache_core.planning.front import Point
from smoothcache_core.reports.error_curves import error_curves
from smoothcache_core.reports.names import file_stems, schedule_files
from smoothcache_core.reports.page.building import section_of, sites_of
from smoothcache_core.reports.page.media import KINDS, Comparison, Media
from smoothcache_core.reports.page.values import Page, Section
from smoothcache_core.reports.page.writing import PAGE, write_page
from smoothcache_core.reports.report import Report
from smoothcache_core.reports.rows import ReportRow
from smoothcache_core.reports.skip_map import skip_map
from smoothcache_core.reports.style import png
from smoothcache_core.reports.text import counted, to_markdown
from smoothcache_core.reports.trade_off import predicted_and_measured, trade_off, with_distance
from smoothcache_core.schedule.schedule import Schedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NUMBERS, _TEXT = "report.json", "report.md"

_CURVES = "error-curves.png"
_EXACT = "Compute and distance to the exact solution"

# ---------------------------------------------------------------------------- pictures


def _drawn(
    report: Report,
    overview: "Callable[..., Figure]",
    schedules: Mapping[str, Schedule],
    calibration: Calibration | None,
) -> "list[tuple[str, Figure, str]]":
    """Return name, figure and caption of every figure of a report."""
    drawn = []
    if any(row.compute is not None for row in report.rows):
        drawn.append(("compute-and-error.png", overview(report.rows), "Compute and error"))
    if with_distance(report.rows, "exact"):
        figure = overview(report.rows, distance_from="exact")
        drawn.append(("compute-and-exact-error.png", figure, _EXACT))
    if any(row.prediction is not None for row in report.rows):
        figure = predicted_and_measured(report.rows)
        drawn.append(("predicted-and-measured.png", figure, "Predicted and measured errors"))
    if calibration is not None and calibration.sites and calibration.max_lag:
        drawn.append((_CURVES, error_curves(calibration), "Calibrated errors"))
    stems = file_stems(schedules)
    for policy, schedule in schedules.items():
        figure = skip_map(schedule, sites_of(schedule, calibration), name=policy)
        drawn.append((f"skip-map-{stems[policy]}.png", figure, f"Computed and reused: {policy}"))
    return drawn


def _check_names(pictures: Iterable[str], taken: Sequence[str]) -> None:
    for name in pictures:
        if not name or Path(name).name != name or name in taken:
            raise EvaluationError(
                f"a picture needs a file name of its own, such as 'samples.png', got {name!r}"
            )


# ---------------------------------------------------------------------------- the folder


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
    title: str = "",
    comparisons: Sequence[Comparison] = (),
    lines: Mapping[str, str] | None = None,
) -> tuple[Path, ...]:
    """Write `report.json`, schedules, pictures, `report.md` and `index.html`, which shows it all.

    Each file is written in one step. The page and the Markdown say the same.

    Example:
        >>> report = evaluate(sampler, {"half": schedule}, seeds=[100, 101], progress=False)
        >>> files = write_report(report, "evaluation", schedules={"half": schedule})
        >>> files[0].name, files[-2].name, files[-1].name
        ('report.json', 'report.md', 'index.html')

    Args:
        report: What was measured.
        folder: Where to; made if it is not there.
        schedules: Policies to draw a map of computed and reused outputs of, by name; they are also
            written, as `schedules/NAME.json`.
        calibration: Errors to draw, if it has sites, which are those of the maps too.
        pictures: Further files by name, for example `"samples.png"`: a figure, or the bytes of a
            file.
        notes: Markdown to end `report.md` with.
        points: Plans to draw beside what was measured, see `Planner.front`.
        chosen: One of `points`, to be marked in the picture.
        peers: Other methods' rows to draw beside them, see `load_peers`.
        title: Title of the page; the class of the model if not given.
        comparisons: Samples for the page, plain beside cached.
        lines: Commands that sample with a schedule, by policy, for the page.

    Returns:
        The files written, `index.html` last, the one to open; without those of `comparisons`.

    Raises:
        EvaluationError: The name of a picture is not a plain file name, or is taken.
        OutputError: The folder or a file cannot be written.
    """
    check_output(folder, folder=True)
    plans = schedules or {}
    overview = partial(trade_off, points=points, chosen=chosen, peers=peers)
    drawn = _drawn(report, overview, plans, calibration)
    files = {name: content for name, content, _ in drawn}
    _check_names(pictures or {}, taken=(*files, _NUMBERS, _TEXT, PAGE))
    shown = {caption: name for name, _, caption in drawn}
    shown |= {Path(name).stem: name for name in pictures or {}}
    target = Path(folder)
    written = [report.save(target / _NUMBERS)]
    written += [plans[name].save(target / file) for name, file in schedule_files(plans).items()]
    for name, content in {**files, **(pictures or {})}.items():
        data = content if isinstance(content, bytes) else png(content)
        written.append(write_atomically(target / name, data))
    text = to_markdown(report, pictures=shown) + notes
    written.append(write_atomically(target / _TEXT, text.encode()))
    section = section_of(
        report,
        title=title,
        schedules=plans,
        calibration=calibration,
        comparisons=comparisons,
        pictures=_further(shown, pictures or {}),
        points=points,
        peers=peers,
        explanations=notes,
        lines=lines,
    )
    return (*written, write_page(_page(section, report), target))


def _further(shown: Mapping[str, str], extra: "Mapping[str, Figure | bytes]") -> list[Media]:
    """Return the pictures that a page shows as they are: those that it does not draw itself."""
    return [
        Media(file=name, alt=caption)
        for caption, name in shown.items()
        if name == _CURVES or (name in extra and Path(name).suffix.lower() in KINDS)
    ]


def _page(section: Section, report: Report) -> Page:
    files = {_NUMBERS: "all numbers, for programs", _TEXT: "this report as Markdown"}
    return Page(title=section.title, summary=[_summary(report)], sections=[section], files=files)


def _summary(report: Report) -> str:
    """Say what was compared, on what."""
    samples = counted(report.num_samples, "sample")
    schedules = counted(len(report.rows) - 1, "schedule")
    return (
        f"{samples} of {report.fingerprint.model_class or 'a denoiser'}, plain and by {schedules} "
        f"from the same noise, on {report.device}."
    )
