"""What the scripts that train the small shipped models share."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from tools.bench.records import command

Loss = Callable[[], Tensor]
Report = Callable[[], None]


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


@dataclass
class Training:
    """Everything that a checkpoint holds."""

    model: Any
    average: Any
    optimizers: dict[str, torch.optim.Optimizer]
    step: int = 0
    seconds: float = 0.0
    loss: float = 0.0

    def __post_init__(self) -> None:
        self.following = averaging(self.average)

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        numbers = {"step": self.step, "seconds": self.seconds, "loss": self.loss}
        parts = {name: getattr(self, name).state_dict() for name in ("model", "average")}
        states = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        random = torch.get_rng_state()
        save_atomically(path, numbers | parts | {"optimizers": states, "random": random})

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        saved = torch.load(path, weights_only=True)
        for name in ("model", "average"):
            getattr(self, name).load_state_dict(saved[name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(saved["optimizers"][name])
        self.step, self.seconds, self.loss = saved["step"], saved["seconds"], saved["loss"]
        self.following.optimization_step = self.step
        torch.set_rng_state(saved["random"])

    def numbers(self) -> dict[str, Any]:
        """What the record says of every training."""
        count = sum(value.numel() for value in self.model.parameters() if value.requires_grad)
        row: dict[str, Any] = {"steps": self.step, "seconds": round(self.seconds, 1)}
        row["final_loss"] = round(self.loss, 5)
        return row | {"parameters": count}

    def advance(self, losses: Sequence[Loss], progress: float) -> None:
        """One step down the gradient of the mean of losses; the averaged weights follow."""
        weights = [w for optimizer in self.optimizers.values() for w in learned(optimizer)]
        mean = descend(losses, weights)
        nn.utils.clip_grad_norm_(weights, 1.0)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(progress, peak=group["peak"])
            optimizer.step()
        self.step += 1
        self.loss += max(0.005, 1 / self.step) * (mean - self.loss)
        self.following.step(self.model.parameters())


def learned(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The weights that an optimizer moves."""
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def new_training(
    model: Any, average: Any, optimizers: dict[str, torch.optim.Optimizer]
) -> Training:
    """A training of `model`, whose averaged weights `average` keeps."""
    average.load_state_dict(model.state_dict())
    return Training(model, average.requires_grad_(False), optimizers)


def adam(weights: Iterable[nn.Parameter], peak: float) -> dict[str, torch.optim.Optimizer]:
    """Adam at a highest learning rate of `peak`."""
    group = {"params": list(weights), "peak": peak}
    return {"adam": torch.optim.AdamW([group], betas=(0.9, 0.95), weight_decay=0.0)}


def fit(training: Training, budget: Budget, losses: Sequence[Loss], report: Report) -> None:
    """Train until the budget is used up; report every five minutes and at the end."""
    last = budget.seconds()
    with tqdm(total=budget.steps, initial=training.step, mininterval=10) as bar:
        while (progress := budget.progress(training.step)) < 1:
            training.advance(losses, progress)
            training.seconds = budget.seconds()
            bar.update()
            bar.set_postfix(loss=f"{training.loss:.4f}", refresh=False)
            if training.seconds - last > 300:
                last = training.seconds
                report()
    report()
