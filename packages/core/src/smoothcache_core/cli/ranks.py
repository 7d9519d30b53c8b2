"""The processes that torchrun or `accelerate launch` started."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from smoothcache_core.cli.leaving import is_launched
from smoothcache_core.errors import CommandError

T = TypeVar("T")

_PATIENCE = timedelta(days=30)  # shares take different times; a rank that ends is noticed at once


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The processes, seen from one of them.

    Attributes:
        rank: Number of this process, from 0.
        world: Number of processes.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that does what is done once, and talks."""
        return self.rank == 0

    def share(self, work: Sequence[T]) -> Sequence[T]:
        """Return what this process does of some work, every `world`-th part.

        Args:
            work: The same parts in the same order in every process.
        """
        return work[self.rank :: self.world]

    def wait(self) -> None:
        """Wait until all processes are here.

        Raises:
            CommandError: One of them ended before.
        """
        self.agree(True)

    def agree(self, holds: bool) -> bool:
        """Return whether something holds in all processes; wait until all are here.

        Args:
            holds: Whether it does in this one.

        Raises:
            CommandError: One of them ended before.
        """
        if self.world == 1:
            return holds
        told = torch.tensor([int(holds)])
        try:
            distributed.all_reduce(told, op=distributed.ReduceOp.MIN)
        except RuntimeError as error:
            raise CommandError(
                f"process {self.rank} of {self.world} lost contact with the others; one ended"
            ) from error
        return bool(told.item())


@contextmanager
def launched_ranks() -> Generator[Ranks]:
    """Join the other processes, if a launcher started some, each on a CUDA device of its own.

    Where there are fewer devices than processes on a machine, they are shared.
    """
    if not is_launched():
        yield Ranks()
        return
    if torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", "0"))  # noqa: TID251 launchers tell it so
        torch.cuda.set_device(local % torch.cuda.device_count())
    distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Ranks(rank=distributed.get_rank(), world=distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
