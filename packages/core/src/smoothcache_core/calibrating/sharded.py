"""Calibration by several processes: a share of the seeds each, the numbers of a single one."""

import os
import re
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from torch import distributed

from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.errors import CalibrationError, SmoothCacheError
from smoothcache_core.locking import locked

T = TypeVar("T")


_LAUNCHED = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


_PATIENCE = timedelta(days=30)  # shares take different times; a rank that ends is noticed at once


def shared_out(
    calibrate: Callable[..., Calibration],
    *,
    seeds: Sequence[int],
    sensitivity: int | Collection[int],
    checkpoint: str | Path | None,
    progress: bool,
) -> Calibration:
    """Calibrate with all processes of `torch.distributed`; see `calibrate`, whose `sharded` it is.

    Args:
        calibrate: Calibrates in this process; takes the arguments below by name.
        seeds: One run each, rank r of n taking `seeds[r::n]`.
        sensitivity: How many of the first of all seeds (not of each rank's), or which seeds, to
            measure sensitivities with.
        checkpoint: File for the whole, written by rank 0 at the end.
        progress: Show the progress bar of rank 0.

    Returns:
        The calibration of all runs of all ranks, those of `checkpoint` included.

    Raises:
        CalibrationError: `calibrate` failed on a rank: all ranks raise, and name it. Or a rank
            ended, the ranks have different seeds, or files were made with other settings.
    """
    chosen = seeds[:sensitivity] if isinstance(sensitivity, int) else sensitivity
    file = None if checkpoint is None else Path(checkpoint)
    run = partial(calibrate, sensitivity=chosen)
    with _all_ranks() as ranks, ExitStack() as stack:
        _check_seeds(ranks, seeds)
        held = locked(file if ranks.rank == 0 else None, CalibrationError)
        ranks.together(lambda: stack.enter_context(held))
        done = None if file is None else _continued(ranks, file, run)
        if ranks.world == 1:
            return run(seeds=seeds, checkpoint=file, progress=progress)
        share = [s for s in seeds if done is None or s not in done.seeds][ranks.rank :: ranks.world]
        own = partial(
            run, seeds=share, progress=progress and ranks.rank == 0,
            checkpoint=None if file is None else _part(file, ranks),
        )  # fmt: skip
        parts = ranks.together(lambda: own() if share else None)
        merged = Calibration.merge(*(part for part in (done, *parts) if part is not None))
        if file is not None:
            ranks.together(lambda: merged.save(file) if ranks.rank == 0 else None)
            ranks.together(lambda: _remove_parts(file))
        return merged


# ---------------------------------------------------------------------------- ranks


@dataclass(frozen=True, kw_only=True)
class _Ranks:
    """The processes that calibrate together, seen from one of them.

    Attributes:
        rank: Number of this process, from 0.
        world: Number of processes.
        group: Their process group; None for a process by itself.
    """

    rank: int = 0
    world: int = 1
    group: Any = None

    def together(self, do: Callable[[], T]) -> list[T]:
        """Do something on every rank, and return what came out on each; wait for all of them.

        Raises:
            CalibrationError: It failed on a rank; raised on all.
        """
        if self.world == 1:
            return [do()]
        try:
            mine: Any = do()
            failure, cause = "", None
        except Exception as error:  # it has to be told to the others, whatever it is
            mine, failure, cause = None, _told(error), error
        outcomes = self._gather((mine, failure))
        failures = {rank: text for rank, (_, text) in enumerate(outcomes) if text}
        if failures:
            first, *others = failures
            too = f" (failed too: {others})" if others else ""
            raise CalibrationError(
                f"rank {first} of {self.world} failed{too}: {failures[first]}"
            ) from cause
        return [value for value, _ in outcomes]

    def _gather(self, value: object) -> list[Any]:
        values: list[Any] = [None] * self.world
        try:
            distributed.all_gather_object(values, value, group=self.group)
        except RuntimeError as error:
            raise CalibrationError(
                f"rank {self.rank} of {self.world} lost contact with the others; one of them "
                f"exited: {_told(error)}"
            ) from error
        return values


@contextmanager
def _all_ranks() -> Generator[_Ranks]:
    """Yield the ranks of the default process group, or of one made of what a launcher started."""
    if not distributed.is_available():
        yield _Ranks()
    elif distributed.is_initialized():
        with _gloo_group() as ranks:
            yield ranks
    elif _launched() > 1:
        _join()
        try:
            with _gloo_group() as ranks:
                yield ranks
        finally:
            distributed.destroy_process_group()
    else:
        yield _Ranks()


def _launched() -> int:
    """Return how many processes a launcher started, 1 if none did."""
    environment = os.environ  # noqa: TID251 this is how launchers tell it
    return int(environment["WORLD_SIZE"]) if environment.keys() >= _LAUNCHED else 1


def _join() -> None:
    """Make the default process group, in a place of the launcher's store that is never used again.

    What an earlier group left there would be taken for the other ranks of this one.
    """
    from torch.distributed.distributed_c10d import PrefixStore  # some builds of torch have none

    try:
        store, rank, world = _launcher()
        call = store.add(f"smoothcache/calls of rank {rank}", 1)
        fresh = PrefixStore(f"smoothcache/call {call}", store)
        distributed.init_process_group("gloo", store=fresh, rank=rank, world_size=world)
    except (RuntimeError, ValueError) as error:
        raise CalibrationError(f"cannot join the other processes: {_told(error)}") from error


@cache
def _launcher() -> tuple[Any, int, int]:
    """Return the launcher's store, this rank, and how many there are.

    Kept, because the store may be served by this process.
    """
    from torch.distributed.rendezvous import rendezvous

    return next(iter(rendezvous("env://")))


@contextmanager
def _gloo_group() -> Generator[_Ranks]:
    """Group all ranks anew: by the CPU, whatever the default group is for, and with patience."""
    group: Any = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    try:
        yield _Ranks(rank=distributed.get_rank(), world=distributed.get_world_size(), group=group)
    finally:
        distributed.destroy_process_group(group)


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, SmoothCacheError) else f"{type(error).__name__}: {error}"


def _check_seeds(ranks: _Ranks, todo: Sequence[int]) -> None:
    """Refuse what `calibrate` refuses, but would not see in the shares."""
    if not todo or len(set(todo)) != len(todo):
        raise CalibrationError(f"calibration needs distinct seeds, got {list(todo)}")
    given = ranks.together(lambda: todo)
    for rank, seeds in enumerate(given):
        if seeds != given[0]:
            raise CalibrationError(
                f"all ranks need the same seeds, to share them out; rank 0 has {given[0]}, rank "
                f"{rank} has {seeds}"
            )


# ---------------------------------------------------------------------------- files


def _part(checkpoint: Path, ranks: _Ranks) -> Path:
    name = f"{checkpoint.stem}.rank{ranks.rank}-of-{ranks.world}{checkpoint.suffix}"
    return checkpoint.with_name(name)


def _parts(checkpoint: Path) -> list[Path]:
    """Return the files that ranks left beside `checkpoint`, however many ranks there were."""
    stem, suffix = re.escape(checkpoint.stem), re.escape(checkpoint.suffix)
    name = re.compile(rf"{stem}\.rank\d+-of-\d+{suffix}")
    folder = checkpoint.parent
    return sorted(f for f in folder.glob("*.rank*-of-*") if name.fullmatch(f.name))


def _remove_parts(checkpoint: Path) -> None:
    for file in _parts(checkpoint):
        file.unlink(missing_ok=True)


def _continued(
    ranks: _Ranks, checkpoint: Path, run: Callable[..., Calibration]
) -> Calibration | None:
    """Return what was measured before; all of it is in `checkpoint` then."""

    def checked(file: Path) -> Calibration:
        return run(seeds=Calibration.load(file).seeds, checkpoint=file, progress=False)

    def found() -> list[Calibration]:
        complete = [checkpoint] if checkpoint.exists() else []
        return [checked(file) for file in [*complete, *_parts(checkpoint)]]

    def settle() -> None:
        if ranks.rank == 0 and not (checkpoint.exists() and Calibration.load(checkpoint) == done):
            done.save(checkpoint)

    before = [part for parts in ranks.together(found) for part in parts]
    if not before:
        return None
    try:
        done = Calibration.merge(*_disjoint(before))
    except CalibrationError as error:
        raise CalibrationError(
            f"cannot continue {str(checkpoint)!r} and the files of ranks beside it: {error}; use "
            "another file"
        ) from error
    ranks.together(settle)
    ranks.together(lambda: _remove_parts(checkpoint))
    return done


def _disjoint(parts: Iterable[Calibration]) -> list[Calibration]:
    """Return parts that share no seed, preferring large ones.

    Seeds that are in none of them are measured again.
    """
    kept: list[Calibration] = []
    for part in sorted(parts, key=lambda part: -len(part.seeds)):
        if all(set(part.seeds).isdisjoint(other.seeds) for other in kept):
            kept.append(part)
    return kept
