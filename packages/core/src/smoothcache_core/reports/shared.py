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

    Example:
        >>> report = evaluate(sampler, {"half": schedule}, seeds=[100, 101], progress=False)
        >>> measured_of(report)["half"].samples
        4

    Args:
        report: What was measured.
    """
    return {
        row.policy: Measured(
            error=row.rel_l2,
            low=row.rel_l2_low,
            high=row.rel_l2_high,
            samples=report.num_samples,
            speedup=row.speedup,
            device=report.device,
        )
        for row in report.rows
        if row.source is not None
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
    measured = measured_of(Report.load(place / "report.json"))
    files = {policy: place / file for policy, file in schedule_files(measured).items()}
    known = {policy: file for policy, file in files.items() if file.exists()}
    if not known:
        raise EvaluationError(f"the report in {str(folder)!r} has no schedules beside it")
    pictures = [each for each in sorted(place.glob("*.png")) if not each.name.startswith(_MAPS)]
    return Front(
        schedules={file.stem: Schedule.load(file) for file in known.values()},
        base_model=base_model,
        package=package,
        measured={file.stem: measured[policy] for policy, file in known.items()},
        pictures={each.name: each.read_bytes() for each in pictures},
    )
