"""What the command `calibrate` does."""

from __future__ import annotations

import glob
import math
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from smoothcache_core import Calibration, calibrate, verify
from smoothcache_core.calibration.outcomes import Estimator, log_factor
from smoothcache_core.cli.commands.calibrate import Calibrate
from smoothcache_core.cli.destinations import calibration_file
from smoothcache_core.cli.loading import by_record, check_steps
from smoothcache_core.cli.modality import Modality
from smoothcache_core.cli.ranks import Ranks, launched_ranks
from smoothcache_core.cli.source import Source
from smoothcache_core.errors import CommandError
from smoothcache_core.files import check_output
from smoothcache_core.pipelines.adapting import AUTO


def calibrate_to_file(settings: Calibrate, modality: Modality) -> None:
    """Calibrate a model into a file, or continue the file; share the runs if launched as several.

    Args:
        settings: What to sample, what to measure, and the file.
        modality: Whose program this is.

    Raises:
        CommandError: The file was made with other settings.
        SmoothCacheError: The model cannot be loaded; see `smoothcache_core.calibrate`.
    """
    source = settings.source
    output = settings.output or calibration_file(source.tag)
    check_output(output)
    with launched_ranks() as ranks:
        console = Console(soft_wrap=True, quiet=ranks.rank > 0)
        if settings.force:
            _remove(output)
        found = _continued(source, output, console)
        done = _calibrated(settings, output, ranks, found)
    console.print(
        f"{output}: {done.samples} samples of {done.evaluations} evaluations each, "
        f"{len(done.sites)} sites. {_shares(done)}"
    )
    if done.fingerprint.adapter_data and source.adapter == AUTO:
        console.print(
            f"No adapter is known for {done.fingerprint.model_class}, so what can be skipped was "
            "found by its structure; the files record it."
        )
    if exact := _exact(done):
        console.print(exact)
    if done.outcomes:
        console.print(_verified(done))
    console.print(f"{_sensitivities(done)} Next: {modality.command} plan {output} {_advice(done)}")


def _shares(calibration: Calibration) -> str:
    """Say what of the model can be skipped."""
    cost = calibration.cost
    if not cost.counted:
        return "Its MACs cannot be counted, so an evaluation is the unit of compute."
    if not calibration.sites:
        return "Whole evaluations can be skipped."
    shares = ", ".join(f"{kind} {cost.fraction(kind):.0%}" for kind in calibration.kinds)
    coarser = [
        f"{len(each.sites)} {each.level} {each.cost.fraction():.0%}" for each in calibration.coarser
    ]
    return f"Of the MACs, the sites do: {', '.join([shares, *coarser])}."


def _exact(calibration: Calibration) -> str:
    """Say how far the plain run is from the exact solution; empty if that was not measured."""
    dynamics = calibration.dynamics
    if dynamics is None or dynamics.exact is None:
        return ""
    distance, doubt = (
        each(dynamics.samples) for each in (dynamics.exact.distance, dynamics.exact.doubt)
    )
    return (
        f"The plain run is {distance:.2g} away from the exact solution (relative L2), which is "
        f"known to {doubt:.1g}; plan --toward exact comes nearer."
    )


_ESTIMATED: Mapping[Estimator, str] = {
    "whole": "whole evaluations",
    "filled": "sites",
    "reused": "the published rule",
}


def _verified(calibration: Calibration) -> str:
    """Say how far off predictions were before plans were run."""
    known = {each.estimator for each in calibration.outcomes}
    said = [
        f"{math.exp(log_factor(calibration.outcomes, how)):.2g} for {title}"
        for how, title in _ESTIMATED.items()
        if how in known
    ]
    return (
        f"{len(calibration.outcomes)} plans were run: predicted errors are multiplied by "
        f"{', '.join(said)}."
    )


def _sensitivities(calibration: Calibration) -> str:
    """Say what measuring sensitivities cost, or why there are none."""
    calls = sensitivity_calls(calibration)
    if calls:
        plain = calibration.evaluations * len(calibration.branches)
        return f"Sensitivities took {calls} calls of the denoiser, {calls / plain:.1f} plain runs."
    why = f": {calibration.remark}" if calibration.remark else ""
    if not calibration.sites:
        return f"No sensitivities were measured{why}, so nothing can be planned."
    return f"No sensitivities were measured{why}, so only published rules can be planned."


def _advice(calibration: Calibration) -> str:
    if not calibration.sites:
        return "--compute 0.5"
    return "--compute 0.5, or --front" if sensitivity_calls(calibration) else "--alpha 0.18"


def sensitivity_calls(calibration: Calibration) -> int:
    """Return how many calls of the denoiser the sensitivities of a calibration took.

    A run perturbed at an evaluation calls it at all that follow; outputs of sites are replaced one
    at a time, and those that replace them computed once.
    """
    dynamics, influence = calibration.dynamics, calibration.influence
    if dynamics is None or influence is None:
        return 0
    following = range(dynamics.evaluations - 1, -1, -1)
    counts = dynamics.effect_counts.tolist()
    perturbed = sum(n * left for n, left in zip(counts, following, strict=True))
    known = [each.influence for each in calibration.levels.values() if each.influence is not None]
    counts = [each.counts for each in known]
    replaced = sum(int(each.sum() + each.max(axis=0, initial=0).sum()) for each in counts)
    return (perturbed + replaced) * len(calibration.branches)


def _calibrated(
    settings: Calibrate, output: Path, ranks: Ranks, found: Mapping[Path, Calibration]
) -> Calibration:
    """Calibrate what is left; also where nothing is, for that is known of the sampler only."""
    source = settings.source
    loaded = source.sampler(steps=source.steps or source.STEPS)
    sampler = by_record(source, loaded, [part.fingerprint for part in found.values()])
    for file, part in found.items():
        check_steps(source, sampler, part.evaluations, file)
    sampler.show_progress(ranks.rank == 0)
    done = calibrate(
        sampler,
        seeds=source.seeds,
        max_lag=settings.max_lag,
        sensitivity=settings.sensitivity,
        references=settings.references,
        checkpoint=output,
        sharded=True,
        sites=settings.sites,
        reference=settings.reference,
    )
    measured = done.dynamics is not None and done.dynamics.measured
    is_new = bool(_left(source, found)) or not done.outcomes
    if settings.verify and measured and is_new and ranks.rank == 0:
        done = verify(sampler, done)
        done.save(output)
    return done


def _continued(source: Source, output: Path, console: Console) -> dict[Path, Calibration]:
    """Return what the file, and those that ranks left beside it, hold already, and say so."""
    files = [output] if output.exists() else []
    found = {file: Calibration.load(file) for file in [*files, *_parts(output)]}
    for file, part in found.items():
        batch = part.samples // len(part.seeds)
        if batch != source.run_samples:
            raise CommandError(
                f"cannot continue {str(file)!r}: its runs are batches of {batch}, not of "
                f"{source.run_samples}; set the batch or give another output"
            )
    if found:
        runs = len({seed for part in found.values() for seed in part.seeds})
        console.print(
            f"Continuing {output}: {runs * source.run_samples} samples are there, "
            f"{len(_left(source, found)) * source.run_samples} to go."
        )
    return found


def _parts(output: Path) -> list[Path]:
    """Return the files that ranks left beside an output."""
    return sorted(output.parent.glob(f"{glob.escape(output.stem)}.rank*-of-*{output.suffix}"))


def _remove(output: Path) -> None:
    """Remove what is there; every rank does, before any of them writes."""
    for file in (output, *_parts(output)):
        file.unlink(missing_ok=True)


def _left(source: Source, found: Mapping[Path, Calibration]) -> set[int]:
    """Return the seeds that have not been run."""
    return set(source.seeds).difference(*(part.seeds for part in found.values()))
