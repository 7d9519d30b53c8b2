"""A run of the sampler, reduced to what whole-evaluation skipping needs of it.

Everything a cached run does with the denoiser's outputs is linear: fills are linear combinations,
guidance weights conditioning passes, the solver is affine (`_response.py`). What is not linear, the
denoiser itself, is replaced by its plain outputs plus a scalar feedback, y_p(x + dx) = y_p(x) +
f[i, p] dx, measured by `_dynamics.py`. Then every latent and output of a cached run is a
combination of the plain run's latents and outputs, and inner products of those are all that is
needed to simulate the run, to fit its fills in the order in which they happen, and to predict the
error of its final sample, in milliseconds and without the model.

A skipped evaluation is not fitted to what the plain run had there, but to what would make the
solver land on the plain run's next latent. That takes back what drifted so far.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from smoothcache_core._response import Response

Array = NDArray[np.float64]

RIDGE = 1e-6
"""Of the mean diagonal of the normal equations; pulls towards plain reuse."""

_LATENTS, _OUTPUTS = 3, 4  # as many as solvers make a step of


@dataclass(frozen=True, kw_only=True)
class Skips:
    """What a cached run computes, as booleans for every evaluation.

    Attributes:
        denoiser: Whether the denoiser is called.
        guidance: Where it is, whether the unconditional pass is evaluated too.
    """

    denoiser: tuple[bool, ...]
    guidance: tuple[bool, ...]

    @property
    def compute(self) -> float:
        """Evaluations computed; one without its unconditional pass counts a half."""
        pairs = zip(self.denoiser, self.guidance, strict=True)
        return sum((1.0 if guided else 0.5) for computed, guided in pairs if computed)


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What a fill of the denoiser combines.

    Attributes:
        terms: The most computed outputs, 1 to 3.
        use_input: Whether it also uses the latent.
        use_anchor: Whether it also uses the latent of the evaluation computed last.
    """

    terms: int = 3
    use_input: bool = True
    use_anchor: bool = False

    @property
    def coefficients(self) -> int:
        """The most coefficients of one fill."""
        return self.terms + self.use_input + self.use_anchor


@dataclass(kw_only=True)
class Simulated:
    """What a simulated run gave.

    Attributes:
        error: Relative L2 error of the final sample; of the last latent where no more is known.
        drift: Relative L2 distance of the latents to the plain run's, root mean square over the
            evaluations that are computed.
        terms: Coefficients of each skipped evaluation, the newest output first.
        inputs: Coefficient of the latent of each skipped evaluation.
        anchors: Coefficient of the latent of the evaluation computed last before it.
        differences: Coefficients of the guidance difference.
    """

    error: float = 0.0
    drift: float = 0.0
    terms: dict[int, tuple[float, ...]] = field(default_factory=dict)
    inputs: dict[int, float] = field(default_factory=dict)
    anchors: dict[int, float] = field(default_factory=dict)
    differences: dict[int, tuple[float, ...]] = field(default_factory=dict)


def ridge(regressors: Array, target: Array) -> Array:
    """Return the coefficients that combine `regressors` (k, n) to `target` (n,), (k,).

    Minimises |sum_j c_j r_j - t|^2 + r |c - e_0|^2 with r = `RIDGE` x the mean of |r_j|^2: where
    the data do not decide, the newest output is reused.
    """
    normal = regressors @ regressors.T
    return ridge_normal(normal, regressors @ target)


def ridge_normal(normal: Array, right: Array) -> Array:
    """Return the coefficients from the normal equations: (k, k) inner products, and (k,)."""
    size = len(normal)
    strength = RIDGE * np.trace(normal) / size + 1e-300
    prior = np.zeros(size)
    prior[0] = strength
    return np.linalg.solve(normal + strength * np.eye(size), right + prior)


class ReducedRun:
    """Simulates cached runs.

    Args:
        gram: Mean products of the entries of the plain run's vectors, ordered x_0 ... x_{E-1},
            the final sample, then for every conditioning pass y_0 ... y_{E-1}; shape (n, n), n =
            E (1 + parts) + 1.
        response: What the solver makes of outputs.
        feedback: (E, parts): change of an output per change of the latent.
        conditional: Index of the conditional pass.
    """

    def __init__(
        self, gram: Array, response: Response, feedback: Array, conditional: int = 0
    ) -> None:
        self.evaluations, self.parts = response.weights.shape
        vectors = _coordinates(gram)
        count = self.evaluations
        self.latents = vectors[:count]
        self.size = float(np.linalg.norm(vectors[count]))
        self.outputs = vectors[count + 1 :].reshape(self.parts, count, -1).transpose(1, 0, 2)
        self.guided = np.einsum("ep,epn->en", response.weights, self.outputs)
        self.latent_sizes = np.linalg.norm(self.latents, axis=1)
        self.response = response
        self.feedback = feedback
        self.conditional = conditional

    @property
    def noise(self) -> float:
        """How much of a latent neither earlier latents nor outputs explain, root mean square.

        That is what the solver drew at random, relative to the latent; about 0 if it draws nothing.
        """
        left = [self._unexplained(i) for i in range(1, self.evaluations)]
        return float(np.sqrt(np.mean(np.square(left)))) if left else 0.0

    def _unexplained(self, i: int) -> float:
        known = np.concatenate(
            [self.latents[max(i - _LATENTS, 0) : i], *self.outputs[max(i - _OUTPUTS, 0) : i]]
        )
        latent = self.latents[i]
        found = np.linalg.lstsq(known.T, latent, rcond=None)[0]
        return float(np.linalg.norm(latent - found @ known) / (self.latent_sizes[i] + 1e-300))

    def simulate(self, skips: Skips, basis: Basis | None = None) -> Simulated:
        """Run with `skips`, fitting every fill when its evaluation comes.

        Args:
            skips: What is computed; evaluation 0 must be.
            basis: What fills combine.
        """
        run = _Run(self, skips, basis or Basis())
        for evaluation in range(self.evaluations):
            run.step(evaluation)
        return run.result()


class _Run:
    """One simulation under way; vectors are coordinates in the span of the plain run."""

    def __init__(self, reduced: ReducedRun, skips: Skips, basis: Basis) -> None:
        self._of = reduced
        self._skips = skips
        self._basis = basis
        self._changes = np.zeros_like(reduced.guided)
        self._history: list[Array] = []
        self._differences: list[Array] = []
        self._drifts: list[float] = []
        self._anchor = np.zeros(0)
        self._result = Simulated()

    def step(self, i: int) -> None:
        of = self._of
        row = of.response.matrix[i]
        drift = self._drift(i)
        own = float(row[i])
        target = of.guided[i]
        if own:
            target = target - (row[:i] @ self._changes[:i]) / own
        if not self._skips.denoiser[i]:
            guided = self._fill(i, of.latents[i] + drift, target)
        else:
            self._drifts.append(float(np.linalg.norm(drift)) / (of.latent_sizes[i] + 1e-300))
            outputs = of.outputs[i] + np.outer(of.feedback[i], drift)
            self._anchor = of.latents[i] + drift
            if not self._skips.guidance[i]:
                outputs = self._without_unconditional(i, outputs, target)
            elif of.parts == 2:
                self._differences.insert(0, outputs[of.conditional] - outputs[1 - of.conditional])
            self._history.insert(0, outputs)
            guided = of.response.weights[i] @ outputs
        self._changes[i] = guided - of.guided[i]

    def _drift(self, i: int) -> Array:
        if not i:
            return np.zeros(self._changes.shape[1])
        return self._of.response.matrix[i - 1, :i] @ self._changes[:i]

    def _fill(self, i: int, latent: Array, target: Array) -> Array:
        weights = self._of.response.weights[i]
        regressors = [weights @ outputs for outputs in self._history[: self._basis.terms]]
        count = len(regressors)
        if self._basis.use_input:
            regressors.append(latent)
        if self._basis.use_anchor:
            regressors.append(self._anchor)
        basis = np.stack(regressors)
        found = ridge(basis, target)
        self._result.terms[i] = tuple(found[:count].tolist())
        if self._basis.use_input:
            self._result.inputs[i] = float(found[count])
        if self._basis.use_anchor:
            self._result.anchors[i] = float(found[-1])
        return found @ basis

    def _without_unconditional(self, i: int, outputs: Array, target: Array) -> Array:
        of = self._of
        share = float(of.response.weights[i, 1 - of.conditional])
        conditional = outputs[of.conditional]
        basis = np.stack(self._differences[: self._basis.terms])
        if abs(share) > 1e-6:
            found = ridge(basis, (conditional - target) / share)
        else:
            found = ridge(basis, conditional - outputs[1 - of.conditional])
        self._result.differences[i] = tuple(found.tolist())
        filled = outputs.copy()
        filled[1 - of.conditional] = conditional - found @ basis
        return filled

    def result(self) -> Simulated:
        known = self._of.response.knows_end
        final = self._drift(self._of.evaluations - (not known))
        self._result.error = float(np.linalg.norm(final)) / (self._of.size + 1e-300)
        self._result.drift = float(np.sqrt(np.mean(np.square(self._drifts))))
        return self._result


def _coordinates(gram: Array) -> Array:
    """Return vectors (n, rank) with the inner products `gram`."""
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    kept = values > values[-1] * 1e-15
    return vectors[:, kept] * np.sqrt(values[kept])
