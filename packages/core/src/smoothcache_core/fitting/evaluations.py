"""Fitting fills while the cached runs of all seeds unfold side by side.

Skipped evaluations are fitted to make the solver land on the plain run's next latent, or on that of
the exact solution; then computed ones are corrected to land there as well.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from smoothcache_core.adapters.guidance import conditional_part
from smoothcache_core.adapters.sites import DENOISER, GUIDANCE
from smoothcache_core.calibration.response import Response
from smoothcache_core.fills import rounded
from smoothcache_core.fitting.normal_equations import NormalEquations
from smoothcache_core.fitting.rollout import CachedRun
from smoothcache_core.fitting.unfolding import Unfolding
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.optimize.masks import Basis
from smoothcache_core.optimize.surrogate import is_share_of
from smoothcache_core.schedule.fill import Fill
from smoothcache_core.schedule.schedule import Schedule

Value = TypeVar("Value")


class Fitting:
    """Fits one evaluation after the other.

    Args:
        schedule: What to compute and what to skip; fills of the denoiser or guidance are fitted.
        runs: The cached runs, not yet begun, at least one.
        response: How the solver answers to the denoiser's outputs.
        basis: What fills combine, and corrections.
        ends: Where each run is to be after every evaluation, (E, n) each; None for where its plain
            run is.

    Attributes:
        schedule: The schedule, with the fills fitted so far.
    """

    def __init__(
        self,
        schedule: Schedule,
        runs: Sequence[CachedRun],
        response: Response,
        basis: Basis,
        ends: Sequence[Tensor] | None = None,
    ) -> None:
        self.schedule = schedule
        places = [None] * len(runs) if ends is None else ends
        pairs = zip(runs, places, strict=True)
        self._runs = [_Unfolding(run, response, end) for run, end in pairs]
        self._weights = response.weights
        self._basis = basis
        self._rows = schedule.row(DENOISER), schedule.row(GUIDANCE)
        names = tuple(dict.fromkeys(call.branch for call in runs[0].plain.calls))
        self._cond = conditional_part(runs[0].adapter, names) or 0

    def step(self, evaluation: int) -> None:
        """Fit or compute one evaluation."""
        evaluated, both = (row[evaluation] for row in self._rows)
        if not evaluated:
            self._fit_denoiser(evaluation)
        elif both:
            self._compute(evaluation)
        else:
            self._fit_guidance(evaluation)
        if evaluated and self._runs[0].corrects(evaluation):
            self._correct(evaluation)

    def _compute(self, evaluation: int) -> None:
        last = evaluation
        one_by_one = self._runs[0].corrects(evaluation)  # the next latent depends on it
        while (
            not one_by_one
            and last + 1 < self.schedule.evaluations
            and all(row[last + 1] for row in self._rows)
        ):
            last += 1
        for run in self._runs:
            if not run.knows(evaluation):
                run.cached.advance(self.schedule, last)
            run.take(evaluation, run.cached.outputs(evaluation), self._cond)

    def _landed(self, evaluation: int) -> Array:
        """Return coefficients by which all runs come nearest to where they are to be, (k,)."""
        normal = NormalEquations()
        for run in self._runs:
            normal.add(self._regressors(run, evaluation), run.landing(evaluation))
        found = normal.solve()
        for run in self._runs:
            parts = zip(found.tolist(), self._regressors(run, evaluation), strict=True)
            run.change(evaluation, sum((c * r for c, r in parts), torch.zeros(())))
        return found

    def _correct(self, evaluation: int) -> None:
        """Fit what the solver gets in place of a computed output; the newest output is its own."""
        found = self._landed(evaluation)
        corrected = with_correction(self.schedule.corrected, evaluation, found, self._basis)
        self.schedule = self.schedule.changed(corrected=corrected)

    def _fit_denoiser(self, evaluation: int) -> None:
        found = self._landed(evaluation)
        count = len(found) - self._basis.use_input - self._basis.use_anchor
        given = self.schedule.fill(DENOISER)
        latents = iter(rounded(found[count:]) if count < len(found) else ())
        inputs = {evaluation: next(latents)} if self._basis.use_input else {}
        anchors = {evaluation: next(latents)} if self._basis.use_anchor else {}
        fill = Fill(
            terms={**given.terms, evaluation: rounded(found[:count])},
            inputs=_without(given.inputs, evaluation) | inputs,
            anchors=_without(given.anchors, evaluation) | anchors,
        )
        self._put(DENOISER.kind, fill)

    def _regressors(self, run: "_Unfolding", evaluation: int) -> list[Tensor]:
        found = [run.guide(evaluation, y) for y in run.history[: self._basis.terms]]
        if self._basis.use_input:
            found.append(run.latent(evaluation))
        if self._basis.use_anchor:
            found.append(run.latent(run.newest))
        return found

    def _fit_guidance(self, evaluation: int) -> None:
        normal, plain = NormalEquations(), NormalEquations()
        conditional = []
        for run in self._runs:
            run.cached.advance(self.schedule, evaluation, half=True)
            conditional.append(run.cached.outputs(evaluation)[0])
            target = run.difference(evaluation, conditional[-1], self._cond)
            normal.add(run.differences[: self._basis.terms], target)
            plain.add(
                run.differences[: self._basis.terms], run.plain_difference(evaluation, self._cond)
            )
        found = normal.solve()
        for run, output in zip(self._runs, conditional, strict=True):
            parts = zip(found.tolist(), run.differences, strict=False)
            filled = output - sum((c * d for c, d in parts), torch.zeros(()))
            both = (output, filled) if self._cond == 0 else (filled, output)
            run.take(evaluation, torch.stack(both), None)
        given = self.schedule.fill(GUIDANCE)
        rescalable = is_share_of(
            float(self._weights[evaluation, 1 - self._cond]), self.schedule.fingerprint.strength
        )
        corrections = {evaluation: rounded(found - plain.solve())} if rescalable else {}
        fill = Fill(
            terms={**given.terms, evaluation: rounded(found)},
            corrections=_without(given.corrections or {}, evaluation) | corrections or None,
        )
        self._put(GUIDANCE.kind, fill)

    def _put(self, key: str, fill: Fill) -> None:
        self.schedule = self.schedule.changed(fills={**self.schedule.fills, key: fill})


def _without(values: Mapping[int, Value], evaluation: int) -> dict[int, Value]:
    return {known: value for known, value in values.items() if known != evaluation}


def with_correction(known: Fill | None, evaluation: int, found: Array, basis: Basis) -> Fill:
    """Return corrections with those of one evaluation.

    Args:
        known: Corrections of other evaluations.
        evaluation: Whose output is corrected.
        found: Coefficients of outputs, its own first, then of the latent if `basis` has it.
        basis: What they combine.
    """
    before = known or Fill(terms={})
    numbers = rounded(found)
    count = len(numbers) - basis.use_input
    inputs = {evaluation: numbers[-1]} if basis.use_input else {}
    return Fill(
        terms={**before.terms, evaluation: numbers[:count]},
        inputs=_without(before.inputs, evaluation) | inputs,
    )


class _Unfolding(Unfolding):
    """One run on its way.

    Attributes:
        cached: The run itself.
    """

    def __init__(self, cached: CachedRun, response: Response, ends: Tensor | None) -> None:
        super().__init__(cached.plain, response, ends)
        self.cached = cached

    def knows(self, evaluation: int) -> bool:
        """Return whether the evaluation was computed already."""
        return any(call.evaluation == evaluation for call in self.cached.calls)
