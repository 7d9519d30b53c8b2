"""What the scripts that train the small shipped models share."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from tools.bench.records import command

Loss = Callable[[], Tensor]


@dataclass
class Budget:
    """How far training has come: by steps or by the clock, whichever is further."""

    minutes: float
    steps: int
    before: float = 0.0
    start: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Seconds spent so far, those of an interrupted run included."""
        return self.before + time.monotonic() - self.start

    def progress(self, step: int) -> float:
        """Part of the training that is done, 0 to 1."""
        return min(1.0, max(step / self.steps, self.seconds() / (60 * self.minutes)))


def learning_rate(progress: float, peak: float, floor: float = 1e-5, warm: float = 0.02) -> float:
    """Linear warm-up to `peak`, then half a cosine down to `floor`."""
    if progress < warm:
        return floor + (peak - floor) * progress / warm
    along = (progress - warm) / (1 - warm)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * along))


def descend(losses: Sequence[Loss], weights: list[nn.Parameter]) -> float:
    """Set the gradient of the mean of losses, each in a thread of its own; return the mean.

    On small matrices two such threads are twice as fast as one, unlike the threads inside torch.
    Modules with `weight_norm` bear one loss only: they keep a weight that all threads would share.
    """

    def one(loss: Loss) -> tuple[float, tuple[Tensor, ...]]:
        value = loss()
        return value.item(), torch.autograd.grad(value, weights)

    with ThreadPoolExecutor(len(losses)) as pool:
        values, gradients = zip(*pool.map(one, losses), strict=True)
    for weight, *parts in zip(weights, *gradients, strict=True):
        weight.grad = torch.stack(parts).mean(dim=0)
    return sum(values) / len(values)


def averaging(average: nn.Module) -> EMAModel:
    """Return what moves the weights of `average` towards a model's, at each `step(parameters)`.

    At step n (from 1) the average keeps min(0.999, (1 + n) / (10 + n)) of itself.
    """
    # One step earlier than by default: the first step too goes only part of the way.
    made = EMAModel(average.parameters(), decay=0.999, update_after_step=-1)
    made.shadow_params = list(average.parameters())  # in place of copies of them
    return made


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def save_atomically(path: Path, value: Any) -> None:
    """`torch.save`, through a neighbouring temporary file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    torch.save(value, partial)
    partial.replace(path)


def keep_row(work: Path, row: dict[str, Any]) -> None:
    """Keep the numbers of a stage for the final record, replacing those of an earlier run."""
    row = {"stage": row["stage"], "command": command()} | row
    rows = [old for old in kept_rows(work) if old["stage"] != row["stage"]] + [row]
    write_atomically(work / "rows.json", json.dumps(rows, indent=2).encode())
    print(json.dumps(row))


def kept_rows(work: Path) -> list[dict[str, Any]]:
    """The numbers of all stages so far, in the order in which they were last run."""
    path = work / "rows.json"
    return json.loads(path.read_text()) if path.exists() else []
