"""Planning schedules from a calibration file. Loads no model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from smoothcache_core import Calibration, Schedule, plan
from smoothcache_core.cli.commands.plan import Plan
from smoothcache_core.cli.modality import Modality
from smoothcache_core.cli.tables import show_points, show_schedules
from smoothcache_core.errors import CommandError, ScheduleError
from smoothcache_core.planning import Choice, Planner, Point, auto
from smoothcache_core.reports import save_figure, skip_map, trade_off
from smoothcache_core.sources import smooth, smooth_to_compute, with_prediction
from smoothcache_core.sources.interval import interval_of
from smoothcache_core.sources.smooth import PUBLISHED_LAG

FRONT_ERROR = 0.01  # relative L2 that a front is chosen by unless told otherwise, as in `auto`


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
    calibration, output = Calibration.load(settings.calibration), settings.output
    if settings.plans:
        check_measured(calibration, str(settings.calibration))
    if settings.front and output.suffix == ".json":
        raise CommandError(
            f"--front writes several files, but {str(output)!r} is one; give a folder"
        )
    console = Console(soft_wrap=True, highlight=False)
    with console.status("planning"):
        schedules = plan_schedules(calibration, settings)
        front = _front(calibration, settings) if settings.front else None
    if front is not None and front.chosen is not None:
        schedules[f"auto-error{front.error:g}"] = front.chosen.schedule
    files = _files(list(schedules), output)
    older = (
        {name: schedule.exported("smoothcache-v1") for name, schedule in schedules.items()}
        if settings.v1
        else {}
    )
    for name, schedule in schedules.items():
        file = schedule.save(files[name])
        if name in older:
            file.with_suffix(".v1.json").write_text(json.dumps(older[name]) + "\n")
        if settings.maps:
            figure = skip_map(schedule, calibration.sites, name=name)
            save_figure(figure, file.with_suffix(".png"))
    if front is not None:
        figure = trade_off(points=front.points, chosen=front.chosen)
        save_figure(figure, output / "front.png")
        show_points(front.points, front.chosen, console)
        console.print(f"[bold]{front.why}.[/]")
    if schedules:
        show_schedules({files[name].name: plan for name, plan in schedules.items()}, console)
    folder = output if front is not None else next(iter(files.values())).parent
    console.print(f"Written to {folder}.")


def check_measured(calibration: Calibration, name: str) -> None:
    """Refuse to plan from a calibration without sensitivities.

    Raises:
        CommandError: There are none; says why and what to do.
    """
    if calibration.dynamics is not None and calibration.dynamics.measured:
        return
    why = f" ({calibration.remark})" if calibration.remark else ""
    raise CommandError(
        f"{name!r} holds no sensitivities{why}; calibrate with --sensitivity 2, or plan by a "
        "published rule: --alpha, --interval, or --compute with --rule smooth"
    )


# ---------------------------------------------------------------------------- schedules


def plan_schedules(calibration: Calibration, settings: Plan) -> dict[str, Schedule]:
    """Return the schedules asked for, each by a name that makes a good file name.

    Raises:
        ScheduleError: One of them is impossible.
    """
    return (
        _planned(calibration, settings)
        | _smooth(calibration, settings)
        | {f"interval-{n}": interval_of(calibration, n) for n in settings.intervals}
    )


def _planned(calibration: Calibration, settings: Plan) -> dict[str, Schedule]:
    make = partial(
        plan, calibration, target=settings.target, limits=settings.limits, fill=settings.fill_rule
    )
    planned: dict[str, Schedule] = {}
    if settings.rule == "best":
        planned |= {f"compute{compute:g}": make(compute=compute) for compute in settings.computes}
        planned |= {f"speedup{speedup:g}": make(speedup=speedup) for speedup in settings.speedups}
    if not settings.front:
        planned |= {f"error{error:g}": make(error=error) for error in settings.errors}
    how = settings.target if settings.fill is None else f"{settings.target}-{settings.fill}"
    return {f"{how}-{name}": schedule for name, schedule in planned.items()}


def _smooth(calibration: Calibration, settings: Plan) -> dict[str, Schedule]:
    lag = settings.limits.max_lag or min(PUBLISHED_LAG, calibration.max_lag)
    by_alpha = partial(smooth, calibration, max_lag=lag, per=settings.per, strict=settings.strict)
    by_compute = partial(
        smooth_to_compute, calibration, max_lag=lag, per=settings.per, strict=settings.strict
    )
    made = {f"alpha{alpha:g}": by_alpha(alpha=alpha) for alpha in settings.alphas}
    if settings.rule == "smooth":
        made |= {f"compute{each:g}": by_compute(compute=each) for each in settings.computes}
        made |= {f"speedup{x:g}": by_compute(compute=_fraction(x)) for x in settings.speedups}
    rule = "smooth" if settings.per == "kind" else "smooth-site"
    rule += "-strict" if settings.strict else ""
    return {f"{rule}-{key}": with_prediction(calibration, one) for key, one in made.items()}


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


def _front(calibration: Calibration, settings: Plan) -> _Front:
    error = settings.errors[0] if settings.errors else FRONT_ERROR
    try:
        choice: Choice = auto(
            calibration, error=error, limits=settings.limits, fill=settings.fill_rule
        )
    except ScheduleError as problem:
        points = Planner(calibration, limits=settings.limits, fill=settings.fill_rule).front()
        if settings.errors or not points:
            raise
        return _Front(points=points, chosen=None, why=str(problem), error=error)
    return _Front(points=choice.points, chosen=choice.chosen, why=choice.why, error=error)


# ---------------------------------------------------------------------------- files


def _files(names: Sequence[str], output: Path) -> dict[str, Path]:
    if output.suffix != ".json":
        return {name: output / f"{name}.json" for name in names}
    if len(names) > 1:
        raise CommandError(f"{str(output)!r} is one file for {len(names)} schedules; give a folder")
    return {names[0]: output}
