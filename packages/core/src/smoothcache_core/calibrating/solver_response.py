"""What a solver makes of the denoiser's outputs, learned from the outside.

Solvers and guidance are affine in the denoiser's outputs: with everything else as it was, changing
output y_p of conditioning pass p at evaluation j by r moves the latent of evaluation i + 1 by
m[i, j] w[j, p] r, with the same numbers for all entries of the latent. One run in which every
output is replayed with random noise added, and a least-squares fit, give all these numbers, for
any solver, multistep and stochastic ones included (the same seed draws the same noise).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothcache_core.calibration.response import Response
from smoothcache_core.calls.clock import Tick
from smoothcache_core.errors import CalibrationError
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.outputs.structures import Structure, denoised
from smoothcache_core.sampling.recording import record
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.sampling.trajectory import Trajectory

AFFINE = 1e-2
"""Largest relative residual of the solver's response; above, it is not affine in the outputs. An
affine solver leaves what rounding does; one that clips, rescales or draws noise from elsewhere
leaves more."""


_AFFINE_COARSE = 5e-2  # where half precision rounds the latents, by up to 4e-3 in bfloat16


_AMPLITUDE = 0.3  # of the outputs' own size: well above rounding; an affine solver takes any


_AMPLITUDE_COARSE = 4.0  # likewise in half precision, whose rounding would hide less


_ENTRIES = 16384  # of a large latent: each is an equation for the same few hundred unknowns


_EQUATIONS = 2.0  # per unknown, at least, so that the residual can tell a solver that is not affine


_STRONG = (
    1.02  # least strength of guidance that tells its passes apart; rounding makes less than 1 %
)

_SURE = 5.0  # standard deviations, which chance exceeds once in 10^6; below, it is taken for 0


class Overwritten(CalibrationError):
    """The sampler overwrites entries of its latents in every step, as inpainting does.

    Attributes:
        entries: The others, ascending; the same in every sample.
    """

    def __init__(self, entries: Tensor) -> None:
        super().__init__(
            "the sampler overwrites a part of its latents in every step, as inpainting does"
        )
        self.entries = entries


class OtherFinal(CalibrationError):
    """The final latent is not what the last step makes of its latent and outputs, entry by entry.

    So it is where a pipeline has scaled its channels by numbers of their own, has other dimensions
    first, or has left frames out before its decoder gets it. All other steps are known.
    """

    def __init__(self) -> None:
        super().__init__(
            "the final latent that `run` returns was scaled, clipped or laid out in another way "
            "than the latents that the denoiser is given, so what the last evaluation does to it "
            "is not known"
        )


def responding(sampler: Sampler, plain: Trajectory) -> tuple[Trajectory, Response]:
    """Return a trajectory without entries that the sampler overwrites, and the solver.

    Its final latent is left out where it is unlike the others.

    Raises:
        CalibrationError: See `measure_response`.
    """
    try:
        return plain, measure_response(sampler, plain)
    except OtherFinal:
        return responding(sampler, replace(plain, final=None))
    except Overwritten as overwritten:
        return responding(sampler, plain.only(overwritten.entries))


def measure_response(sampler: Sampler, plain: Trajectory) -> Response:
    """Learn the solver from replays of one plain trajectory; the model is not called.

    Raises:
        CalibrationError: Two runs of one seed differ, or the solver is not affine.
        Overwritten: It is not affine, and leaves entries of the latents as they are.
        OtherFinal: It is affine but for its last step.
    """
    evaluations, parts, entries = plain.outputs.shape
    chosen = chosen_entries(entries)
    passes = int(np.ceil(_EQUATIONS * evaluations * parts / len(chosen)))
    noises, changes = [], []
    moving = torch.zeros(entries, dtype=torch.bool)
    for number in range(passes):
        noise = _Noise(plain, number)
        run = record(sampler, plain.seed, noise.reply, like=plain)
        _refuse_unlike(plain, run)
        noises.append(torch.stack([noise.of(i)[:, chosen] for i in range(evaluations)]))
        moved = _moved(plain, run)
        changes.append(moved[:, chosen])
        moving |= moved[: max(evaluations - 1, 1)].any(dim=0)  # the end may be laid out otherwise
    response = _fit(torch.cat(noises, dim=2).double(), torch.cat(changes, dim=1).double())
    most = _AFFINE_COARSE if _is_coarse(plain) else AFFINE
    if not response.residual <= most:
        if plain.final is not None and evaluations > 1:
            changes = [torch.cat((each[:-1], torch.zeros_like(each[-1:]))) for each in changes]
            before = _fit(torch.cat(noises, dim=2).double(), torch.cat(changes, dim=1).double())
            if before.residual <= most:
                raise OtherFinal
        left = _in_any_sample(moving, sampler.samples)
        if plain.entries is None and 0 < len(left) < entries:
            raise Overwritten(left)
        raise CalibrationError(
            "the solver is not affine in the denoiser's outputs (relative residual "
            f"{response.residual:.2g}), so errors cannot be predicted: it clips or rescales "
            "latents, or uses noise that does not come from the seed"
        )
    return response


def _in_any_sample(moving: Tensor, samples: int) -> Tensor:
    """Return the entries, (n,), that move in any of the samples, as many in each."""
    return moving.reshape(samples, -1).any(dim=0).repeat(samples).nonzero().flatten()


def _is_coarse(plain: Trajectory) -> bool:
    """Return whether latents or outputs are in half precision."""
    call = plain.calls[0]
    dtypes = call.latent.dtype, call.answer.signal(call.latent, plain.part).dtype
    return any(torch.finfo(dtype).eps > 1e-4 for dtype in dtypes if dtype.is_floating_point)


def _moved(plain: Trajectory, run: Trajectory) -> Tensor:
    """Return how far every latent after an evaluation moved, (E, n); 0 at the end if not known."""
    end = torch.zeros_like(plain.end) if plain.final is None else run.end - plain.end
    return torch.cat(((run.latents - plain.latents)[1:], end[None]))


def chosen_entries(entries: int) -> Tensor:
    """Return which entries of a latent to look at; all of a small one."""
    generator = torch.Generator().manual_seed(0)
    return torch.randperm(entries, generator=generator)[:_ENTRIES]


class _Noise:
    """Replays a trajectory with noise added to every output."""

    def __init__(self, plain: Trajectory, number: int) -> None:
        self._plain = plain
        self._number = number
        amplitude = _AMPLITUDE_COARSE if _is_coarse(plain) else _AMPLITUDE
        self._size = amplitude * float(plain.outputs.square().mean().sqrt())

    def of(self, evaluation: int) -> Tensor:
        """Return the noise of one evaluation, (parts, n)."""
        _, parts, entries = self._plain.outputs.shape
        generator = torch.Generator().manual_seed(evaluation + 1000003 * self._number)
        return self._size * torch.randn(parts, entries, generator=generator)

    def reply(self, number: int, tick: Tick, model: Callable[[], Any]) -> Structure:
        del model
        return changed(self._plain, number, self.of(tick.evaluation))


def changed(plain: Trajectory, number: int, change: Tensor) -> Structure:
    """Return the recorded answer to call `number` with `change`, (parts, n), added."""
    if number >= len(plain.calls):
        raise _differs(plain)
    call = plain.calls[number]
    calls = len(plain.calls) // plain.evaluations
    own = change if calls == 1 else change[number % calls : number % calls + 1]
    shape = denoised(call.latent, plain.part).shape
    return call.answer.plus(plain.spread(own).reshape(shape), call.latent, plain.part)


def _refuse_unlike(plain: Trajectory, run: Trajectory) -> None:
    same = run.outputs.shape == plain.outputs.shape
    if not same or not torch.equal(run.latents[0], plain.latents[0]):
        raise _differs(plain)


def _differs(plain: Trajectory) -> CalibrationError:
    return CalibrationError(
        f"two runs of seed {plain.seed} differ; derive all randomness from the seed, including the "
        "noise of a stochastic solver (pass a seeded generator)"
    )


def _fit(noise: Tensor, changes: Tensor) -> Response:
    """Fit changes (E, m) of the latents after each evaluation to noise (E, parts, m)."""
    evaluations, parts, entries = noise.shape
    flat = noise.reshape(evaluations * parts, entries)
    basis, triangle = torch.linalg.qr(flat.T)  # the first columns span the first regressors
    seen = basis.T @ changes.T
    full = torch.zeros(evaluations, evaluations, parts, dtype=torch.float64)
    left = torch.zeros(evaluations, dtype=torch.float64)
    for i in range(evaluations):
        k = (i + 1) * parts
        solved = torch.linalg.solve_triangular(triangle[:k, :k], seen[:k, i : i + 1], upper=True)
        full[i, : i + 1] = solved.reshape(i + 1, parts)
        left[i] = (changes[i] - flat[:k].T @ solved[:, 0]).square().sum()
    variance = left / (entries * noise.square().mean()) / (entries - parts * evaluations)
    both = full.sum(dim=2)
    sure = both.square() > _SURE**2 * parts * variance[:, None]
    return Response(
        matrix=torch.where(sure, both, 0.0).numpy(),
        weights=_weights(full, float(variance.sum())).numpy(),
        residual=float((left.sum() / changes.square().sum().clamp(min=1e-300)).sqrt()),
    )


def _weights(full: Tensor, variance: float) -> Tensor:
    """Return the share of each pass in the effect of an evaluation, (E, parts).

    The shares are those of all later latents, as an evaluation may act late only. Where it hardly
    acts at all, they are the mean of the others.

    Args:
        full: (E, E, parts), the matrix by passes.
        variance: Of the entries of a column, added up.
    """
    both = full.sum(dim=2)
    shares = torch.einsum("ij,ijp->jp", both, full)
    sizes = both.square().sum(dim=0)[:, None]
    equal = torch.full_like(shares[0], 1.0 / full.shape[2])
    mean = shares.sum(dim=0) / sizes.sum() if sizes.any() else equal
    doubt = _SURE**2 * full.shape[2] * variance + 1e-300
    found = (shares + doubt * mean) / (sizes + doubt)
    return found / found.sum(dim=1, keepdim=True)


def conditional_half(weights: Array) -> int | None:
    """Return which half of a guided batch is conditional, as the weights of the halves tell.

    Guidance of strength w above 1 gives the conditional half the weight w, and the other 1 - w.

    Args:
        weights: Of the halves in every evaluation, (E, 2).

    Returns:
        Its index; None where no half has a weight above 1, as with guidance below or about 1.
    """
    typical = np.median(weights, axis=0)
    return int(typical.argmax()) if typical.max() > _STRONG else None


def guided(response: Response, outputs: Tensor) -> Tensor:
    """Return the guided outputs, (E, n), of the outputs of all passes, (E, parts, n)."""
    weights = torch.from_numpy(response.weights).to(outputs)
    return torch.einsum("ep,epn->en", weights, outputs)


def drift(response: Response, evaluation: int, changes: Tensor) -> Tensor:
    """Return the change of the latent of `evaluation`, (n,).

    Args:
        response: What the solver makes of changes.
        evaluation: From 0 to E, where E is the final sample.
        changes: Changes of the guided outputs made so far, (evaluation, n) or more.
    """
    if not evaluation:
        return torch.zeros_like(changes[0])
    row = torch.from_numpy(response.matrix[evaluation - 1, :evaluation]).to(changes)
    return row @ changes[:evaluation]
