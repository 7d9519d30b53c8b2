"""Fitting a schedule on the trajectory that the cached run really takes.

`plan` fits on a reduced run, where the denoiser is linear. `fit` does the same with the denoiser
itself: it lets the cached runs of all seeds unfold side by side, evaluation by evaluation, and fits
every fill when its turn comes, so that the solver lands on the plain run's next latent.

Fills of sites are fitted to what the plain run's sites gave, one run after the other.

What is where: `fit` here; the fit of one schedule and its prediction in `fitter.py`; the fits of
whole evaluations in `evaluations.py`, how one run is halted and continued for them in `rollout.py`;
the fits of sites in `sites.py`; trying other schedules in `refine.py`.
"""

from collections.abc import Iterable
from pathlib import Path

from torch import nn
from tqdm import tqdm

from smoothcache_core.adapters.compiled import denoiser, is_compiled
from smoothcache_core.adapters.sites import GUIDANCE
from smoothcache_core.arguments import check_kind
from smoothcache_core.errors import CalibrationError, ScheduleError, warn
from smoothcache_core.files import check_output
from smoothcache_core.fitting.fitter import Fitter, has_anchors
from smoothcache_core.fitting.refine import refined
from smoothcache_core.runtime.adapting import adapter_by
from smoothcache_core.sampling.finer_run import check_finer
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.sampling.seeding import checked_seeds
from smoothcache_core.schedule.fill import MOST_TERMS
from smoothcache_core.schedule.provenance import Aim
from smoothcache_core.schedule.schedule import Schedule

_NOISY = (
    "this schedule is for a solver that adds noise of its own, so there is no exact solution of "
    'the same noise to fit toward; fit with toward="plain"'
)


def fit(
    sampler: Sampler,
    schedule: Schedule,
    *,
    seeds: Iterable[int],
    terms: int | None = None,
    use_input: bool = True,
    trials: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    toward: Aim = "plain",
    channels: bool = False,
) -> Schedule:
    """Fit the fills of a schedule on its own trajectory, and measure the error that it makes.

    Fills of whole evaluations and of the guidance difference use the latent of the evaluation
    computed last if those of the schedule do. Fills of sites combine what the cached run keeps to
    come near to what the plain run's sites gave; while they are fitted, the sites' outputs of one
    evaluation are held as well. If all that does not lower the error, fills stay as they were.

    With `trials` a schedule of whole evaluations is refined as well: each trial moves one
    evaluation, fits what came of it and measures its error, and what is better is kept. A trial
    costs the computed evaluations of one run per seed.

    Example:
        >>> fitted = fit(sampler, plan(calibration, compute=0.5), seeds=range(8), progress=False)
        >>> fitted.prediction.measured
        True

    Args:
        sampler: How a run is made. Its model is not compiled.
        schedule: What to compute and what to skip; with `trials`, where to begin.
        seeds: One run each; those of the calibration will do. Keep them apart from the seeds you
            evaluate with.
        terms: The most computed outputs that a fill combines, 1 to 3. If not given, 3 for whole
            evaluations; for sites as many as in `schedule`, where plain reuse stays what it is.
            Not with `trials`, which take 3.
        use_input: Whether fills of the denoiser also use the latent. Not with `trials`, which do.
        trials: The most other schedules to try, at least 0; those of `checkpoint` count.
        checkpoint: File that keeps what the trials gave, saved after every one and continued from
            if it exists; refused if it is of another sampler, or if another process writes it.
        progress: Show a progress bar.
        channels: Scale and shift the reused outputs of sites channel by channel, as Block Caching
            does (arXiv 2312.03209), in place of fills by coefficients. Takes a plain run per seed
            more. The numbers are in a file of their own beside the saved schedule.
        toward: What samples shall come near to: the `"plain"` run; or the `"exact"` solution that
            the solver comes near to. Then computed outputs are corrected as well, also where
            everything is computed, and the error is the distance to the exact solution. That needs
            `Sampler.finer`, and takes 12 plain runs per seed more.

    Returns:
        The schedule with its new fills, and as its prediction the mean error over all samples, with
        a 95 % interval of the mean over samples that were not fitted to. With trials, the best one.
        Toward the exact solution the prediction has both distances.

    Raises:
        CalibrationError: The seeds or numbers are wrong, the solver is not affine in the denoiser's
            outputs, or two runs of a seed differ. Or the exact solution is aimed at, and finer
            runs do not tell it. Or `trials` is given with other terms or without
            the latent, or `checkpoint` without trials.
        OutputError: `checkpoint` cannot be written; raised before anything is sampled.
        SamplerError: `run` does not return the final latent; or there is no `finer` where the
            exact solution is aimed at.
        ScheduleError: The schedule does not fit the model or the run, or there are too few samples
            for the coefficients. Or channels are asked for, and it skips no outputs of sites. Or
            there are trials, and it skips no whole evaluations, or
            `checkpoint` was made with other settings.
    """
    check_kind(sampler, Sampler, name="sampler", error=CalibrationError)
    check_kind(schedule, Schedule, name="schedule", error=ScheduleError)
    todo = checked_seeds(seeds, "fitting", CalibrationError)
    _check(sampler.model, schedule, terms)
    _check_trials(trials, terms, use_input, checkpoint)
    if channels:
        _check_channels(schedule, terms, trials)
    if toward == "exact":
        check_finer(sampler)
        if has_anchors(schedule):
            raise ScheduleError(_NOISY)
    if checkpoint is not None:
        check_output(checkpoint)
    sampler = sampler.with_adapter(adapter_by(sampler.adapter, schedule))
    with sampler.around():
        if trials:
            found = refined(
                sampler, schedule, todo, trials, checkpoint, toward=toward, progress=progress
            )
        else:
            steps = Fitter.steps(schedule, todo)
            with tqdm(total=steps + 1, desc="fitting", unit="step", disable=not progress) as bar:
                fitter = Fitter(
                    sampler,
                    todo,
                    terms=terms,
                    use_input=use_input,
                    use_anchor=has_anchors(schedule),
                    toward=toward,
                    channels=channels,
                )
                bar.update()
                found = fitter.fit(schedule, bar.update)
    _warn_of_no_gain(found)
    return found


def _warn_of_no_gain(fitted: Schedule) -> None:
    """Warn where the exact solution was aimed at, and the plain run is as near to it."""
    known = None if fitted.prediction is None else fitted.prediction.exact
    if known is not None and not known.gains:
        warn(f"{known.no_gain('end')}, or fit toward the plain run")


def _check(model: nn.Module, schedule: Schedule, terms: int | None) -> None:
    if terms not in (None, *range(1, MOST_TERMS + 1)):
        raise CalibrationError(f"terms is 1 to {MOST_TERMS}, got {terms}")
    if GUIDANCE.kind in schedule.rows and not schedule.whole:
        raise ScheduleError(
            "this schedule skips unconditional passes and sites; either can be fitted, not both in "
            "one schedule"
        )
    if is_compiled(model) and not schedule.whole:
        name = type(denoiser(model)).__name__
        raise CalibrationError(f"this {name} is compiled; fit first, then compile")


def _check_channels(schedule: Schedule, terms: int | None, trials: int) -> None:
    if terms is not None or trials:
        asked = "trials" if terms is None else f"terms={terms}"
        raise CalibrationError(
            f"with channels=True reused outputs are scaled and shifted, so {asked} has no meaning; "
            "give one of them"
        )
    if schedule.whole:
        raise ScheduleError(
            "channels are those of outputs of sites, and this schedule skips whole evaluations or "
            "passes; plan one of sites, such as target='accumulated'"
        )


def _check_trials(
    trials: int, terms: int | None, use_input: bool, checkpoint: str | Path | None
) -> None:
    if trials < 0:
        raise CalibrationError(f"trials is at least 0, got {trials}")
    if trials and (terms is not None or not use_input):
        asked = "use_input=False" if terms is None else f"terms={terms}"
        raise CalibrationError(
            f"refining takes {MOST_TERMS} terms and the latent; give trials or {asked}, not both"
        )
    if checkpoint is not None and not trials:
        raise CalibrationError("a checkpoint keeps what trials gave; give trials too")
