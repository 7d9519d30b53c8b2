"""What the command `fit` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from smoothcache_core import Schedule, fit
from smoothcache_core.adapters import DENOISER, GUIDANCE
from smoothcache_core.cli.commands.fit import Fit
from smoothcache_core.cli.destinations import refuse_existing
from smoothcache_core.cli.loading import sampler_for, with_passes
from smoothcache_core.cli.modality import Modality
from smoothcache_core.cli.shared import beside, opened
from smoothcache_core.cli.tables import show_schedules
from smoothcache_core.errors import CommandError
from smoothcache_core.files import check_output
from smoothcache_core.sampling import ConditionedSampler
from smoothcache_core.schedule.provenance import Aim


def fit_to_file(settings: Fit, modality: Modality) -> None:
    """Fit a schedule file to the runs of a model, refine it if asked to, and show what it does.

    Args:
        settings: What to sample, the files, and how to fit.
        modality: Whose program this is.

    Raises:
        CommandError: There is nothing to refine, a checkpoint without trials, or terms with them.
        SmoothCacheError: The model or the schedule cannot be used.
    """
    source, file = settings.source, settings.schedule
    output = settings.output or beside(file, "-fitted")
    refuse_existing([output], force=settings.force)
    check_output(output)
    terms, trials, checkpoint = settings.terms, settings.refine, settings.checkpoint
    schedule = opened(file, settings.speedup)
    whole = {DENOISER.kind, GUIDANCE.kind} & set(schedule.rows)
    if checkpoint is not None and trials is None:
        raise CommandError("--checkpoint keeps what --refine tried; give --refine TRIALS")
    if terms is not None and trials is not None:
        raise CommandError("--refine always uses 3 terms; omit --terms")
    if trials is not None and not whole:
        raise CommandError(
            f"{str(file)!r} skips parts of the model; only whole evaluations are refined"
        )
    sampler = sampler_for(source, {file: schedule})
    sampler.show_progress(False)
    fitted = fitted_to(
        sampler, schedule, seeds=source.seeds, terms=terms, trials=trials, checkpoint=checkpoint,
        toward=settings.toward or schedule.toward, channels=settings.channels,
    )  # fmt: skip
    fitted.save(output)
    console = Console(soft_wrap=True, highlight=False)
    show_schedules({file.name: schedule, output.name: fitted}, console)
    same = fitted.fills == schedule.fills and fitted.channels == schedule.channels
    what = " The schedule is unchanged: no fill was better." if same else ""
    if what and not schedule.fills and terms is None:
        what += " It only reuses; try --terms 2."
    console.print(f"Measured on {source.samples} samples.{what} Written to {output}.")
    console.print(f"Next: {modality.command} evaluate {output} --model {source.model} --samples 50")


def fitted_to(
    sampler: ConditionedSampler,
    schedule: Schedule,
    *,
    seeds: Sequence[int],
    terms: int | None = None,
    trials: int | None = None,
    checkpoint: Path | None = None,
    progress: bool = True,
    toward: Aim = "plain",
    channels: bool = False,
) -> Schedule:
    """Return a schedule fitted to the runs of a sampler, and refined if there are trials."""
    return fit(
        with_passes(sampler, schedule.fingerprint),
        schedule,
        seeds=seeds,
        terms=terms,
        trials=trials or 0,
        checkpoint=checkpoint,
        progress=progress,
        toward=toward,
        channels=channels,
    )
