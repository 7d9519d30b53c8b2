"""A run of the sampler, reduced to what whole-evaluation skipping needs of it.

Everything a cached run does with the denoiser's outputs is linear: fills are linear combinations,
guidance weights conditioning passes, the solver is affine (`calibrating/solver_response.py`). What
is not linear, the denoiser itself, is replaced by its plain outputs plus a scalar gain,
y_p(x + dx) = y_p(x) + f[i, p] dx, measured by `calibrating/run_sensitivity.py`. Then every latent
and output of a cached run is a combination of the plain run's latents and outputs, and inner
products of those are all that is needed to simulate the run, to fit its fills in the order in which
they happen, and to predict the error of its final sample, in milliseconds and without the model.

A skipped evaluation is not fitted to what the plain run had there, but to what would make the
solver land on the plain run's next latent. That takes back what drifted so far.

Where the exact solution is known, the run can land on that instead. Then its vectors are part of
the span, the denoiser is linear about its outputs on the exact latents, and computed outputs are
corrected: without that every computed evaluation would leave the exact solution as the plain run
does.
"""

import copy
import itertools
import math
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from smoothcache_core.calibration.dynamics import Dynamics
from smoothcache_core.calibration.response import Response
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.numerics.least_squares import ridge
from smoothcache_core.numerics.reproducible_sum import joined
from smoothcache_core.optimize.masks import Basis, Mask
from smoothcache_core.schedule.fill import MOST_TERMS
from smoothcache_core.schedule.provenance import Aim

_LATENTS, _OUTPUTS = 3, 4  # multistep solvers make a step of no more of either


SMALLEST_SHARE = 1e-6
"""Of the unconditional pass in the guided output; below, nothing can be corrected by it."""


_SAME_SHARE = 0.02  # relative; shares are measured to 1e-3, or so where the solver is noisy


def is_share_of(share: float, strength: float | None) -> bool:
    """Return whether a share of the unconditional pass is 1 - strength, as in most pipelines.

    Some limit guidance to an interval, or give its strength another meaning: what is fitted there
    cannot be rescaled.
    """
    if strength is None or abs(share) <= SMALLEST_SHARE:
        return False
    return abs(share - (1.0 - strength)) <= _SAME_SHARE * abs(share)


@dataclass(kw_only=True)
class Simulated:
    """What a simulated run gave.

    Attributes:
        error: Relative L2 error of the final sample; of the last latent where no more is known.
        drift: Relative L2 distance of the latents to those aimed at, root mean square over the
            evaluations that are computed.
        terms: Coefficients of each skipped evaluation, the newest output first.
        inputs: Coefficient of the latent of each skipped evaluation.
        anchors: Coefficient of the latent of the evaluation computed last before it.
        differences: Coefficients of the guidance difference, at the strength that was calibrated.
        corrections: The part of them that makes the solver land, see `Fill.corrections`.
        corrected: Coefficients of each corrected evaluation, its own output first; none where the
            aim is the plain run.
        corrected_inputs: Coefficient of the latent of each.
        to_plain: Like `error`, but to the plain run; the same where that is the aim.
    """

    error: float = 0.0
    drift: float = 0.0
    terms: dict[int, tuple[float, ...]] = field(default_factory=dict)
    inputs: dict[int, float] = field(default_factory=dict)
    anchors: dict[int, float] = field(default_factory=dict)
    differences: dict[int, tuple[float, ...]] = field(default_factory=dict)
    corrections: dict[int, tuple[float, ...]] = field(default_factory=dict)
    corrected: dict[int, tuple[float, ...]] = field(default_factory=dict)
    corrected_inputs: dict[int, float] = field(default_factory=dict)
    to_plain: float = 0.0

    @property
    def uncertain_error(self) -> float:
        """The error and the drift on the way, where the linear denoiser says too little."""
        return float(np.hypot(self.error, self.drift))


NOISY = 0.02
"""Of the latent: noise of the solver's own. Rounding leaves 1e-8, and 4e-3 in bfloat16."""


class ReducedRun:
    """Simulates cached runs.

    Args:
        gram: Mean products of the entries of the plain run's vectors, ordered x_0 ... x_{E-1},
            the final sample, then for every conditioning pass y_0 ... y_{E-1}; shape (n, n), n =
            E (1 + parts) + 1. To land on the exact solution, its vectors follow, see `ExactSums`.
        response: What the solver makes of outputs.
        gain: (E, parts): change of an output per change of the latent.
        conditional: Index of the conditional pass.

    Attributes:
        offsets: Where the run is to be at every evaluation, and at the end, less where the plain
            run is, (E + 1, rank); 0 where the aim is the plain run.
        seen: What the denoiser gives there, (E, parts, rank).
        exact: Whether the aim is the exact solution, and computed outputs are corrected.
    """

    def __init__(self, gram: Array, response: Response, gain: Array, conditional: int = 0) -> None:
        self.evaluations, self.parts = response.weights.shape
        vectors = _coordinates(gram)
        count = self.evaluations
        known = count * (1 + self.parts) + 1
        self.exact = len(vectors) > known
        self.latents = vectors[:count]
        self.outputs = self._by_pass(vectors[count + 1 : known])
        self.offsets = np.zeros((count + 1, vectors.shape[1]))
        self.seen = self.outputs
        if self.exact:
            self.offsets[1:] = vectors[known : known + count] - vectors[1 : count + 1]
            self.seen = self._by_pass(vectors[known + count :])
        self.size = float(np.linalg.norm(vectors[count] + self.offsets[count]))
        self.guided = np.einsum("ep,epn->en", response.weights, self.outputs)
        self.latent_sizes = np.linalg.norm(self.latents, axis=1)
        self.response = response
        self.gain = gain
        self.conditional = conditional

    def _by_pass(self, outputs: Array) -> Array:
        """Return outputs of one pass after the other, (parts E, rank), as (E, parts, rank)."""
        return outputs.reshape(self.parts, self.evaluations, -1).transpose(1, 0, 2)

    @property
    def is_noisy(self) -> bool:
        """Whether the solver adds noise of its own on the way."""
        return self.noise > NOISY

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

    def at_strength(self, strength: float) -> "ReducedRun":
        """Return the run with another strength of guidance, on the latents of this one."""
        weights = np.full_like(self.response.weights, 1.0 - strength)
        weights[:, self.conditional] = strength
        found = copy.copy(self)
        found.response = replace(self.response, weights=weights)
        found.guided = np.einsum("ep,epn->en", weights, self.outputs)
        return found

    def replay(self, mask: Mask, basis: Basis, given: Simulated) -> Simulated:
        """Run with coefficients that were fitted to another run, of another strength say.

        Args:
            mask: What is computed.
            basis: What fills combine.
            given: What `simulate` gave there for this mask and basis.
        """
        return _Replayed(self, mask, basis, given).result()

    def simulate(self, mask: Mask, basis: Basis | None = None) -> Simulated:
        """Run with `skips`, fitting every fill when its evaluation comes.

        Args:
            mask: What is computed; evaluation 0 must be.
            basis: What fills combine.
        """
        return Simulation(self, mask, basis or Basis()).result()


_Found = tuple[float, ...]
"""Coefficients of one evaluation, empty where all of it is computed. Where the guidance difference
is filled: its coefficients, then the parts of them that are corrections."""


@dataclass(frozen=True, kw_only=True)
class _State:
    """What a simulation knows before an evaluation, besides what was changed so far."""

    history: tuple[Array, ...] = ()
    differences: tuple[Array, ...] = ()
    drifts: tuple[float, ...] = ()
    anchor: Array = field(default_factory=lambda: np.zeros(0))


class Simulation:
    """One simulated run; vectors are coordinates in the span of the plain run.

    Args:
        reduced: The linearised run that is simulated.
        mask: What is computed; evaluation 0 must be.
        basis: What fills combine.
        like: A simulation of the same run and basis. Evaluations up to the first that is skipped
            otherwise are taken from it.
    """

    def __init__(
        self, reduced: ReducedRun, mask: Mask, basis: Basis, like: Self | None = None
    ) -> None:
        self._of = reduced
        self._mask = mask
        self._basis = basis
        self._changes = np.zeros_like(reduced.guided)
        self._states: list[_State] = [_State()]
        self._found: list[_Found] = []
        self._corrected: list[_Found] = []
        if like is not None:
            self._begin_like(like, _first_difference(mask, like._mask))
        for evaluation in range(len(self._found), reduced.evaluations):
            self._step(evaluation)

    def _begin_like(self, like: Self, until: int) -> None:
        self._changes[:until] = like._changes[:until]
        self._states = like._states[: until + 1]
        self._found = like._found[:until]
        self._corrected = like._corrected[:until]

    def _step(self, i: int) -> None:
        of, state = self._of, self._states[-1]
        row = of.response.matrix[i]
        drift = self._drift(i)
        away = drift - of.offsets[i]
        own = float(row[i])
        target = of.guided[i]
        if own:
            target = target + (of.offsets[i + 1] - row[:i] @ self._changes[:i]) / own
        found: _Found = ()
        corrected: _Found = ()
        if not self._mask.denoiser[i]:
            basis = self._regressors(i, state, of.latents[i] + drift)
            coefficients = self._coefficients(i, basis, target)
            guided, found = coefficients @ basis, tuple(coefficients.tolist())
        else:
            outputs = of.seen[i] + of.gain[i][:, None] * away
            differences = state.differences
            if not self._mask.guidance[i]:
                outputs, found = self._without_unconditional(i, outputs, target)
            elif of.parts == 2:
                both = outputs[of.conditional] - outputs[1 - of.conditional]
                differences = (both, *differences[: MOST_TERMS - 1])
            state = _State(
                history=(outputs, *state.history[: MOST_TERMS - 1]),
                differences=differences,
                drifts=(*state.drifts, _norm(away) / (of.latent_sizes[i] + 1e-300)),
                anchor=of.latents[i] + drift,
            )
            guided = of.response.weights[i] @ outputs
            if of.exact and own:
                basis = self._regressors(i, state, of.latents[i] + drift)
                coefficients = self._coefficients(i, basis, target)
                guided, corrected = coefficients @ basis, tuple(coefficients.tolist())
        self._changes[i] = guided - of.guided[i]
        self._found.append(found)
        self._corrected.append(corrected)
        self._states.append(state)

    def _coefficients(self, i: int, basis: Array, target: Array) -> Array:
        """Return the coefficients of a skipped or corrected evaluation, (k,)."""
        del i
        return ridge(basis, target)

    def _differences(
        self, i: int, basis: Array, outputs: Array, target: Array
    ) -> tuple[Array, Array]:
        """Return the coefficients of a guidance difference, and the part that corrects, (k,)."""
        conditional = outputs[self._of.conditional]
        share = float(self._of.response.weights[i, 1 - self._of.conditional])
        found = plain = ridge(basis, conditional - outputs[1 - self._of.conditional])
        if abs(share) > SMALLEST_SHARE:
            found = ridge(basis, (conditional - target) / share)
        return found, found - plain

    def _drift(self, i: int) -> Array:
        if not i:
            return np.zeros(self._changes.shape[1])
        return self._of.response.matrix[i - 1, :i] @ self._changes[:i]

    def _regressors(self, i: int, state: _State, latent: Array) -> Array:
        weights = self._of.response.weights[i]
        regressors = [weights @ outputs for outputs in state.history[: self._basis.terms]]
        if self._basis.use_input:
            regressors.append(latent)
        if self._basis.use_anchor:
            regressors.append(state.anchor)
        return np.array(regressors)

    def _without_unconditional(self, i: int, outputs: Array, target: Array) -> tuple[Array, _Found]:
        basis = np.array(self._states[-1].differences[: self._basis.terms])
        found, corrections = self._differences(i, basis, outputs, target)
        conditional = self._of.conditional
        filled = outputs.copy()
        filled[1 - conditional] = outputs[conditional] - found @ basis
        return filled, (*found.tolist(), *corrections.tolist())

    def result(self) -> Simulated:
        """Return what the run gave."""
        known = self._of.response.knows_end
        last = self._of.evaluations - (not known)
        final = self._drift(last)
        result = Simulated(
            error=_norm(final - self._of.offsets[last]) / (self._of.size + 1e-300),
            drift=float(np.sqrt(np.mean(np.square(self._states[-1].drifts)))),
            to_plain=_norm(final) / (self._of.size + 1e-300),
        )
        for i, corrected in enumerate(self._corrected):
            if corrected:
                result.corrected[i] = corrected[: len(corrected) - self._basis.use_input]
                if self._basis.use_input:
                    result.corrected_inputs[i] = corrected[-1]
        for i, found in enumerate(self._found):
            if not self._mask.denoiser[i]:
                latents = self._basis.use_input + self._basis.use_anchor
                result.terms[i] = found[: len(found) - latents]
                if self._basis.use_input:
                    result.inputs[i] = found[len(found) - latents]
                if self._basis.use_anchor:
                    result.anchors[i] = found[-1]
            elif found:
                result.differences[i] = found[: len(found) // 2]
                result.corrections[i] = found[len(found) // 2 :]
        return result


class _Replayed(Simulation):
    """A run with given coefficients, which were fitted to another one."""

    def __init__(self, reduced: ReducedRun, mask: Mask, basis: Basis, given: Simulated) -> None:
        self._given = given
        super().__init__(reduced, mask, basis)

    def _coefficients(self, i: int, basis: Array, target: Array) -> Array:
        del basis, target
        latents = [of[i] for of in (self._given.inputs, self._given.anchors) if i in of]
        return np.array([*self._given.terms[i], *latents])

    def _differences(
        self, i: int, basis: Array, outputs: Array, target: Array
    ) -> tuple[Array, Array]:
        del basis, outputs, target
        return np.array(self._given.differences[i]), np.array(self._given.corrections[i])


def _first_difference(one: Mask, other: Mask) -> int:
    pairs = zip(one.denoiser, one.guidance, other.denoiser, other.guidance, strict=True)
    same = itertools.takewhile(lambda each: each[:2] == each[2:], pairs)
    return sum(1 for _ in same)


def _norm(vector: Array) -> float:
    return math.sqrt(float(vector @ vector))


def _coordinates(gram: Array) -> Array:
    """Return vectors (n, rank) with the inner products `gram`."""
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    kept = values > values[-1] * 1e-15
    return vectors[:, kept] * np.sqrt(values[kept])


def reduced_run(dynamics: Dynamics, toward: Aim = "plain") -> ReducedRun:
    """Return the reduced run of what was calibrated.

    Args:
        dynamics: What was learned of whole runs.
        toward: What to land on: the plain run, or the exact solution, which `dynamics` holds then.
    """
    gram = joined(dynamics.gram)
    if toward == "exact":
        assert dynamics.exact is not None
        gram = dynamics.exact.with_plain(gram)
    mean = gram / dynamics.samples
    return ReducedRun(mean, dynamics.response, dynamics.gain(), dynamics.conditional or 0)


def is_noisy(dynamics: Dynamics) -> bool:
    """Return whether the solver adds noise of its own on the way."""
    return reduced_run(dynamics).is_noisy
