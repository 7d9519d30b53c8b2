"""Running a sampler while the calls of its denoiser are recorded, replayed or changed.

The sampler is a black box, `sample(seed)`. What can be done with it is to answer the denoiser's
calls: with what the model says, with what it said before, or with something else. That is enough to
learn all that planning needs to know of a solver, see `_response.py`.
"""

import functools
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from smoothcache_core._calls import CallReader
from smoothcache_core._clock import Clock, Scheduler, Tick, listening
from smoothcache_core._errors import CalibrationError
from smoothcache_core._placing import instance_place
from smoothcache_core._sites import Adapter
from smoothcache_core._tensors import synchronize

Sample = Callable[[int], object]
Around = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class Stop(BaseException):
    """Ends a run of the sampler early; not an `Exception`, so that nobody handles it."""


@contextmanager
def layered(model: nn.Module, around: Around) -> Generator[None]:
    """Put `around` between the callers of `model` and its forward; undo on leaving."""
    place = instance_place(model) or "forward"
    before = model.__dict__.get(place)
    call = getattr(model, place)

    @functools.wraps(call)
    def layer(*args: Any, **kwargs: Any) -> Any:
        return around(call, args, kwargs)

    model.__dict__[place] = layer
    try:
        yield
    finally:
        if before is None:
            del model.__dict__[place]
        else:
            model.__dict__[place] = before


@dataclass(frozen=True)
class Answer:
    """A copy of one output of the denoiser, in the structure in which it gave it."""

    leaves: tuple[Any, ...]
    spec: TreeSpec

    @classmethod
    def of(cls, output: Any) -> "Answer":
        """Copy an output."""
        leaves, spec = tree_flatten(output)
        return cls(tuple(_copy(leaf) for leaf in leaves), spec)

    @property
    def bytes(self) -> int:
        """Bytes of its tensors."""
        tensors = [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def output(self) -> Any:
        """Return a fresh output."""
        return tree_unflatten([_copy(leaf) for leaf in self.leaves], self.spec)

    def plus(self, change: Tensor) -> "Answer":
        """Return the answer with `change`, shaped like the latent, added to its first channels."""
        leaves = list(self.leaves)
        places = [i for i, leaf in enumerate(leaves) if _is_floating(leaf)]
        if leaves[places[0]].dim() == change.dim():
            leaf = leaves[places[0]] = leaves[places[0]].clone()
            leaf.narrow(1, 0, change.shape[1]).add_(change.to(leaf))
        else:
            for place, row in zip(places, change, strict=True):
                leaves[place] = leaves[place] + row.to(leaves[place])
        return Answer(tuple(leaves), self.spec)

    def signal(self, latent: Tensor) -> Tensor:
        """Return what the solver uses of the answer, in the shape of `latent`, (rows, ...).

        Models that also predict a variance give more channels than they take.

        Raises:
            CalibrationError: The output is not like the latent.
        """
        tensors = [leaf for leaf in self.leaves if _is_floating(leaf)]
        if not tensors:
            raise CalibrationError("the denoiser's output holds no floating-point tensor")
        first = tensors[0] if tensors[0].dim() == latent.dim() else torch.stack(tensors)
        if first.dim() > 2 and first.shape[1] > latent.shape[1]:
            first = first.narrow(1, 0, latent.shape[1])
        if first.shape != latent.shape:
            raise CalibrationError(
                f"the denoiser's output of shape {tuple(first.shape)} is not like its latent of "
                f"shape {tuple(latent.shape)}; plan for sites instead of the denoiser"
            )
        return first


def _copy(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


@dataclass(frozen=True, kw_only=True)
class CallRecord:
    """One call of the denoiser in a run.

    Attributes:
        evaluation: Its evaluation.
        branch: Its conditioning pass.
        latent: What it was given, (rows, ...).
        answer: What it said.
        seconds: How long the model took, None if it was not asked.
    """

    evaluation: int
    branch: str
    latent: Tensor
    answer: Answer
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """A recorded run.

    Attributes:
        seed: Its seed.
        calls: Every call of the denoiser.
        parts: Conditioning passes of an evaluation: calls of their own, or halves of the batch.
        latents: The latent at every evaluation, (E, n) float32 on the CPU; n counts all samples.
        outputs: The denoiser's output, (E, parts, n).
        final: The final sample, (n,); None if `sample` returned nothing that is like a latent.
    """

    seed: int
    calls: tuple[CallRecord, ...]
    parts: int
    latents: Tensor
    outputs: Tensor
    final: Tensor | None

    @property
    def evaluations(self) -> int:
        """Evaluations of the run."""
        return len(self.latents)

    @property
    def end(self) -> Tensor:
        """The final sample, or the last latent that was seen, (n,)."""
        return self.latents[-1] if self.final is None else self.final


class Stage:
    """A model, and a sampler that calls it."""

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        sample: Sample,
        branches: Sequence[str] = (),
        scheduler: Scheduler | None = None,
    ) -> None:
        self.model = model
        self.adapter = adapter
        self.sample = sample
        self.branches = tuple(branches)
        self.scheduler = scheduler
        self._reader = CallReader(model, adapter)

    @torch.no_grad()
    def run(self, seed: int, reply: "Reply | None" = None) -> tuple[list[CallRecord], object]:
        """Run the sampler and record every call; `reply` may answer instead of the model.

        Returns:
            The calls, and what `sample` returned; None if it was stopped.
        """
        clock = Clock(branches=self.branches)
        calls: list[CallRecord] = []

        def around(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            evidence = self._reader.read(args, kwargs, clock.context)
            tick = clock.tick(evidence)
            latent = rows_of(self._reader.latent(args, kwargs)).detach().clone()
            model = functools.partial(call, *args, **kwargs)
            answer = None if reply is None else reply(len(calls), tick, model)
            seconds = None
            if answer is None:
                output, seconds = _timed(model, latent.device)
                answer = Answer.of(output)
            else:
                output = answer.output()
            calls.append(
                CallRecord(
                    evaluation=tick.evaluation,
                    branch=tick.branch,
                    latent=latent,
                    answer=answer,
                    seconds=seconds,
                )
            )
            return output

        with layered(self.model, around), listening(clock, self.model, self.scheduler):
            try:
                result = self.sample(seed)
            except Stop:
                result = None
        return calls, result

    def record(self, seed: int, reply: "Reply | None" = None) -> Trajectory:
        """Run the sampler to its end and return the trajectory.

        Raises:
            CalibrationError: The denoiser was not called, or its output is not like its latent.
        """
        calls, result = self.run(seed, reply)
        if not calls:
            raise CalibrationError(f"`sample` never called the {type(self.model).__name__}")
        return trajectory(seed, calls, result)


Reply = Callable[[int, Tick, Callable[[], Any]], Answer | None]
"""Gives the answer to a call from its number, its place, and a function that asks the model; None
for what the model says."""


def trajectory(seed: int, calls: Sequence[CallRecord], result: object) -> Trajectory:
    """Arrange the calls of a run by evaluation and conditioning pass."""
    branches = list(dict.fromkeys(call.branch for call in calls))
    evaluations = calls[-1].evaluation + 1
    if len(calls) != evaluations * len(branches):
        raise CalibrationError(
            f"the run had {len(calls)} calls in {evaluations} evaluations of {len(branches)} "
            "conditioning passes; every pass must be evaluated every time"
        )
    first = [call for call in calls if call.branch == branches[0]]
    halves = len(branches) == 1 and all(is_doubled(call.latent) for call in first)
    parts = 2 if halves else len(branches)
    latents = torch.stack([_flat(call.latent, halves)[0] for call in first])
    outputs = [
        torch.cat(
            [
                _flat(call.answer.signal(call.latent), halves)
                for call in calls
                if call.evaluation == evaluation
            ]
        )
        for evaluation in range(evaluations)
    ]
    return Trajectory(
        seed=seed,
        calls=tuple(calls),
        parts=parts,
        latents=latents,
        outputs=torch.stack(outputs),
        final=final_of(result, latents.shape[1]),
    )


def _timed(model: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """Call the model; return its output and the seconds it took."""
    synchronize(device)
    start = time.perf_counter()
    output = model()
    synchronize(device)
    return output, time.perf_counter() - start


def is_doubled(latent: Tensor) -> bool:
    """Return whether the latent is the same batch twice, as batched guidance makes it."""
    rows = latent.shape[0]
    return rows % 2 == 0 and torch.equal(latent[: rows // 2], latent[rows // 2 :])


def rows_of(latent: Any) -> Tensor:
    """Return the latent as one tensor, (rows, ...).

    Raises:
        CalibrationError: It is a list of tensors of several shapes, or holds none.
    """
    if isinstance(latent, Tensor):
        return latent
    rows = [row for row in latent or () if isinstance(row, Tensor)]
    shapes = sorted({tuple(row.shape) for row in rows})
    if len(shapes) != 1:
        raise CalibrationError(f"the latents of a batch must be of one shape, got {shapes}")
    return torch.stack(rows)


def _flat(rows: Tensor, halves: bool) -> Tensor:
    """Return (parts, n) float32 on the CPU."""
    return rows.float().reshape(2 if halves else 1, -1).cpu()


def final_of(result: object, entries: int) -> Tensor | None:
    """Return what `sample` returned as (n,) if it is like a latent, else None."""
    if not isinstance(result, Tensor) or result.numel() != entries:
        return None
    return result.detach().float().reshape(-1).cpu()
