"""Schedules as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from smoothcache_core import Schedule
from smoothcache_core.adapters.levels import Level
from smoothcache_core.planning import Point
from smoothcache_core.reports.tables import shown_bytes
from smoothcache_core.schedule import Cost, Prediction
from smoothcache_core.schedule.fill import MOST_TERMS
from smoothcache_core.schedule.provenance import Distances
from smoothcache_core.sources import SOURCES, SourceKind

_ABOUT = (
    "compute: MACs relative to the plain model. speed-up, seconds (one run of a calibration "
    "batch): estimated\nfrom MACs only. error: relative L2 of the final latents against the plain "
    "run. cached: peak cache memory."
)


def show_schedules(schedules: Mapping[str, Schedule], console: Console) -> None:
    """Show what schedules promise, by the names of their files."""
    table = _table("file")
    for name, schedule in schedules.items():
        table.add_row(name, target_of(schedule), *_promises(schedule))
    print_table(table, console)
    console.print(_about(schedules.values()))
    for name, schedule in schedules.items():
        if schedule.prediction is not None and schedule.prediction.exact is not None:
            console.print(f"{name}: {_distances(schedule.prediction.exact)}")


def _distances(known: Distances) -> str:
    """Say how far samples are from the plain run and from the exact solution."""
    return (
        f"toward the {known.toward} {'run' if known.toward == 'plain' else 'solution'}; "
        f"{known.to_plain:.2g} from the plain run, {known.to_exact:.2g} from the exact solution, "
        f"from which the plain run is {known.plain_to_exact:.2g}."
    )


def _about(schedules: Iterable[Schedule]) -> str:
    """Explain the columns; where MACs could not be counted, evaluations are."""
    costs = [schedule.cost for schedule in schedules if schedule.cost is not None]
    if any(not cost.counted for cost in costs):
        return f"{_ABOUT}\nMACs of this denoiser cannot be counted: evaluations are instead."
    return _ABOUT


def show_points(points: Sequence[Point], chosen: Point | None, console: Console) -> None:
    """Show the plans of a front."""
    table = _table("")
    for point in points:
        mark = "chosen" if point is chosen else "best" if point.best else ""
        table.add_row(mark, point.name, *_promises(point.schedule))
    print_table(table, console)
    console.print("best: no other plan has both less compute and less error.")
    console.print(_about(point.schedule for point in points))


def print_table(table: Table, console: Console) -> None:
    """Print a table as wide as it is: one that is cut off says nothing in a log file."""
    unbounded = console.options.update(max_width=10_000)
    width = Measurement.get(console, unbounded, table).maximum
    wide = Console(
        file=console.file, width=max(width, console.width), quiet=console.quiet, highlight=False
    )
    wide.print(table)


def source_of(schedule: Schedule) -> SourceKind | None:
    """Return the source that made a schedule, None if it is none of this library's."""
    return next((kind for kind in SOURCES if kind.made(schedule)), None)


def target_of(schedule: Schedule) -> str:
    """Return the name of the source that made a schedule, as far as that is known."""
    kind = source_of(schedule)
    return schedule.source.name if kind is None else kind.name


def shown_error(prediction: Prediction) -> str:
    """Return a predicted error with its interval, and whether it was measured."""
    text = f"{prediction.error:.2g}"
    if prediction.low is not None and prediction.high is not None:
        text += f" ({prediction.low:.2g}-{prediction.high:.2g})"
    return f"{text} measured" if prediction.measured else text


def kept_line(costs: Mapping[Level, Cost]) -> str:
    """Return what one kept copy of every target's outputs takes, as a sentence.

    Args:
        costs: What one evaluation costs, by the level of the sites.
    """
    whole = next(iter(costs.values()))
    parts = [f"a whole evaluation {shown_bytes(whole.kept_bytes('denoiser'))}"]
    for level, cost in costs.items():
        names = dict.fromkeys(site.kind for site in cost.sites)
        kinds = [f"{kind} {shown_bytes(cost.kept_bytes(kind))}" for kind in names]
        inside = f" ({', '.join(kinds)})" if len(kinds) > 1 else ""
        if kinds:
            parts.append(f"all {level} {shown_bytes(cost.kept_bytes())}{inside}")
    return f"One kept copy takes: {'; '.join(parts)}. Fills combine up to {MOST_TERMS}."


def _table(first: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column(first, no_wrap=True)
    table.add_column("target", no_wrap=True)
    for column in ("compute", "speed-up", "error", "cached", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _promises(schedule: Schedule) -> list[str]:
    """Return compute, speed-up, error, bytes and seconds, `-` for what is not known."""
    promise, known = schedule.prediction, schedule.has_compute
    seconds = None if promise is None else promise.seconds
    return [
        f"{schedule.compute_fraction():.3f}" if known else "-",
        f"{schedule.predicted_speedup():.2f}x" if known else "-",
        "-" if promise is None else shown_error(promise),
        shown_bytes(schedule.predicted_bytes()) if schedule.cost is not None else "-",
        "-" if seconds is None else f"{seconds:.3g}",
    ]
