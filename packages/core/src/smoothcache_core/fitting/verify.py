"""Verifying a calibration: plans are run, and their errors compared with those foretold."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from tqdm import tqdm

from smoothcache_core.arguments import check_kind
from smoothcache_core.calibrating.solver_response import responding
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.calibration.outcomes import Outcome, estimator_of, ordered
from smoothcache_core.errors import CalibrationError
from smoothcache_core.fitting.rollout import CachedRun
from smoothcache_core.sampling.recording import record
from smoothcache_core.sampling.sampler import Sampler, needed
from smoothcache_core.sampling.seeding import checked_seeds
from smoothcache_core.sampling.trajectory import Trajectory
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.sources.evaluations import can_skip_guidance, plan_evaluations
from smoothcache_core.sources.kind import or_none
from smoothcache_core.sources.prediction import lacks_sensitivities, with_prediction
from smoothcache_core.sources.sites import plan_sites
from smoothcache_core.sources.smooth import smooth_to_compute

_WHOLE, _SITES, _RULE = (0.55, 0.35), (0.6, 0.4), (0.55,)
"""Compute fractions that are tried: of the range that is used, for what plans of one kind are off
by changes little with it."""


_GUIDANCE = (0.4,)


def verify(
    sampler: Sampler,
    calibration: Calibration,
    *,
    seeds: Iterable[int] | None = None,
    progress: bool = True,
) -> Calibration:
    """Run a few plans, so that predictions know how far off they are for this model.

    Predicted errors rest on a linear model of the denoiser and on constants that were fitted to the
    models that come with the library. Other models may deviate by a factor of two or three,
    in one direction for all plans of a kind. So three to six schedules are planned, run from a seed
    and measured, which costs about four plain runs a seed; `plan` multiplies its predictions by
    what came of it, and compares targets by them.

    Example:
        >>> known = verify(sampler, calibration, progress=False)
        >>> {outcome.estimator for outcome in known.outcomes} >= {"whole", "filled"}
        True
        >>> schedule = plan(known, compute=0.5)

    Args:
        sampler: How a run is made, the one that was calibrated.
        calibration: What was measured of it, with sensitivities.
        seeds: Seeds of the runs; if not given, the first that was calibrated with. Plans are made
            of all calibration seeds together, so that little is gained by others.
        progress: Show a progress bar.

    Returns:
        The calibration with what came of the plans, in place of what it knew of these seeds.

    Raises:
        CalibrationError: The calibration has no sensitivities, or is of another number of
            evaluations.
        SamplerError: `run` returns something else than the final latent.
    """
    check_kind(sampler, Sampler, name="sampler", error=CalibrationError)
    chosen = calibration.seeds[:1] if seeds is None else seeds
    known = checked_seeds(chosen, "verification", CalibrationError)
    if calibration.dynamics is None or not calibration.dynamics.measured:
        why = calibration.remark or "calibrate with `sensitivity=2`"
        raise CalibrationError(f"only plans of whole runs can be verified: {why}")
    plans = [*_plans(replace(calibration, outcomes=()))]
    found: list[Outcome] = []
    with (
        sampler.around(),
        tqdm(
            total=len(plans) * len(known), desc="verifying", unit="plan", disable=not progress
        ) as bar,
    ):
        for seed in known:
            plain = _plain(sampler, seed, calibration)
            for schedule in plans:
                found += _outcome(sampler, plain, schedule)
                bar.update()
    others = (each for each in calibration.outcomes if each.seed not in known)
    outcomes = ordered((*others, *found))
    coarser = tuple(replace(each, outcomes=outcomes) for each in calibration.coarser)
    return replace(calibration, outcomes=outcomes, coarser=coarser)


def _plain(sampler: Sampler, seed: int, calibration: Calibration) -> Trajectory:
    plain = record(sampler, seed)
    if plain.evaluations != calibration.evaluations:
        raise CalibrationError(
            f"the run has {plain.evaluations} evaluations, the calibration "
            f"{calibration.evaluations}"
        )
    needed(plain.final)
    assert calibration.dynamics is not None
    if calibration.dynamics.overwritten:
        plain, _ = responding(sampler, plain)
    return plain


def _outcome(sampler: Sampler, plain: Trajectory, schedule: Schedule) -> Iterator[Outcome]:
    """Yield what comes of a schedule; nothing where the run diverges, or errs not at all."""
    assert schedule.prediction is not None
    run = CachedRun(sampler, plain)
    errors = run.errors(run.final(schedule), needed(plain.final))
    measured = sum(errors) / len(errors)
    if 0.0 < measured < math.inf and schedule.prediction.error:
        yield Outcome(
            estimator=estimator_of(schedule),
            compute=schedule.compute_fraction(),
            predicted=schedule.prediction.error,
            measured=measured,
            seed=plain.seed,
        )


def _plans(calibration: Calibration) -> Iterator[Schedule]:
    """Yield what is tried, of every kind that can be planned."""
    whole = [(compute, False) for compute in _WHOLE]
    if can_skip_guidance(calibration):
        whole += [(compute, True) for compute in _GUIDANCE]
    makes: list[Callable[[], Schedule]] = [
        lambda c=c, g=g: plan_evaluations(calibration, compute=c, guidance=g) for c, g in whole
    ]
    if not lacks_sensitivities(calibration):
        makes += [lambda c=c: plan_sites(calibration, compute=c) for c in _SITES]
        makes += [
            lambda c=c: with_prediction(calibration, smooth_to_compute(calibration, compute=c))
            for c in _RULE
        ]
    for make in makes:
        schedule = or_none(make)
        if schedule is not None and schedule.prediction is not None and schedule.skips:
            yield schedule
