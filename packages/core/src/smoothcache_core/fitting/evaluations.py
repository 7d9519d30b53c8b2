"""Fitting fills while the cached runs of all seeds unfold side by side.

`Fitting` goes through the evaluations; `_Unfolding` knows one cached run beside its plain run, and
the output that makes the solver land on the plain run's next latent.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from smoothcache_core.adapters.guidance import conditional_part
from smoothcache_core.adapters.sites import DENOISER, GUIDANCE
from smoothcache_core.calibrating.solver_response import drift, guided
from smoothcache_core.calibration.response import Response
from smoothcache_core.fills import rounded
from smoothcache_core.fitting.normal_equations import NormalEquations
from smoothcache_core.fitting.rollout import CachedRun
from smoothcache_core.optimize.masks import Basis
from smoothcache_core.optimize.surrogate import SMALLEST_SHARE, is_share_of
from smoothcache_core.schedule.fill import Fill
from smoothcache_core.schedule.schedule import Schedule

Value = TypeVar("Value")


class Fitting:
    """Fits one evaluation after the other.

    Args:
        schedule: What to compute and what to skip; fills of the denoiser or guidance are fitted.
        runs: The cached runs, not yet begun, at least one.
        response: How the solver answers to the denoiser's outputs.
        basis: What fills combine.

    Attributes:
        schedule: The schedule, with the fills fitted so far.
    """

    def __init__(
        self,
        schedule: Schedule,
        runs: Sequence[CachedRun],
        response: Response,
        basis: Basis,
    ) -> None:
        self.schedule = schedule
        self._runs = [_Unfolding(run, response) for run in runs]
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

    def _compute(self, evaluation: int) -> None:
        last = evaluation
        while last + 1 < self.schedule.evaluations and all(row[last + 1] for row in self._rows):
            last += 1
        for run in self._runs:
            if not run.knows(evaluation):
                run.cached.advance(self.schedule, last)
            run.take(evaluation, run.cached.outputs(evaluation), self._cond)

    def _fit_denoiser(self, evaluation: int) -> None:
        normal = NormalEquations()
        for run in self._runs:
            normal.add(self._regressors(run, evaluation), run.landing(evaluation))
        found = normal.solve()
        for run in self._runs:
            parts = zip(found.tolist(), self._regressors(run, evaluation), strict=True)
            run.change(evaluation, sum((c * r for c, r in parts), torch.zeros(())))
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


class _Unfolding:
    """One cached run beside its plain run, in float32 on the CPU; n entries in all samples.

    Attributes:
        cached: The run itself.
        history: Outputs computed so far, (parts, n) each, the newest first.
        differences: Conditional minus unconditional outputs, where both were computed.
        newest: The evaluation computed last.
    """

    def __init__(self, cached: CachedRun, response: Response) -> None:
        self.cached = cached
        self.history: list[Tensor] = []
        self.differences: list[Tensor] = []
        self.newest = 0
        self._plain = cached.plain
        self._response = response
        self._guided = guided(response, cached.plain.outputs)
        self._changes = torch.zeros_like(self._guided)

    def knows(self, evaluation: int) -> bool:
        """Return whether the evaluation was computed already."""
        return any(call.evaluation == evaluation for call in self.cached.calls)

    def guide(self, evaluation: int, outputs: Tensor) -> Tensor:
        """Return the guided output, (n,), of outputs (parts, n)."""
        weights = torch.from_numpy(self._response.weights[evaluation]).to(outputs)
        return weights @ outputs

    def latent(self, evaluation: int) -> Tensor:
        """Return the cached run's latent, (n,)."""
        moved = drift(self._response, evaluation, self._changes)
        return self._plain.latents[evaluation] + moved

    def landing(self, evaluation: int) -> Tensor:
        """Return the guided output that makes the solver land on the plain run's next latent."""
        row = self._response.matrix[evaluation]
        if not row[evaluation]:
            return self._guided[evaluation]
        weights = torch.from_numpy(row[:evaluation] / row[evaluation]).to(self._changes)
        return self._guided[evaluation] - weights @ self._changes[:evaluation]

    def difference(self, evaluation: int, conditional: Tensor, index: int) -> Tensor:
        """Return the guidance difference that lands, (n,), given the conditional output."""
        share = float(self._response.weights[evaluation, 1 - index])
        if abs(share) > SMALLEST_SHARE:
            return (conditional - self.landing(evaluation)) / share
        return self.plain_difference(evaluation, index)

    def plain_difference(self, evaluation: int, index: int) -> Tensor:
        """Return the guidance difference of the plain run, (n,), given the conditional pass."""
        return self._plain.outputs[evaluation, index] - self._plain.outputs[evaluation, 1 - index]

    def take(self, evaluation: int, outputs: Tensor, conditional: int | None) -> None:
        """Note computed outputs, (parts, n), and their difference if `conditional` is given."""
        self.history.insert(0, outputs)
        self.newest = evaluation
        if conditional is not None and len(outputs) == 2:
            self.differences.insert(0, outputs[conditional] - outputs[1 - conditional])
        self.change(evaluation, self.guide(evaluation, outputs))

    def change(self, evaluation: int, output: Tensor) -> None:
        """Note the guided output that the solver gets."""
        self._changes[evaluation] = output - self._guided[evaluation]
