"""Planning schedules from a calibration file. Loads no model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from smoothcache_core import Calibration, Schedule, plan
from smoothcache_core.cli.commands.plan import Plan
from smoothcache_core.cli.destinations import refuse_existing, schedules_folder
from smoothcache_core.cli.modality import Modality
from smoothcache_core.cli.tables import kept_line, show_points, show_schedules
from smoothcache_core.errors import CommandError, ScheduleError
from smoothcache_core.files import check_output, write_atomically
from smoothcache_core.planning import Choice, Planner, Point, auto
from smoothcache_core.reports import save_figure, skip_map, trade_off
from smoothcache_core.schedule.cost_file import CostFile
from smoothcache_core.sources import smooth, smooth_to_compute, stored, with_prediction
from smoothcache_core.sources.interval import interval_of
from smoothcache_core.sources.smooth import PUBLISHED_LAG

FRONT_ERROR = 0.01  # relative L2 that a front is chosen by by default, as in `auto`


def plan_to_files(settings: Plan, modality: Modality) -> None:
    """Plan schedules from a calibration file, write them and show what they promise.

    Args:
        settings: Which schedules, from which file and to where.
        modality: Whose program this is, which makes no difference.

    Raises:
        CommandError: The calibration has no sensitivities, or `output` is one file for several.
        SmoothCacheError: The file cannot be read, or a schedule is impossible; nothing was written.
    """
    del modality
    calibration = Calibration.load(settings.calibration)
    if settings.at is not None:
        calibration = calibration.at(*CostFile.load(settings.at).costs)
    output = settings.output or schedules_folder(settings.calibration, calibration.evaluations)
    check_output(output, folder=output.suffix != ".json")
    if settings.plans:
        check_measured(calibration, str(settings.calibration))
    if settings.front and output.suffix == ".json":
        raise CommandError(
            f"--front writes several files, but {str(output)!r} is one; give a folder"
        )
    console = Console(soft_wrap=True, highlight=False)
    makers = _makers(calibration, settings)
    chosen = [f"auto-error{_front_error(settings):g}"] if settings.front else []
    files = _files([*makers, *chosen], output)
    refuse_existing(_written(files, settings, output), force=settings.force)
    with console.status("planning"):
        schedules = {name: make() for name, make in makers.items()}
        front = _front(calibration, settings) if settings.front else None
    if front is not None and front.chosen is not None:
        schedules[f"auto-error{front.error:g}"] = front.chosen.schedule
    older = (
        {name: schedule.exported("smoothcache-v1") for name, schedule in schedules.items()}
        if settings.v1
        else {}
    )
    for name, schedule in schedules.items():
        file = schedule.save(files[name])
        if name in older:
            write_atomically(
                file.with_suffix(".v1.json"), (json.dumps(older[name]) + "\n").encode()
            )
        if settings.maps:
            figure = skip_map(schedule, calibration.of(schedule).sites, name=name)
            save_figure(figure, file.with_suffix(".png"))
    if front is not None:
        figure = trade_off(points=front.points, chosen=front.chosen)
        save_figure(figure, output / "front.png")
        show_points(front.points, front.chosen, console)
        console.print(f"[bold]{front.why}.[/]")
    if schedules:
        show_schedules({files[name].name: plan for name, plan in schedules.items()}, console)
    console.print(kept_line({level: each.cost for level, each in calibration.levels.items()}))
    where = next(iter(files.values())) if len(files) == 1 and front is None else output
    console.print(f"Written to {where}.")


def check_measured(calibration: Calibration, name: str) -> None:
    """Refuse to plan from a calibration without sensitivities.

    Raises:
        CommandError: There are none; says why and what to do.
    """
    if calibration.dynamics is not None and calibration.dynamics.measured:
        return
    if calibration.evaluations == 1:
        raise CommandError(f"{name!r} has runs of one evaluation; there is nothing to skip")
    why = f" ({calibration.remark})" if calibration.remark else ""
    rules = ", or plan by a published rule: --alpha, --interval, or --compute with --rule smooth"
    raise CommandError(
        f"{name!r} holds no sensitivities{why}; calibrate with --sensitivity 2"
        f"{rules if calibration.sites else ''}"
    )


# ---------------------------------------------------------------------------- schedules


def plan_schedules(calibration: Calibration, settings: Plan) -> dict[str, Schedule]:
    """Return the schedules asked for, each by a name that makes a good file name.

    Raises:
        ScheduleError: One of them is impossible.
    """
    return {name: make() for name, make in _makers(calibration, settings).items()}


_Makers = dict[str, Callable[[], Schedule]]
"""What makes schedules, by their names, which are known before they are made."""


def _makers(calibration: Calibration, settings: Plan) -> _Makers:
    published = _smooth(calibration, settings) | {
        f"interval-{n}": partial(interval_of, calibration, n) for n in settings.intervals
    }

    def kept(make: Callable[[], Schedule]) -> Schedule:
        return stored(calibration, make(), settings.storage)

    return _planned(calibration, settings) | {k: partial(kept, v) for k, v in published.items()}


def _planned(calibration: Calibration, settings: Plan) -> _Makers:
    make = partial(
        plan,
        calibration,
        target=settings.target,
        limits=settings.limits,
        fill=settings.fill_rule,
        storage=settings.storage,
        toward=settings.toward,
    )
    planned: _Makers = {}
    if settings.rule == "best":
        planned |= {f"compute{c:g}": partial(make, compute=c) for c in settings.computes}
        planned |= {f"speedup{s:g}": partial(make, speedup=s) for s in settings.speedups}
    if not settings.front:
        planned |= {f"error{error:g}": partial(make, error=error) for error in settings.errors}
    how = settings.target if settings.fill is None else f"{settings.target}-{settings.fill}"
    how = how if settings.toward == "plain" else f"{how}-{settings.toward}"
    return {f"{how}-{name}": schedule for name, schedule in planned.items()}


def _smooth(calibration: Calibration, settings: Plan) -> _Makers:
    lag = settings.limits.max_lag or min(PUBLISHED_LAG, calibration.max_lag)
    by_alpha = partial(smooth, calibration, max_lag=lag, per=settings.per, strict=settings.strict)
    by_compute = partial(
        smooth_to_compute, calibration, max_lag=lag, per=settings.per, strict=settings.strict
    )
    made: _Makers = {f"alpha{a:g}": partial(by_alpha, alpha=a) for a in settings.alphas}
    if settings.rule == "smooth":
        made |= {
            f"compute{each:g}": partial(by_compute, compute=each) for each in settings.computes
        }
        made |= {
            f"speedup{x:g}": partial(by_compute, compute=_fraction(x)) for x in settings.speedups
        }
    rule = "smooth" if settings.per == "kind" else "smooth-site"
    rule += "-strict" if settings.strict else ""

    def predicted(make: Callable[[], Schedule]) -> Schedule:
        return with_prediction(calibration, make())

    return {f"{rule}-{key}": partial(predicted, make) for key, make in made.items()}


def _fraction(speedup: float) -> float:
    if not 1.0 <= speedup < float("inf"):
        raise ScheduleError(f"speedup is at least 1, got {speedup}")
    return 1.0 / speedup


def smooth_plan(calibration: Calibration, compute: float) -> Schedule:
    """Return SmoothCache's schedule for a compute fraction, with the least lag that reaches it.

    Raises:
        ScheduleError: What was calibrated does not reach it.
    """
    for lag in range(min(PUBLISHED_LAG, calibration.max_lag), calibration.max_lag):
        try:
            schedule = smooth_to_compute(calibration, compute=compute, max_lag=lag)
        except ScheduleError:
            continue
        return with_prediction(calibration, schedule)
    return with_prediction(calibration, smooth_to_compute(calibration, compute=compute))


# ---------------------------------------------------------------------------- front


@dataclass(frozen=True, kw_only=True)
class _Front:
    """Plans of all targets, and which of them is chosen, if any keeps to the error."""

    points: Sequence[Point]
    chosen: Point | None
    why: str
    error: float


def _front_error(settings: Plan) -> float:
    return settings.errors[0] if settings.errors else FRONT_ERROR


def _front(calibration: Calibration, settings: Plan) -> _Front:
    error = _front_error(settings)
    try:
        choice: Choice = auto(
            calibration,
            error=error,
            limits=settings.limits,
            fill=settings.fill_rule,
            storage=settings.storage,
            toward=settings.toward,
        )
    except ScheduleError as problem:
        points = Planner(
            calibration,
            limits=settings.limits,
            fill=settings.fill_rule,
            storage=settings.storage,
            toward=settings.toward,
        ).front()
        if settings.errors or not points:
            raise
        return _Front(points=points, chosen=None, why=str(problem), error=error)
    return _Front(points=choice.points, chosen=choice.chosen, why=choice.why, error=error)


# ---------------------------------------------------------------------------- files


def _written(files: Mapping[str, Path], settings: Plan, output: Path) -> list[Path]:
    """Return everything that is written."""
    suffixes = [
        ".json",
        *([".v1.json"] if settings.v1 else []),
        *([".png"] if settings.maps else []),
    ]
    written = [file.with_suffix(suffix) for file in files.values() for suffix in suffixes]
    return [*written, output / "front.png"] if settings.front else written


def _files(names: Sequence[str], output: Path) -> dict[str, Path]:
    if output.suffix != ".json":
        return {name: output / f"{name}.json" for name in names}
    if len(names) > 1:
        raise CommandError(
            f"{str(output)!r} is one file, but {len(names)} schedules were asked for; give a folder"
        )
    return {names[0]: output}
