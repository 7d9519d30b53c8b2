"""What the command `transfer` does."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from smoothcache_core import Calibration, transfer
from smoothcache_core.cli.commands.transfer import Transfer
from smoothcache_core.cli.destinations import refuse_existing
from smoothcache_core.cli.loading import by_record, with_passes
from smoothcache_core.cli.modality import Modality
from smoothcache_core.errors import CommandError
from smoothcache_core.files import check_output


def transfer_to_file(settings: Transfer, modality: Modality) -> None:
    """Transfer a calibration file to another number of steps, and say what is left of it.

    Args:
        settings: What was calibrated, the files, and the steps to transfer to.
        modality: Whose program this is.

    Raises:
        CommandError: The output is the calibration itself, or the calibration holds nothing of
            whole runs.
        SmoothCacheError: The model cannot be loaded; see `smoothcache_core.transfer`.
    """
    source, file = settings.source, settings.calibration
    output = settings.output or file.with_name(f"{file.stem}-to-{settings.steps}{file.suffix}")
    calibration = Calibration.load(file)
    _check(calibration, file, output)
    refuse_existing([output], force=settings.force)
    check_output(output)
    loaded = source.sampler(steps=settings.steps)
    sampler = by_record(source, loaded, [calibration.fingerprint])
    sampler.show_progress(False)
    console = Console(soft_wrap=True, highlight=False)
    with console.status("transferring"):
        taken = with_passes(sampler, calibration.fingerprint)
        transferred = transfer(calibration, taken, seed=source.seed)
    transferred.save(output)
    console.print(
        f"{output}: transferred from {calibration.evaluations} evaluations to "
        f"{transferred.evaluations}, an estimate. {_lags(calibration, transferred)}"
    )
    console.print(f"Next: {modality.command} plan {output} --compute 0.5")


def _check(calibration: Calibration, file: Path, output: Path) -> None:
    """Refuse what is wrong before the model is loaded."""
    if output.exists() and output.samefile(file):
        raise CommandError(
            f"{str(output)!r} is the calibration that is transferred; give another --output"
        )
    if calibration.dynamics is None:
        why = calibration.remark or "calibrate with --sensitivity 2"
        raise CommandError(f"{str(file)!r} holds nothing of whole runs to transfer: {why}")


def _lags(calibration: Calibration, transferred: Calibration) -> str:
    """Say how many lags the sites have left."""
    if transferred.max_lag:
        return f"The sites have {transferred.max_lag} lags; {calibration.max_lag} were calibrated."
    return (
        f"The sites have no lags left ({transferred.remark}), so only whole evaluations can be "
        "skipped."
    )
