"""One recorded run: latents, outputs and calls in order."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothcache_core.errors import CalibrationError, SamplerError
from smoothcache_core.outputs.structures import Structure


@dataclass(frozen=True, kw_only=True)
class CallRecord:
    """One call of the denoiser in a run.

    Attributes:
        evaluation: The evaluation that it belongs to, from 0.
        branch: Its conditioning pass; empty where all passes are one call.
        latent: The latent that it was given, (rows, ...).
        answer: A copy of its output.
        seconds: How long the model took, None if it was not asked.
    """

    evaluation: int
    branch: str
    latent: Tensor
    answer: Structure
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """A recorded run.

    Attributes:
        seed: Seed of the noise that it began with.
        calls: Every call of the denoiser.
        parts: Conditioning passes of an evaluation: calls of their own, or halves of the batch.
        latents: The latent at every evaluation, (E, n) float32 on the CPU; n counts all samples.
        outputs: The denoiser's output, (E, parts, n).
        final: The final latent, (n,); None if it is not known.
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


def trajectory(seed: int, calls: Sequence[CallRecord], final: Tensor | None) -> Trajectory:
    """Arrange the calls of a run, and its final latent, by evaluation and conditioning pass."""
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
        final=flat_final(final, latents.shape[1]),
    )


def is_doubled(latent: Tensor) -> bool:
    """Return whether the latent is the same batch twice, as batched guidance makes it."""
    rows = latent.shape[0]
    return rows % 2 == 0 and torch.equal(latent[: rows // 2], latent[rows // 2 :])


def _flat(rows: Tensor, halves: bool) -> Tensor:
    """Return (parts, n) float32 on the CPU."""
    return rows.float().reshape(2 if halves else 1, -1).cpu()


def flat_final(final: Tensor | None, entries: int) -> Tensor | None:
    """Return a final latent as (entries,); None if it is not known.

    Raises:
        SamplerError: It has another number of entries than the denoiser's latent.
    """
    if final is None:
        return None
    if final.numel() != entries:
        raise SamplerError(
            f"a sampler's `run` must return the final latent, of {entries} entries as the latent "
            "that the model is called with, or None if it cannot be had; it returned a tensor of "
            f"shape {tuple(final.shape)}"
        )
    return final.detach().float().reshape(-1).cpu()
