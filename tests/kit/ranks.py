"""Processes that calibrate together, kept from test to test: one rank each, of two."""

import io
import os
import socket
from collections.abc import Callable, Collection, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.helpers import Toy, noise, sample, silent
from smoothcache_core import Calibration, calibrate
from torch import Tensor, distributed

WORLD = 2
SAMPLER = {"branches", "samples", "solver"}
"""Settings of a sampler, as opposed to those of calibrating."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a rank came to.

    Attributes:
        calibration: What it returned.
        ran: The seeds that it sampled by more than one evaluation, in order.
        said: What it wrote to stderr.
        group: Whether there was a default process group afterwards.
    """

    calibration: Calibration
    ran: list[int]
    said: str
    group: bool


@dataclass(frozen=True)
class Ranks:
    """The processes, by rank."""

    processes: Sequence[ProcessPoolExecutor]

    def start(self, job: Callable[..., Any], *each: dict[str, Any]) -> list[Future[Any]]:
        """Do a job on every rank, with arguments of its own, or all with the same."""
        given = each if len(each) > 1 else each * WORLD
        pairs = zip(self.processes, given, strict=True)
        return [process.submit(job, **arguments) for process, arguments in pairs]

    def run(self, job: Callable[..., Any], *each: dict[str, Any]) -> list[Any]:
        return [future.result(timeout=60) for future in self.start(job, *each)]

    def errors(self, job: Callable[..., Any], *each: dict[str, Any]) -> list[BaseException | None]:
        return [future.exception(timeout=60) for future in self.start(job, *each)]


@contextmanager
def launched() -> Generator[Ranks]:
    """Start the processes as a launcher does: only their environment tells them what they are."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    processes = [
        ProcessPoolExecutor(
            1, mp_context=get_context("spawn"), initializer=_enter, initargs=(rank, port)
        )
        for rank in range(WORLD)
    ]
    try:
        yield Ranks(processes)
    finally:
        for process in processes:
            process.shutdown()


def _enter(rank: int, port: int) -> None:
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    told = {"RANK": rank, "WORLD_SIZE": WORLD, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in told.items():
        patch.setenv(name, str(value))


# ---------------------------------------------------------------------------- jobs


def shard(
    *,
    seeds: Sequence[int] = range(5),
    fail: Collection[int] = (),
    die: Collection[int] = (),
    checkpoint: Path | None = None,
    progress: bool = False,
    **settings: Any,
) -> Outcome:
    """Calibrate a toy; at the seeds `fail` its sampler fails, at `die` the process ends."""
    toy, ran, said = Toy(), [], io.StringIO()
    draw = sampler(toy)

    def run(seed: int) -> list[Tensor]:
        if seed in die:
            os._exit(3)
        if seed in fail:
            raise ValueError(f"no noise for seed {seed}")
        before = len(toy.journal.computed["blocks.0.attn"])
        latents = draw(seed)
        if len(toy.journal.computed["blocks.0.attn"]) > before + 1:  # else it was only looked at
            ran.append(seed)
        return latents

    of_sampler = {key: settings.pop(key) for key in SAMPLER & settings.keys()}
    given = silent(toy, run, **of_sampler)
    settings = {"max_lag": 3} | settings
    with redirect_stderr(said):
        calibration = calibrate(
            given, seeds=seeds, checkpoint=checkpoint, progress=progress, sharded=True, **settings
        )
    group = distributed.is_initialized()
    return Outcome(
        calibration=calibration, ran=[*dict.fromkeys(ran)], said=said.getvalue(), group=group
    )


def shard_in_a_group(*, file: Path, rank: int, **settings: Any) -> Outcome:
    """Calibrate in a process group of the user."""
    distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=WORLD)
    try:
        return shard(**settings)
    finally:
        distributed.destroy_process_group()


def sampler(toy: Toy) -> Callable[[int], list[Tensor]]:
    """Return a sampler of `toy` whose runs are alike, signatures of calls included."""

    def run(seed: int) -> list[Tensor]:
        toy.journal.call = -1
        return sample(toy, latent=noise(seed))

    return run
