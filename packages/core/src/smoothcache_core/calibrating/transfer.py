"""Another number of evaluations from the same calibration, without evaluating the model.

What calibration measures of the denoiser are functions of time, and can be interpolated. What it
measures of the solver can be measured again at no cost: solvers are affine in the denoiser's
outputs, so any outputs will do, and the denoiser's calls are answered by random numbers.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from smoothcache_core.adapters.compiled import denoiser, is_compiled
from smoothcache_core.adapters.signature import argument_names
from smoothcache_core.arguments import check_kind
from smoothcache_core.calibrating.resampling import (
    Times,
    resampled_dynamics,
    resampled_errors,
    resampled_influence,
    resampled_products,
)
from smoothcache_core.calibrating.solver_response import measure_response
from smoothcache_core.calibrating.time_axis import time_of
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.calibration.response import Response
from smoothcache_core.calls.call import Call, CallReader, largest
from smoothcache_core.calls.clock import Scheduler
from smoothcache_core.calls.fingerprints import call_fingerprint, model_fingerprint
from smoothcache_core.errors import CalibrationError, SmoothCacheError
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.numerics.reproducible_sum import cut, joined
from smoothcache_core.outputs.latents import Latents
from smoothcache_core.outputs.structures import denoised
from smoothcache_core.relay import takes_turns
from smoothcache_core.sampling.recording import record
from smoothcache_core.sampling.sampler import Sampler, needed
from smoothcache_core.sampling.trajectory import Trajectory
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.solver import named_settings
from smoothcache_core.wrapping.modules import layered

FEWEST = 4
"""Evaluations of either run: a cubic spline goes through four values."""


MOST = 2.0
"""Evaluations, over those that were calibrated. Up to here one new evaluation falls between two
calibrated ones; records go up to 1.5."""


REACH = 0.6
"""Calibrated steps that a run may begin earlier or end later. A run of twice the steps begins and
ends half a step farther, counted in timesteps."""


def transfer(
    calibration: Calibration,
    sampler: Sampler,
    *,
    seed: int = 0,
) -> Calibration:
    """Estimate the calibration for another number of evaluations, without running the model.

    Another spacing of the timesteps is possible too; all else, the guidance included, should be as
    it was calibrated.

    Example:
        A run of 6 evaluations in place of the 8 that were calibrated:

        >>> def run_of_6(seed: int) -> torch.Tensor:
        ...     latent = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
        ...     for step in range(6):
        ...         latent = latent - model(latent, 1 - step / 6) / 6
        ...     return latent
        >>> at_6_steps = dataclasses.replace(sampler, run=run_of_6)
        >>> schedule = plan(transfer(calibration, at_6_steps), compute=0.7)
        >>> schedule.evaluations
        6

    Args:
        calibration: Measured, from `calibrate` with sensitivities; not itself transferred.
        sampler: How a run is made at the new number of evaluations: at least 4, at most twice the
            calibrated one. Its model is not compiled. If it has a scheduler, times are the log-SNR
            that it gives for timesteps.
        seed: Seed of the run that the solver is measured with; any will do.

    Returns:
        A calibration whose fingerprint says what it was transferred from, as that of every schedule
        planned from it does. Sites have as many lags as what was calibrated allows, maybe none.

    Raises:
        CalibrationError: The calibration lacks what is needed, or the run is too different from the
            calibrated one.
        SamplerError: `run` does not return the final latent.
    """
    check_kind(calibration, Calibration, name="calibration", error=CalibrationError)
    check_kind(sampler, Sampler, name="sampler", error=CalibrationError)
    with sampler.around():
        _check(calibration, sampler)
        synthetic, plain = _answered_run(calibration, sampler, seed)
        _check_run(calibration, plain, synthetic.first)
        timesteps = _timesteps(synthetic, plain)
        times = _times(calibration, sampler.scheduler, timesteps)
        response = measure_response(sampler, plain)
    fingerprint = _fingerprint(calibration, sampler, timesteps, synthetic.first)
    first, *others = [
        _resampled(known, times, response, seed, _renamed(fingerprint, known.fingerprint))
        for known in (calibration, *calibration.coarser)
    ]
    return replace(first, coarser=tuple(others))


def _renamed(fingerprint: Fingerprint, known: Fingerprint) -> Fingerprint:
    """Return a fingerprint with the adapter that another one names."""
    return fingerprint.changed(adapter=known.adapter, adapter_data=known.adapter_data)


def _resampled(
    calibration: Calibration, times: Times, response: Response, seed: int, fingerprint: Fingerprint
) -> Calibration:
    assert calibration.dynamics is not None
    assert calibration.products is not None
    samples = calibration.samples
    products = resampled_products(joined(calibration.products) / samples, times)
    totals, squares = resampled_errors(calibration, products, times)
    influence = calibration.influence
    lags = totals.shape[2]
    remark = calibration.remark if lags or not calibration.sites else _no_lags(calibration, times)
    return replace(
        calibration,
        totals=totals,
        squares=squares,
        products=cut(products * samples) if lags else None,
        dynamics=resampled_dynamics(calibration.dynamics, times, response, seed),
        influence=influence and resampled_influence(influence, calibration.sites, times),
        fingerprint=fingerprint,
        remark=remark,
        coarser=(),
    )


def _no_lags(calibration: Calibration, times: Times) -> str:
    return (
        f"{calibration.max_lag} lags of the {len(times.old)} evaluations that were calibrated do "
        f"not span one of the {len(times.new)} that it was transferred to"
    )


def _fingerprint(
    calibration: Calibration, sampler: Sampler, timesteps: Array, first: Call | None
) -> Fingerprint:
    update: dict[str, Any] = {
        "evaluations": len(timesteps),
        "timesteps": tuple(timesteps.tolist()),
        "transferred_from": calibration.evaluations,
    }
    if sampler.solver_name is not None:
        update |= {"solver": sampler.solver_name, "solver_settings": sampler.solver_settings}
    if first is not None:
        update["guidance"] = call_fingerprint(first).guidance
    return calibration.fingerprint.changed(**update)


# ---------------------------------------------------------------------------- the new run


class _Output(NamedTuple):
    """An output as diffusers' models give it: the sample has a name, and is at index 0."""

    sample: Tensor | list[Tensor]


class _SyntheticDenoiser:
    """Answers the denoiser's calls with random numbers in the form of its outputs.

    Args:
        calibration: Says how large outputs are.
        sampler: How a run is made.
        named: Whether outputs are a `sample` with a name, rather than a tensor.

    Attributes:
        first: The first call.
        timesteps: The timestep of every call; None where it has none.
    """

    def __init__(self, calibration: Calibration, sampler: Sampler, *, named: bool) -> None:
        self.first: Call | None = None
        self.timesteps: list[float | None] = []
        self._calibration = calibration
        self._size = _size(calibration)
        self._reader = CallReader(sampler.model, sampler.adapter)
        self._named = named
        self._generator = torch.Generator().manual_seed(0)

    def answer(
        self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> object:
        """Answer one call."""
        del call
        seen = self._reader.read(args, kwargs)
        self.first = self.first or seen
        self.timesteps.append(_timestep(seen))
        latent = self._reader.latent(args, kwargs)
        if isinstance(latent, Tensor):
            own = _answered(self._calibration, latent)
            output = self._numbers(own, _channels(self._calibration, own))
        elif isinstance(latent, Latents):
            return tuple(self._numbers(each, 1) for each in latent.tensors)
        else:
            output = [self._numbers(row, 1) for row in latent]
        return _Output(output) if self._named else output

    def _numbers(self, latent: Tensor, channels: int) -> Tensor:
        shape = list(latent.shape)
        if channels > 1:
            shape[1] *= channels
        return self._size * torch.randn(shape, generator=self._generator).to(latent)


def _size(calibration: Calibration) -> float:
    """Return the root mean square of the denoiser's outputs."""
    assert calibration.dynamics is not None
    own = np.diagonal(joined(calibration.dynamics.gram)) / calibration.dynamics.samples
    return float(np.sqrt(own[calibration.evaluations + 1 :].mean())) or 1.0


def _answered(calibration: Calibration, latent: Tensor) -> Tensor:
    """Return the latent, or the denoised part of it if the denoiser's outputs are only of that."""
    part, shape = calibration.fingerprint.latent_part, tuple(latent.shape[1:])
    if part is None or not part.fits(shape):
        return latent
    whole = _rows_of_outputs(calibration) * latent[0].numel() * latent.element_size()
    return latent if calibration.cost.output_bytes >= whole else denoised(latent, part)


def _channels(calibration: Calibration, latent: Tensor) -> int:
    """Return how many times the latent's channels the denoiser gives; 2 with variances.

    The calibration knows the bytes of its outputs.
    """
    once = _rows_of_outputs(calibration) * latent[0].numel() * latent.element_size()
    return max(round(calibration.cost.output_bytes / once), 1) if latent.dim() > 2 else 1


def _rows_of_outputs(calibration: Calibration) -> float:
    """Return the rows of all outputs of one evaluation."""
    assert calibration.dynamics is not None
    parts = calibration.dynamics.response.weights.shape[1]
    return parts * calibration.samples / len(calibration.seeds)


def _timestep(call: Call) -> float | None:
    if call.timestep is not None or call.tensor is None or not call.tensor.numel():
        return call.timestep
    return float(largest(call.tensor))


class _UnusableAnswer(CalibrationError):
    """The sampler failed over an answer that the denoiser might have given in another form."""


def _answered_run(
    calibration: Calibration, sampler: Sampler, seed: int
) -> tuple[_SyntheticDenoiser, Trajectory]:
    """Run the sampler, answered in the form that its denoiser seems to have, or in the other."""
    named = "return_dict" in argument_names(denoiser(sampler.model))
    first = _SyntheticDenoiser(calibration, sampler, named=named)
    try:
        return first, _try(sampler, first, seed)
    except _UnusableAnswer as error:
        other = _SyntheticDenoiser(calibration, sampler, named=not named)
        try:
            return other, _try(sampler, other, seed)
        except _UnusableAnswer:
            raise error from None


def _try(sampler: Sampler, synthetic: _SyntheticDenoiser, seed: int) -> Trajectory:
    with layered(sampler.model, synthetic.answer):
        try:
            plain = record(sampler, seed)
        except SmoothCacheError:
            raise
        except Exception as error:  # whatever a sampler does with an answer that it cannot use
            raise _UnusableAnswer(
                "the sampler failed when the denoiser was answered by tensors like its latent: "
                f"{type(error).__name__}: {error}"
            ) from error
    needed(plain.final)
    return plain


# ---------------------------------------------------------------------------- what is refused


def _check(calibration: Calibration, sampler: Sampler) -> None:
    """Refuse what is wrong before the sampler runs."""
    known = calibration.fingerprint
    if known.transferred_from is not None:
        raise CalibrationError(
            f"this calibration was itself transferred, from {known.transferred_from} evaluations; "
            "transfer that one"
        )
    if calibration.dynamics is None or calibration.products is None:
        why = calibration.remark or "calibrate with `sensitivity=2`"
        raise CalibrationError(f"this calibration has nothing of whole runs to transfer: {why}")
    if known.timesteps is None:
        raise CalibrationError(
            "the timesteps of this calibration are not known; calibrate at the new number of "
            "evaluations"
        )
    if takes_turns(sampler.model):
        raise CalibrationError(
            "what is measured changes at once where another denoiser takes over, so a calibration "
            "of denoisers that take turns is not transferred; calibrate at the new number of "
            "evaluations"
        )
    if is_compiled(sampler.model) and calibration.sites:
        raise CalibrationError(
            f"this {type(sampler.model).__name__} is compiled; transfer first, then compile"
        )
    live = model_fingerprint(sampler.model, sampler.adapter.name)
    reasons, solver = known.conflicts(live), sampler.solver_name
    if solver is not None and known.solver is not None:
        reasons += _other_solver(known.solver, solver)
    if reasons:
        raise CalibrationError(
            f"this calibration is for another model or setting: {'; '.join(reasons)}"
        )


def _other_solver(known: str, live: str) -> list[str]:
    """Return how a solver is of another family: its class, or what it takes outputs for."""
    (here, had), (there, has) = named_settings(known), named_settings(live)
    if here != there:
        return [f"the solver is {there!r} instead of {here!r}"]
    names = ("algorithm_type", "prediction_type")
    return [
        f"the solver's {name} is {has.get(name)!r} instead of {had.get(name)!r}"
        for name in names
        if had.get(name) != has.get(name)
    ]


def _check_run(calibration: Calibration, plain: Trajectory, first: Call | None) -> None:
    """Refuse a run of another kind, or of too many or too few evaluations."""
    assert calibration.dynamics is not None
    old, new = calibration.evaluations, plain.evaluations
    if min(old, new) < FEWEST or not new <= MOST * old:
        raise CalibrationError(
            f"transfer needs at least {FEWEST} calibrated evaluations, and reaches from {FEWEST} "
            f"to {MOST:g} times as many; calibrated are {old}, the new run has {new}"
        )
    known, live = calibration.fingerprint, call_fingerprint(first) if first else Fingerprint()
    if None not in (known.latent_shape, live.latent_shape) and (
        known.latent_shape != live.latent_shape
    ):
        raise CalibrationError(
            f"the new run's latent has shape {live.latent_shape}, the calibrated one "
            f"{known.latent_shape}"
        )
    parts = calibration.dynamics.response.weights.shape[1]
    if plain.parts != parts:
        raise CalibrationError(
            f"the new run has {plain.parts} conditioning passes, the calibrated one {parts}; "
            "switch guidance as it was calibrated"
        )


def _timesteps(synthetic: _SyntheticDenoiser, plain: Trajectory) -> Array:
    """Return the timestep of every evaluation, (E,)."""
    calls = len(plain.calls) // plain.evaluations
    found = [value for value in synthetic.timesteps[::calls] if value is not None]
    if len(found) != plain.evaluations:
        raise CalibrationError(
            "the denoiser is called without timesteps; calibrate at the new number of evaluations"
        )
    return np.array(found)


def _times(calibration: Calibration, scheduler: Scheduler | None, timesteps: Array) -> Times:
    """Return the times of both runs.

    Raises:
        CalibrationError: Times go back or stand still, or the new ones go too far.
    """
    known = np.array(calibration.fingerprint.timesteps)
    time = time_of(scheduler, timesteps)
    old, new = time(known), time(timesteps)
    sign = np.sign(old[-1] - old[0])
    times = Times(old=sign * old, new=sign * new)
    for name, steps, values in (("calibrated", times.old, known), ("new", times.new, timesteps)):
        back = np.flatnonzero(np.diff(steps) <= 0)
        if len(back):
            one, other = values[back[0]], values[back[0] + 1]
            raise CalibrationError(
                f"the {name} timesteps must all go one way to be interpolated, but after {one:g} "
                f"comes {other:g}: solvers of several evaluations per step cannot be transferred"
            )
    before = (times.old[0] - times.new[0]) / (times.old[1] - times.old[0])
    after = (times.new[-1] - times.old[-1]) / (times.old[-1] - times.old[-2])
    if max(before, after) > REACH:
        end, which = ("begins", 0) if before > after else ("ends", -1)
        raise CalibrationError(
            f"the new run {end} at timestep {timesteps[which]:g}, the calibrated one at "
            f"{known[which]:g}: {max(before, after):.2g} calibrated steps beyond it, at most "
            f"{REACH:g}; calibrate with more evaluations"
        )
    return times
