"""A report's folder as schedules to share, with what was measured of them."""

from collections.abc import Mapping
from pathlib import Path

from smoothcache_core.errors import EvaluationError
from smoothcache_core.reports.names import schedule_files
from smoothcache_core.reports.report import Report
from smoothcache_core.schedule.front import Front
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.schedule.sharing.index import Measured

_MAPS = "skip-map-"  # one for each policy: a card shows what the samples are like


def measured_of(report: Report) -> Mapping[str, Measured]:
    """Return what a report measured of its schedules, by policy.

    Errors are distances from what each aims at; those whose distance to the exact solution was to
    be measured, and was not, are left out.

    Example:
        >>> report = evaluate(sampler, {"half": schedule}, seeds=[100, 101], progress=False)
        >>> measured_of(report)["half"].samples
        4

    Args:
        report: What was measured.
    """
    return {
        row.policy: Measured(
            error=row.error,
            low=row.interval(row.toward)[0],
            high=row.interval(row.toward)[1],
            samples=report.num_samples,
            speedup=row.speedup,
            device=report.device,
        )
        for row in report.rows
        if row.source is not None and row.error is not None
    }


def front_of_report(
    folder: str | Path, *, base_model: str | None = None, package: str | None = None
) -> Front:
    """Return the schedules of a report's folder, with what was measured of them and its pictures.

    Args:
        folder: A folder that `write_report` wrote.
        base_model: Name of the model that they are for, as on the model hub.
        package: The package whose lines the card shows, such as `"smoothcache-image"`.

    Raises:
        EvaluationError: It holds no report, or none of its schedules.
        ScheduleError: A schedule cannot be read.
    """
    place = Path(folder)
    report = Report.load(place / "report.json")
    measured = measured_of(report)
    policies = [row.policy for row in report.rows if row.source is not None]
    files = {policy: place / file for policy, file in schedule_files(policies).items()}
    known = {policy: file for policy, file in files.items() if file.exists()}
    if not known:
        raise EvaluationError(f"the report in {str(folder)!r} has no schedules beside it")
    pictures = [each for each in sorted(place.glob("*.png")) if not each.name.startswith(_MAPS)]
    return Front(
        schedules={file.stem: Schedule.load(file) for file in known.values()},
        base_model=base_model,
        package=package,
        measured={f.stem: measured[policy] for policy, f in known.items() if policy in measured},
        pictures={each.name: each.read_bytes() for each in pictures},
    )
