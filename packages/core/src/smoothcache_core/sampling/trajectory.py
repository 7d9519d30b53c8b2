"""One recorded run: latents, outputs and calls in order."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from smoothcache_core.adapters.latent_part import LatentPart
from smoothcache_core.errors import CalibrationError, SamplerError
from smoothcache_core.outputs.structures import Structure, denoised
from smoothcache_core.sampling.latent_part import found_part, passes_in


@dataclass(frozen=True, kw_only=True)
class CallRecord:
    """One call of the denoiser in a run.

    Attributes:
        evaluation: The evaluation that it belongs to, from 0.
        branch: Its conditioning pass; empty where all passes are one call.
        latent: The latent that it was given, (rows, ...).
        answer: A copy of its output.
        seconds: How long the model took, None if it was not asked.
        timestep: The timestep that it was given, on a device maybe; None if it was given none, or
            nobody looked.
    """

    evaluation: int
    branch: str
    latent: Tensor
    answer: Structure
    seconds: float | None = None
    timestep: float | Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """A recorded run.

    Attributes:
        seed: Seed of the noise that it began with.
        calls: Every call of the denoiser.
        part: What of the latent argument is denoised, all else being a condition; None for all of
            it. Everything below is of that part.
        parts: Conditioning passes of an evaluation: calls of their own, or halves of the batch.
        latents: The latent at every evaluation, (E, n) float32 on the CPU; n counts all samples.
        outputs: The denoiser's output, (E, parts, n).
        final: The final latent, (n,); None if it is not known.
        entries: Which entries of the part these n are, where the sampler overwrites all others in
            every step, as inpainting does; None for all of them.
    """

    seed: int
    calls: tuple[CallRecord, ...]
    part: LatentPart | None
    parts: int
    latents: Tensor
    outputs: Tensor
    final: Tensor | None
    entries: Tensor | None = None

    def only(self, entries: Tensor) -> "Trajectory":
        """Return it with some of its entries, (n,), in all vectors."""
        return replace(
            self,
            latents=self.latents[:, entries],
            outputs=self.outputs[..., entries],
            final=None if self.final is None else self.final[entries],
            entries=entries,
        )

    def taken(self, vectors: Tensor) -> Tensor:
        """Return its entries, (..., n), of vectors of the whole part."""
        return vectors if self.entries is None else vectors[..., self.entries]

    def spread(self, vectors: Tensor) -> Tensor:
        """Return vectors of the whole part that are 0 but for its entries, (..., n) of them."""
        if self.entries is None:
            return vectors
        size = denoised(self.argument, self.part).numel()
        whole = torch.zeros(*vectors.shape[:-1], size)
        whole[..., self.entries] = vectors
        return whole

    def with_entries(self, latent: Tensor, vector: Tensor) -> Tensor:
        """Return a latent argument of a call with other entries, (n,), in every pass of it.

        Args:
            latent: As a call was given it, (rows, ...).
            vector: What its denoised entries are to be.
        """
        changed = latent.clone()
        own = denoised(changed, self.part)
        passes = self.parts * self.evaluations // len(self.calls)
        rows = own.reshape(passes, -1).clone()
        if self.entries is None:
            rows[:] = vector.to(rows)
        else:
            rows[:, self.entries.to(rows.device)] = vector.to(rows)
        own.copy_(rows.reshape(own.shape))
        return changed

    @property
    def evaluations(self) -> int:
        """Evaluations of the run."""
        return len(self.latents)

    @property
    def timesteps(self) -> tuple[float, ...] | None:
        """The timestep of every evaluation, (E,), read from the device; None if one has none."""
        calls = self.calls[:: len(self.calls) // self.evaluations]
        known = [float(call.timestep) for call in calls if call.timestep is not None]
        return tuple(known) if len(known) == self.evaluations else None

    @property
    def argument(self) -> Tensor:
        """The latent argument of one conditioning pass at the first evaluation, (samples, ...)."""
        calls = len(self.calls) // self.evaluations
        latent = self.calls[0].latent
        return latent[: len(latent) * calls // self.parts]

    @property
    def end(self) -> Tensor:
        """The final sample, or the last latent that was seen, (n,)."""
        return self.latents[-1] if self.final is None else self.final


Known = LatentPart | Literal["all"] | None
"""What is known of the part that is denoised: it, that it is all of the latent, or nothing."""


def trajectory(
    seed: int,
    calls: Sequence[CallRecord],
    final: Tensor | None,
    *,
    samples: int = 1,
    part: Known = None,
) -> Trajectory:
    """Arrange the calls of a run, and its final latent, by evaluation and conditioning pass.

    Args:
        seed: Seed of the run.
        calls: Every call of the denoiser, in order.
        final: The final latent, (samples, ...), if it is known.
        samples: Samples of the run.
        part: What of the latent argument is denoised, if that is known; found out if not.

    Raises:
        CalibrationError: The calls are not alike, or it is not sure what is denoised.
        SamplerError: The final latent is not like the latent argument.
    """
    branches = list(dict.fromkeys(call.branch for call in calls))
    evaluations = calls[-1].evaluation + 1
    if len(calls) != evaluations * len(branches):
        raise CalibrationError(
            f"the run had {len(calls)} calls in {evaluations} evaluations of {len(branches)} "
            "conditioning passes; every pass must be evaluated every time, so guidance must not be "
            "switched in a run"
        )
    first = [call for call in calls if call.branch == branches[0]]
    _check_alike(first)
    if part is None:
        part = found_part([call.latent for call in first], first[0].answer) or "all"
    own = None if part == "all" else part
    seen = [_denoised(call.latent, own) for call in first]
    repeated = {passes_in(latent, samples) for latent in seen} if len(branches) == 1 else {1}
    passes = repeated.pop() if len(repeated) == 1 else 1
    _check_passes(calls[: len(branches)], own)
    outputs = [
        torch.cat(
            [
                _flat(call.answer.signal(call.latent, own), passes)
                for call in calls
                if call.evaluation == evaluation
            ]
        )
        for evaluation in range(evaluations)
    ]
    latents = torch.stack([_flat(latent, passes)[0] for latent in seen])
    own_final = flat_final(final, first[0].latent[: len(seen[0]) // passes], own)
    return Trajectory(
        seed=seed,
        calls=tuple(calls),
        part=own,
        parts=passes if len(branches) == 1 else len(branches),
        latents=latents,
        outputs=torch.stack(outputs),
        final=own_final,
    )


def _check_alike(calls: Sequence[CallRecord]) -> None:
    """Refuse calls of one conditioning pass whose batches or latents are of several sizes.

    Raises:
        CalibrationError: They are.
    """
    first = calls[0]
    other = next((call for call in calls if call.latent.shape != first.latent.shape), None)
    if other is None:
        return
    one, two = tuple(first.latent.shape), tuple(other.latent.shape)
    why = (
        "guidance must not be switched in a run, nor make further calls in a part of it"
        if one[1:] == two[1:]
        else "latents must be of one size"
    )
    raise CalibrationError(
        f"the denoiser is given a latent of shape {two} at evaluation {other.evaluation} of the "
        f"run, and {one} at the first; {why}"
    )


def _check_passes(calls: Sequence[CallRecord], part: LatentPart | None) -> None:
    """Refuse conditioning passes of which some are batched and others are not.

    Raises:
        CalibrationError: They are so.
    """
    rows = [len(_denoised(call.latent, part)) for call in calls]
    if len(set(rows)) > 1:
        raise CalibrationError(
            f"the calls of one evaluation have {rows} rows: guidance batches some of its passes "
            "and makes calls of their own for others, so what the solver makes of each is not "
            "known; sample without the further kinds of guidance, or skip by a published rule"
        )


def _denoised(latent: Tensor, part: LatentPart | None) -> Tensor:
    if part is not None and not part.fits(latent.shape[1:]):
        raise SamplerError(
            f"the sampler says that {part} is denoised, which a latent of shape "
            f"{tuple(latent.shape)} does not have"
        )
    return denoised(latent, part)


def _flat(rows: Tensor, passes: int) -> Tensor:
    """Return (passes, n) float32 on the CPU."""
    return rows.float().reshape(passes, -1).cpu()


def flat_final(
    final: Tensor | None, latent: Tensor, part: LatentPart | None = None
) -> Tensor | None:
    """Return what is denoised of a final latent, (n,); None if it is not known.

    Args:
        final: The final latent, (samples, ...), or what is denoised of it.
        latent: A latent argument of one pass, (samples, ...).
        part: What of it is denoised; None for all of it.

    Raises:
        SamplerError: It has another number of entries than the denoiser's latent.
    """
    if final is None:
        return None
    own = denoised(latent, part)
    if part is not None and final.numel() == latent.numel():
        final = denoised(final.reshape(latent.shape), part)
    if final.numel() != own.numel():
        what = "the latent" if part is None else f"{part} of the latent, or all of it,"
        raise SamplerError(
            f"a sampler's `run` must return the final latent, of {own.numel()} entries as {what} "
            "that the model is called with, or None if it cannot be had; it returned a tensor of "
            f"shape {tuple(final.shape)}"
        )
    return final.detach().float().reshape(-1).cpu()
