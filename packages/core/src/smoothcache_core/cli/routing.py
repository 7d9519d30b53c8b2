"""What the command `train-router` does."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from smoothcache_core.cli.commands.train_router import TrainRouter
from smoothcache_core.cli.destinations import refuse_existing
from smoothcache_core.cli.modality import Modality
from smoothcache_core.cli.ranks import launched_ranks
from smoothcache_core.errors import CommandError
from smoothcache_core.files import check_output
from smoothcache_core.routing import (
    HARMONICA,
    LEARNING_TO_CACHE,
    RouterSettings,
    train_router,
    trained_for,
)
from smoothcache_core.routing.training import Log

_PRESETS = {"harmonica": HARMONICA, "learning-to-cache": LEARNING_TO_CACHE}


def train_to_files(settings: TrainRouter, modality: Modality) -> None:
    """Train routers, and write the schedule that they are and the training itself.

    Args:
        settings: What to sample, how to train, and the files.
        modality: Whose program this is.

    Raises:
        CommandError: TensorBoard is asked for and not installed.
        SmoothCacheError: The model cannot be loaded; see `train_router`.
    """
    source = settings.source
    output = settings.output or Path(f"router-{source.tag}.json")
    checkpoint = output.with_suffix(".pt")
    for each in (output, checkpoint):
        check_output(each)
    with launched_ranks() as ranks:
        console = Console(soft_wrap=True, highlight=False, quiet=ranks.rank > 0)
        if settings.force:
            checkpoint.unlink(missing_ok=True)
        elif not checkpoint.exists():
            refuse_existing([output], force=False)
        sampler = source.sampler(steps=source.steps or source.STEPS)
        sampler.show_progress(False)
        with _curves(settings.tensorboard if ranks.rank == 0 else None) as log:
            routers = train_router(
                sampler,
                router_settings(settings),
                evaluations=sampler.evaluations or sampler.steps,
                checkpoint=checkpoint,
                log=log,
                progress=ranks.rank == 0,
            )
        if ranks.rank == 0:
            schedule = routers.schedule(
                threshold=settings.threshold, fingerprint=trained_for(sampler)
            )
            schedule.save(output)
            console.print(f"{output}: {schedule!r}")
            console.print(f"{checkpoint}: the training, which goes on with more --updates")
            console.print(f"Next: {modality.command} evaluate {output}")


def router_settings(settings: TrainRouter) -> RouterSettings:
    """Return the settings of a preset, with what was given in their place.

    Args:
        settings: The options of the command.
    """
    given = {
        "updates": settings.updates,
        "learning_rate": settings.learning_rate,
        "sparsity": settings.sparsity,
        "proxy": settings.proxy,
        "refresh": settings.refresh,
        "threshold": settings.threshold,
        "straight_through": settings.straight_through or None,
        "seed": settings.source.seed,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(_PRESETS[settings.preset], **changes)


@contextmanager
def _curves(folder: Path | None) -> Generator[Log | None]:
    """Return what writes numbers of updates for TensorBoard; nothing without a folder."""
    if folder is None:
        yield None
        return
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        raise CommandError(
            "--tensorboard needs TensorBoard: pip install smoothcache-core[train]"
        ) from None
    with SummaryWriter(str(folder)) as writer:

        def log(update: int, numbers: dict[str, float]) -> None:
            for name, value in numbers.items():
                writer.add_scalar(name, value, update)

        yield log
