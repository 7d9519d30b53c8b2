"""Evaluation: every policy beside the plain run, on the same seeds."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from smoothcache_core.arguments import check_kind, described
from smoothcache_core.errors import EvaluationError
from smoothcache_core.evaluation.exact import exact_finals
from smoothcache_core.evaluation.runs import device_of, judge_of, ran, run_of
from smoothcache_core.evaluation.tally import Metric, Policy, Run, Summary
from smoothcache_core.reports.report import Report
from smoothcache_core.reports.rows import EXACT_REL_L2, PLAIN
from smoothcache_core.runtime.cached import attach
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.sampling.seeding import checked_seeds
from smoothcache_core.schedule.cost import Cost
from smoothcache_core.schedule.schedule import Schedule


def evaluate(
    sampler: Sampler,
    schedules: Mapping[str, Schedule],
    *,
    seeds: Sequence[int],
    metrics: Mapping[str, Metric] | None = None,
    summaries: Mapping[str, Summary] | None = None,
    ours: Collection[str] = (),
    cost: Cost | None = None,
    warmup: int = 1,
    progress: bool = True,
    keep_samples: int | bool = False,
    calibration_samples: int | None = None,
    exact: bool | None = None,
) -> Report:
    """Compare schedules with the plain run: time, compute, and what becomes of the samples.

    Every seed is sampled once by every policy, one after the other, in an order that rotates from
    seed to seed, so that what disturbs the machine disturbs all alike. The plain sample of a seed
    is the reference of that seed. Putting a cache on, decoding and measuring are not timed.

    Example:
        >>> report = evaluate(sampler, {"half": schedule}, seeds=range(100, 104), progress=False)
        >>> [row.policy for row in report.rows]
        ['plain', 'half']
        >>> report.row("half").rel_l2 < 1.0
        True

    Args:
        sampler: How a run is made. Its model may be compiled, but not inside a run. It must return
            the final latent.
        schedules: What to compare, by name, in the order of the rows; `"plain"` is taken.
        seeds: Runs to make, distinct, and none of them a seed the schedules were calibrated with.
        metrics: Functions of the reference and a policy's samples, (samples, ...) each and decoded
            if the sampler decodes, that return one value per sample, (samples,). Relative L2 is
            that of the final latents, and measured in any case, as `"rel_l2"`.
        summaries: Functions of all samples of a policy, decoded if the sampler decodes, on the CPU
            and in the order of the seeds.
        ours: Names of the policies that are this library's own methods, not published ones.
        cost: MACs per site to count compute with; those of each schedule if not given.
        warmup: Untimed runs of every policy, on the first seed, before the timed ones; at least 0.
        progress: Show a progress bar.
        keep_samples: Number of samples of each policy to store in `Report.samples`, decoded if the
            sampler decodes; True for all, False for none.
        calibration_samples: Number of samples that the schedules were calibrated with, which the
            report records.
        exact: Whether to measure also how far all samples, the plain ones among them, are from the
            exact solution that the solver comes near to, as the metric `"exact_rel_l2"`. That needs
            `Sampler.finer`, and costs about 13 plain runs per seed. If not given, it is measured
            where a schedule was planned or fitted toward the exact solution, whose error it is.

    Returns:
        The report, the plain run first. The model is as it was before.

    Raises:
        EvaluationError: The seeds, names or numbers are wrong, or a metric returns something else
            than it should. Or `exact` is asked for where there is none: the solver adds noise,
            clips or rescales, or the sampler has no finer runs; raised before anything is timed.
        SamplerError: `run` does not return the final latent.
        AdapterError: See `cached`; raised before anything is sampled.
        AttachError: See `cached`; raised before anything is sampled.
        ScheduleError: See `cached`; raised before anything is sampled where that can be known.
    """
    check_kind(sampler, Sampler, name="sampler", error=EvaluationError)
    if not isinstance(schedules, Mapping):
        raise EvaluationError(
            f"`schedules` must be schedules by name, such as {{'half': schedule}}, not "
            f"{described(schedules)}"
        )
    for name, schedule in schedules.items():
        check_kind(schedule, Schedule, name=f"schedules[{name!r}]", error=EvaluationError)
    seeds = tuple(checked_seeds(seeds, "evaluation", EvaluationError))
    _check_settings(schedules, seeds, ours, warmup, keep_samples)
    if EXACT_REL_L2 in (metrics or {}):
        raise EvaluationError(f"{EXACT_REL_L2!r} is a metric of `evaluate`; name yours otherwise")
    policies = [Policy(name=PLAIN, schedule=None)]
    policies += [Policy(name=name, schedule=schedule) for name, schedule in schedules.items()]
    judge = judge_of(
        sampler, policies, metrics=metrics or {}, summaries=summaries or {}, keep=keep_samples
    )
    with (
        sampler.around(),
        tqdm(
            total=(warmup + len(seeds)) * len(policies),
            desc="evaluating",
            unit="run",
            disable=not progress,
        ) as bar,
    ):
        for schedule in schedules.values():
            _check_fits(sampler, schedule)
        solutions = exact_finals(
            sampler, schedules.values(), seeds, wanted=exact, progress=progress
        )
        for policy in policies * warmup:
            judge.warm(policy, run_of(sampler, policy, seeds[0]))
            bar.update()
        for index, seed in enumerate(seeds):
            judge.take(_runs(sampler, policies, index, seed, bar), solutions.get(seed))
        return judge.report(
            ran(sampler, policies),
            seeds,
            warmup,
            frozenset(ours),
            cost,
            device_of(sampler.model),
            calibration_samples,
        )


def _check_settings(
    schedules: Mapping[str, Schedule],
    seeds: Sequence[int],
    ours: Collection[str],
    warmup: int,
    keep_samples: int,
) -> None:
    if warmup < 0 or keep_samples < 0:
        raise EvaluationError(
            f"warmup and keep_samples must be at least 0, got {warmup} and {int(keep_samples)}"
        )
    if not schedules or PLAIN in schedules:
        raise EvaluationError(
            f"evaluation needs schedules with names other than {PLAIN!r}, got {list(schedules)}"
        )
    unknown = sorted(set(ours) - set(schedules))
    if unknown:
        raise EvaluationError(f"ours names {unknown}, but the schedules are {list(schedules)}")
    evaluations = {name: schedule.evaluations for name, schedule in schedules.items()}
    if len(set(evaluations.values())) > 1:
        raise EvaluationError(f"the schedules differ in their evaluations: {evaluations}")
    _check_disjoint(schedules, seeds)


def _check_disjoint(schedules: Mapping[str, Schedule], seeds: Sequence[int]) -> None:
    for name, schedule in schedules.items():
        shared = sorted(set(seeds) & set(schedule.source.seeds))
        if shared:
            raise EvaluationError(
                f"seeds {shared} were used to calibrate or fit {name!r}, so they cannot evaluate "
                f"it; use others, for example from {max(schedule.source.seeds) + 1} on"
            )


# ---------------------------------------------------------------------------- running


def _check_fits(sampler: Sampler, schedule: Schedule) -> None:
    """Refuse a schedule that does not fit, as `cached` would."""
    attach(
        sampler.model,
        sampler.adapter,
        schedule,
        branches=sampler.branches,
        scheduler=sampler.scheduler,
        solver=sampler.solver,
    ).detach(quietly=True)


def _runs(
    sampler: Sampler, policies: Sequence[Policy], index: int, seed: int, bar: "tqdm[Any]"
) -> dict[str, Run]:
    """Sample one seed by every policy, starting with another one for every seed."""
    first = index % len(policies)
    runs = {}
    for policy in (*policies[first:], *policies[:first]):
        runs[policy.name] = run_of(sampler, policy, seed)
        bar.update()
    return runs
