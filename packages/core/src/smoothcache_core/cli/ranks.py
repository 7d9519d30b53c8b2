"""The processes that torchrun or `accelerate launch` started."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

_LAUNCHED = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The processes, seen from one of them.

    Attributes:
        rank: Number of this process, from 0.
        world: Number of processes.
    """

    rank: int = 0
    world: int = 1


@contextmanager
def launched_ranks() -> Generator[Ranks]:
    """Join the other processes, if a launcher started some, each on a CUDA device of its own.

    Where there are fewer devices than processes on a machine, they are shared.
    """
    environment = os.environ  # noqa: TID251 this is how launchers tell it
    if not environment.keys() >= _LAUNCHED or environment["WORLD_SIZE"] == "1":
        yield Ranks()
        return
    if torch.cuda.is_available():
        local = int(environment.get("LOCAL_RANK", "0"))
        torch.cuda.set_device(local % torch.cuda.device_count())
    distributed.init_process_group("gloo")
    try:
        yield Ranks(rank=distributed.get_rank(), world=distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
