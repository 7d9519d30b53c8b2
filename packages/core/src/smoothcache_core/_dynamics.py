"""What was learned of a run as a whole: the material of a `ReducedRun`, summed over samples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smoothcache_core._clock import Tick
from smoothcache_core._errors import CalibrationError
from smoothcache_core._exact import cut, joined
from smoothcache_core._reduced import ReducedRun
from smoothcache_core._response import Response, changed, measure_response
from smoothcache_core._trajectory import Answer, Stage, Trajectory

Array = NDArray[np.float64]

_CHUNK = 65536
_NOISY = 0.02  # of the latent; rounding leaves 1e-8, and 4e-3 in bfloat16


@dataclass(frozen=True, kw_only=True, eq=False)
class Dynamics:
    """Statistics of whole runs. Sums are exact, see `_exact.py`, so that merging has no order.

    Attributes:
        gram: Sums over samples of the mean products of the vectors of `ReducedRun`, (3, n, n).
        samples: Number of samples in `gram`.
        response: What the solver makes of the denoiser's outputs.
        response_seed: The seed it was measured with.
        moved: Sums of |dx|^2 over perturbed runs, (3, E), where dx is how far the latent moved.
        followed: Sums of dx . dy_p, (3, E, parts), where dy_p is the change of an output.
        strayed: Sums of |dy_p|^2, (3, E, parts).
        effects: Sums over perturbations of |change of the final sample| / |final sample| per root
            mean square of a change of the guided output, (3, E).
        effect_counts: Number of perturbations in `effects`, (E,).
        conditional: Index of the conditional pass, if the adapter says it.
        seconds: Seconds of one evaluation, all passes: the least median of a perturbed run; 0 if
            not known. As a mere timing it is left out of comparisons.
    """

    gram: Array
    samples: int
    response: Response
    response_seed: int
    moved: Array
    followed: Array
    strayed: Array
    effects: Array
    effect_counts: NDArray[np.int64]
    conditional: int | None
    seconds: float = 0.0

    @property
    def evaluations(self) -> int:
        """Evaluations of one run."""
        return len(self.response.weights)

    @property
    def measured(self) -> bool:
        """Whether the denoiser's feedback was measured."""
        return bool(self.effect_counts.any())

    def feedback(self) -> Array:
        """Return the change of an output per change of the latent, (E, parts); 0 if unknown."""
        followed = joined(self.followed)
        moved = np.broadcast_to(joined(self.moved)[:, None], followed.shape)
        return np.divide(followed, moved, out=np.zeros_like(followed), where=moved > 0)

    def explained(self) -> Array:
        """Return how much of the outputs' changes the feedback explains, (E, parts), 0 to 1."""
        whole = joined(self.moved)[:, None] * joined(self.strayed)
        known = joined(self.followed) ** 2
        return np.divide(known, whole, out=np.ones_like(whole), where=whole > 0)

    def effect(self) -> Array:
        """Return the effect of a change of the guided output on the final sample, (E,).

        Between the evaluations where it was measured, it is interpolated geometrically.
        """
        known = np.flatnonzero(self.effect_counts)
        if not len(known):
            raise CalibrationError(
                "this calibration measured no sensitivity; calibrate with `sensitivity=2`, say"
            )
        values = joined(self.effects)[known] / self.effect_counts[known]
        logs = np.log(np.maximum(values, 1e-12))
        return np.exp(np.interp(np.arange(self.evaluations), known, logs))

    def reduced(self) -> ReducedRun:
        """Return the reduced run."""
        mean = joined(self.gram) / self.samples
        return ReducedRun(mean, self.response, self.feedback(), self.conditional or 0)

    @cached_property
    def is_noisy(self) -> bool:
        """Whether the solver adds noise of its own on the way."""
        return self.reduced().noise > _NOISY

    def seconds_at(self, compute: float) -> float | None:
        """Return the seconds of a run that computes a fraction of it, if time were MACs alone."""
        return self.seconds * self.evaluations * compute or None

    # ------------------------------------------------------------------ merging and files

    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Self:
        """Return the statistics of all parts, the same in any order.

        Raises:
            CalibrationError: The runs have other evaluations or conditioning passes.
        """
        first = min(parts, key=lambda part: part.response_seed)
        shapes = {part.response.weights.shape for part in parts}
        if len(shapes) > 1:
            raise CalibrationError(
                "cannot merge calibrations: the runs have (evaluations, conditioning passes) "
                f"{sorted(shapes)}"
            )
        sums = ("gram", "moved", "followed", "strayed", "effects", "effect_counts")
        return cls(
            **{name: np.sum([getattr(part, name) for part in parts], axis=0) for name in sums},
            samples=sum(part.samples for part in parts),
            response=first.response,
            response_seed=first.response_seed,
            conditional=first.conditional,
            seconds=min((part.seconds for part in parts if part.seconds), default=0.0),
        )

    def arrays(self) -> dict[str, Array]:
        """Return everything as arrays, for a file."""
        names = ("gram", "moved", "followed", "strayed", "effects")
        found: dict[str, Any] = {f"dynamics.{name}": getattr(self, name) for name in names}
        return found | {
            "dynamics.effect_counts": self.effect_counts.astype(np.float64),
            "dynamics.matrix": self.response.matrix,
            "dynamics.weights": self.response.weights,
        }

    def header(self) -> dict[str, Any]:
        """Return everything that is no array, for a file."""
        return {
            "samples": self.samples,
            "response_seed": self.response_seed,
            "conditional": self.conditional,
            "residual": self.response.residual,
        }

    @classmethod
    def from_parts(cls, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> Self:
        """Return what `arrays` and `header` gave."""
        names = ("gram", "moved", "followed", "strayed", "effects")
        return cls(
            **{name: arrays[f"dynamics.{name}"] for name in names},
            effect_counts=arrays["dynamics.effect_counts"].astype(np.int64),
            samples=int(header["samples"]),
            response=Response(
                matrix=arrays["dynamics.matrix"],
                weights=arrays["dynamics.weights"],
                residual=float(header["residual"]),
            ),
            response_seed=int(header["response_seed"]),
            conditional=header["conditional"],
            seconds=float(header["seconds"]),
        )


# ---------------------------------------------------------------------------- measuring


def measure_dynamics(
    stage: Stage,
    plain: Trajectory,
    samples: int,
    *,
    probes: Sequence[int],
    conditional: int | None,
) -> Dynamics:
    """Measure one plain trajectory.

    Args:
        stage: The model and its sampler.
        plain: The trajectory.
        samples: Samples in it.
        probes: Evaluations, from 1 on, whose output is perturbed before the run is continued.
        conditional: Index of the conditional pass if the adapter says so.

    Raises:
        CalibrationError: The solver is not affine, two runs of a seed differ, or something is not
            finite.
    """
    known = measure_response(stage, plain)
    sums = _Perturbed(plain, known)
    for evaluation in probes:
        sums.add(stage, evaluation)
    return Dynamics(
        gram=_cut(_gram(plain) * samples),
        samples=samples,
        response=known,
        response_seed=plain.seed,
        moved=_cut(sums.moved),
        followed=_cut(sums.followed),
        strayed=_cut(sums.strayed),
        effects=_cut(sums.effects),
        effect_counts=sums.counts,
        conditional=conditional,
        seconds=min(sums.seconds, default=0.0),
    )


def _cut(values: Array) -> Array:
    try:
        return cut(values)
    except ValueError as error:
        raise CalibrationError(str(error)) from error


def _gram(plain: Trajectory) -> Array:
    """Return the mean products of a trajectory's vectors, (n, n)."""
    outputs = plain.outputs.transpose(0, 1).flatten(0, 1)
    vectors = torch.cat((plain.latents, plain.end[None], outputs))
    entries = vectors.shape[1]
    total = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for start in range(0, entries, _CHUNK):
        chunk = vectors[:, start : start + _CHUNK].double()
        total += chunk @ chunk.T
    return (total / entries).numpy()


class _Perturbed:
    """Continues a trajectory from perturbed outputs, and sums what comes of it."""

    def __init__(self, plain: Trajectory, response: Response) -> None:
        evaluations, parts, _ = plain.outputs.shape
        self._plain = plain
        self._response = response
        self.moved = np.zeros(evaluations)
        self.followed = np.zeros((evaluations, parts))
        self.strayed = np.zeros((evaluations, parts))
        self.effects = np.zeros(evaluations)
        self.counts = np.zeros(evaluations, dtype=np.int64)
        self.seconds: list[float] = []

    def add(self, stage: Stage, evaluation: int) -> None:
        """Give the predecessor's output at `evaluation`, and let the model go on from there."""
        plain = self._plain
        change = plain.outputs[evaluation - 1] - plain.outputs[evaluation]
        calls = len(plain.calls) // plain.evaluations

        def reply(number: int, tick: Tick, model: Callable[[], Any]) -> Answer | None:
            del model
            if tick.evaluation < evaluation:
                return plain.calls[number].answer
            if tick.evaluation > evaluation:
                return None
            return changed(plain, number, change)

        run = stage.record(plain.seed, reply)
        if len(run.calls) != plain.evaluations * calls:
            raise CalibrationError("a perturbed run had another number of evaluations")
        self._sum(run, evaluation, change)
        times = [call.seconds for call in run.calls if call.seconds is not None]
        if times:
            self.seconds.append(float(np.median(times)) * calls)

    def _sum(self, run: Trajectory, evaluation: int, change: Tensor) -> None:
        plain, after = self._plain, slice(evaluation + 1, None)
        moved = (run.latents - plain.latents)[after].double()
        strayed = (run.outputs - plain.outputs)[after].double()
        size = (plain.latents[after].double().square().mean(dim=1) + 1e-300)[:, None]
        self.moved[after] += (moved.square() / size).mean(dim=1).numpy()
        products = torch.einsum("en,epn->epn", moved, strayed).mean(dim=2)
        self.followed[after] += (products / size).numpy()
        self.strayed[after] += (strayed.square().mean(dim=2) / size).numpy()
        weights = torch.from_numpy(self._response.weights[evaluation]).float()
        guided = (weights @ change).double().square().mean().sqrt()
        unseen = plain.final is None and evaluation == plain.evaluations - 1
        if guided and not unseen:
            end = plain.end.double()
            effect = (run.end.double() - end).norm() / end.norm() / guided
            self.effects[evaluation] += float(effect)
            self.counts[evaluation] += 1
