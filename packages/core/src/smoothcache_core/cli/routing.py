"""What the command `train-router` does."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from smoothcache_core.calibrating import cost_from_shapes
from smoothcache_core.cli.commands.train_router import TrainRouter
from smoothcache_core.cli.destinations import refuse_existing
from smoothcache_core.cli.modality import Modality
from smoothcache_core.cli.ranks import launched_ranks
from smoothcache_core.cli.source import Source
from smoothcache_core.errors import CommandError
from smoothcache_core.files import check_output
from smoothcache_core.routing import (
    HARMONICA,
    LEARNING_TO_CACHE,
    CleanLatents,
    RouterSettings,
    train_router,
    trained_for,
)
from smoothcache_core.routing.training import Log
from smoothcache_core.sampling import ConditionedSampler

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

_PRESETS = {"harmonica": HARMONICA, "learning-to-cache": LEARNING_TO_CACHE}


def train_to_files(settings: TrainRouter, modality: Modality) -> None:
    """Train routers, and write the schedule that they are and the training itself.

    Args:
        settings: What to sample, how to train, and the files.
        modality: Whose program this is.

    Raises:
        CommandError: TensorBoard is asked for and not installed, or a threshold and the compute.
        SmoothCacheError: The model cannot be loaded; see `train_router`.
    """
    source = settings.source
    output = settings.output or Path(f"router-{source.tag}.json")
    checkpoint = output.with_suffix(".pt")
    for each in (output, checkpoint):
        check_output(each)
    if settings.threshold is not None and settings.compute is not None:
        raise CommandError("--compute chooses the threshold; give one of them, not both")
    writer = None if settings.tensorboard is None else _summary_writer()
    with launched_ranks() as ranks:
        console = Console(soft_wrap=True, highlight=False, quiet=ranks.rank > 0)
        if settings.force:
            checkpoint.unlink(missing_ok=True)
        elif not checkpoint.exists():
            refuse_existing([output], force=False)
        sampler = source.sampler(steps=source.steps or source.STEPS)
        sampler.show_progress(False)
        chosen = router_settings(settings)
        cost = None if settings.compute is None else cost_from_shapes(sampler)
        with _curves(writer if ranks.rank == 0 else None, settings.tensorboard) as log:
            routers = train_router(
                sampler,
                chosen,
                data=_data(source, sampler) if chosen.on == "data" else None,
                evaluations=sampler.evaluations or sampler.steps,
                checkpoint=checkpoint,
                log=log,
                progress=ranks.rank == 0,
            )
        if ranks.rank == 0:
            schedule = routers.schedule(
                threshold=chosen.threshold if settings.compute is None else None,
                compute=settings.compute,
                cost=cost,
                fingerprint=trained_for(sampler),
            )
            schedule.save(output)
            console.print(f"{output}: {schedule!r}")
            console.print(f"{checkpoint}: the training, which goes on with more --updates")
            console.print(f"Next: {modality.command} evaluate {output}")


def _data(source: Source, sampler: ConditionedSampler) -> CleanLatents:
    """Return what draws data of a model.

    Raises:
        CommandError: None is known.
    """
    data = source.clean_latents(sampler)
    if data is None:
        raise CommandError(
            f"no data is known that {source.model!r} was trained on; give --on samples, which "
            "needs none, or call smoothcache_core.routing.train_router(data=...)"
        )
    return data


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
        "on": settings.on,
        "straight_through": settings.straight_through or None,
        "seed": settings.source.seed,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(_PRESETS[settings.preset], **changes)


def _summary_writer() -> Callable[[str], SummaryWriter]:
    """Return what writes curves, before anything is loaded that takes long.

    Raises:
        CommandError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        raise CommandError(
            "--tensorboard needs TensorBoard: pip install smoothcache-core[train]"
        ) from None
    return SummaryWriter


@contextmanager
def _curves(
    writes: Callable[[str], SummaryWriter] | None, folder: Path | None
) -> Generator[Log | None]:
    """Return what writes numbers of updates for TensorBoard; nothing without a writer."""
    if writes is None:
        yield None
        return
    with writes(str(folder)) as writer:

        def log(update: int, numbers: dict[str, float]) -> None:
            for name, value in numbers.items():
                writer.add_scalar(name, value, update)

        yield log
