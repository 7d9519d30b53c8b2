"""The section of a page that shows one report."""

from collections.abc import Mapping, Sequence

from smoothcache_core.adapters.sites import Site
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.planning.front import Point
from smoothcache_core.reports.names import schedule_files
from smoothcache_core.reports.page.media import Comparison, Media
from smoothcache_core.reports.page.points import headline_of, measured_points, planned_points
from smoothcache_core.reports.page.values import ErrorPoint, Section
from smoothcache_core.reports.report import Report
from smoothcache_core.reports.rows import ReportRow
from smoothcache_core.reports.skip_rows import skip_rows
from smoothcache_core.reports.tables import Table, report_table
from smoothcache_core.reports.text import described_row, settings
from smoothcache_core.schedule.schedule import Schedule


def section_of(
    report: Report,
    *,
    name: str = "report",
    title: str = "",
    folder: str = "",
    schedules: Mapping[str, Schedule] | None = None,
    calibration: Calibration | None = None,
    comparisons: Sequence[Comparison] = (),
    pictures: Sequence[Media] = (),
    points: Sequence[Point] = (),
    peers: Sequence[ReportRow] = (),
    explanations: str = "",
    lines: Mapping[str, str] | None = None,
    notices: Sequence[str] = (),
) -> Section:
    """Return the section of a page that shows a report.

    Args:
        report: What was measured.
        name: A word that no other section of the page has, such as `"image"`.
        title: Title of the section; the model's class if not given.
        folder: Where its files are, relative to the page; beside it if not given.
        schedules: Policies to show the rows of, by name. Their files are expected where
            `write_report` puts them, `schedules/NAME.json`.
        calibration: Knows the sites of the schedules.
        comparisons: Samples, plain beside cached.
        pictures: What else there is to see, each with its caption as `alt`.
        points: Plans to draw beside what was measured.
        peers: Other methods' rows to draw beside them.
        explanations: What the numbers say, paragraphs with `code` in backticks.
        lines: Commands that sample with a schedule, by policy.
        notices: What could not be shown, and why.
    """
    plans = schedules or {}
    files = schedule_files(plans)
    return Section(
        name=name,
        title=title or report.fingerprint.model_class or "denoiser",
        folder=folder,
        headline=headline_of(report.rows, files, lines or {}),
        comparisons=comparisons,
        points=[
            *planned_points(points),
            *measured_points(peers, {}, peers=True),
            *measured_points(report.rows, files),
        ],
        exact_points=_exact_points(report, points, files),
        tables=[report_table(report), _made(report)],
        skip_maps=[
            skip_rows(schedule, sites_of(schedule, calibration), name=policy)
            for policy, schedule in plans.items()
        ],
        pictures=pictures,
        explanations=explanations,
        settings=dict(settings(report)),
        notices=notices,
    )


def _exact_points(
    report: Report, points: Sequence[Point], files: Mapping[str, str]
) -> list[ErrorPoint]:
    """Return distances from the exact solution, those of plans if any were measured."""
    found = measured_points(report.rows, files, distance_from="exact")
    return [*planned_points(points, "exact"), *found] if found else []


def _made(report: Report) -> Table:
    """Return how the policies were made."""
    return Table(
        caption="How the policies were made",
        columns=["policy", "made by, and what it did"],
        rows=[[row.policy, described_row(row)] for row in report.rows],
        words=True,
    )


def sites_of(schedule: Schedule, calibration: Calibration | None) -> Sequence[Site]:
    """Return all sites if anything knows them, else one for every row of the schedule.

    Args:
        schedule: What is to be shown.
        calibration: What it was planned from, if that is known.
    """
    if calibration is not None:
        return calibration.of(schedule).sites
    if schedule.cost is not None:
        return [cost.site() for cost in schedule.cost.sites]
    return [Site(path=key, kind=key, block=0) for key in schedule.rows]
