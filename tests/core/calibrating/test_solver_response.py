"""What is learned of solvers from the outside: the effect of every output on every later latent."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from kit.helpers import anatomy
from kit.planning import WAVE, OneStep, Passes, ToySampler, Wave
from smoothcache_core import Sampler
from smoothcache_core.calibrating.solver_response import (
    OtherFinal,
    drift,
    guided,
    measure_response,
    responding,
)
from smoothcache_core.calibration.response import Response
from smoothcache_core.calls.clock import Tick
from smoothcache_core.errors import CalibrationError
from smoothcache_core.outputs.structures import Structure
from smoothcache_core.sampling.recording import record
from smoothcache_core.sampling.trajectory import Trajectory
from torch import Tensor

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # diffusers
Solver = Callable[[], Any]


def solver(kind: type, steps: int, **settings: Any) -> Solver:
    def make() -> Any:
        made = kind(**settings)
        made.set_timesteps(steps)
        return made

    return make


DDIM = solver(DDIMScheduler, 6, clip_sample=False)
SDE = solver(DPMSolverMultistepScheduler, 6, algorithm_type="sde-dpmsolver++")
SOLVERS = {
    "ddim": DDIM,
    "dpm 2": solver(DPMSolverMultistepScheduler, 6, solver_order=2),
    "dpm 3": solver(DPMSolverMultistepScheduler, 7, solver_order=3),
    "dpm sde": SDE,
    "heun": solver(HeunDiscreteScheduler, 4),
    "euler": solver(EulerDiscreteScheduler, 6),
}


def measured(toy: ToySampler) -> tuple[Sampler, Trajectory, Response]:
    sampler = toy.value(WAVE)
    plain = record(sampler, 5)
    return sampler, plain, measure_response(sampler, plain)


def sampler_of(name: str, passes: Passes = "one", **settings: Any) -> ToySampler:
    return ToySampler(Wave(), SOLVERS[name], passes, random=name == "dpm sde", **settings)


def changed_run(sampler: Sampler, plain: Trajectory, changes: Tensor) -> Trajectory:
    """Run with changes (E, parts, n) of the outputs, independently of `_response`."""
    calls = len(plain.calls) // plain.evaluations

    def reply(number: int, tick: Tick, model: Any) -> Structure:
        del model
        call = plain.calls[number]
        own = changes[tick.evaluation] if calls == 1 else changes[tick.evaluation, number % calls]
        output = call.answer.copied().output() + own.reshape(call.latent.shape)
        return Structure.of(output).copied()

    return record(sampler, plain.seed, reply)


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


# ---------------------------------------------------------------------------- what is learned


@pytest.mark.parametrize("passes", ["one", "batched", "sequential"])
@pytest.mark.parametrize("name", SOLVERS)
def test_any_change_of_outputs_has_the_effect_that_is_said(name: str, passes: Passes):
    sampler, plain, response = measured(sampler_of(name, passes))
    generator = torch.Generator().manual_seed(9)
    changes = torch.randn(plain.outputs.shape, generator=generator)
    changes *= torch.rand(plain.evaluations, 1, 1, generator=generator)
    changes[1::3] = 0.0  # as where an evaluation is computed as it is
    run = changed_run(sampler, plain, changes)
    outputs = guided(response, changes)
    for evaluation in range(1, plain.evaluations):
        moved = run.latents[evaluation] - plain.latents[evaluation]
        assert relative(drift(response, evaluation, outputs), moved) < 1e-5, evaluation
    assert run.final is not None
    assert plain.final is not None
    end = drift(response, plain.evaluations, outputs)
    assert relative(end, run.final - plain.final) < 1e-5
    assert not drift(response, 0, outputs).any()
    assert response.knows_end
    assert response.residual < 1e-5


@pytest.mark.parametrize("passes", ["batched", "sequential"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 4.5])
def test_guidance_is_a_weighting_of_the_passes(passes: Passes, scale: float):
    _, plain, response = measured(sampler_of("dpm 2", passes, scale=scale))
    weights = torch.from_numpy(response.weights)
    assert response.weights.shape == (6, 2)
    torch.testing.assert_close(
        weights[:, 0], torch.full_like(weights[:, 0], scale), rtol=0, atol=1e-3
    )
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(6, dtype=torch.float64))
    assert plain.parts == 2


class Interval(ToySampler):
    """Guides in the evaluations from 2 to 4 only, but always asks for both passes."""

    def guided(self, latent: Tensor, timestep: Any) -> Tensor:
        index = self.solver().timesteps.tolist().index(int(timestep))
        self.scale = 3.0 if 2 <= index <= 4 else 1.0
        return super().guided(latent, timestep)


def test_guidance_may_change_during_the_run():
    _, _, response = measured(Interval(Wave(), DDIM, "batched"))
    expected = [1.0, 1.0, 3.0, 3.0, 3.0, 1.0]
    assert response.weights[:, 0].tolist() == pytest.approx(expected, abs=2e-3)


class Late(OneStep):
    """Takes every output one step after it was given."""

    def __init__(self) -> None:
        super().__init__(6)
        self.before: Tensor | None = None

    def step(self, output: Tensor, timestep: Any, latent: Tensor) -> tuple[Tensor]:
        before, self.before = self.before, output
        return super().step(latent if before is None else before, timestep, latent)


def test_an_output_that_acts_late_has_no_effect_at_once():
    _, _, response = measured(ToySampler(Wave(), Late, "batched"))
    assert (response.matrix.diagonal() == 0.0).all()
    assert (response.matrix[1:].diagonal() != 0.0).all()
    assert response.weights[:-1, 0].tolist() == pytest.approx([2.5] * 5, abs=1e-3)
    assert response.weights[-1, 0] == pytest.approx(2.5, abs=1e-3)  # it never acts


def test_the_matrix_of_the_simplest_solver_is_known():
    _, _, response = measured(ToySampler(Wave(), lambda: OneStep(5)))
    sizes = torch.tensor(OneStep(5).sizes)
    expected = -sizes.repeat(5, 1).tril().double()
    torch.testing.assert_close(torch.from_numpy(response.matrix), expected, rtol=0, atol=1e-6)
    assert response.weights.tolist() == [[1.0]] * 5


def test_a_large_latent_is_learned_from_some_of_its_entries():
    sampler = ToySampler(Wave(), lambda: OneStep(3), samples=1, shape=(2, 96, 96))
    _, _, response = measured(sampler)
    assert response.matrix[2, 0] == pytest.approx(-OneStep(3).sizes[0], abs=1e-6)
    assert sampler.runs == 2


def test_a_small_latent_is_replayed_until_it_tells_enough():
    sampler = sampler_of("ddim", "batched", samples=1)
    measured(sampler)
    unknowns, entries = 6 * 2, 12
    assert sampler.runs == 1 + 2 * unknowns // entries


# ---------------------------------------------------------------------------- half precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["ddim", "dpm 3", "dpm sde", "heun", "euler"])
def test_rounding_in_half_precision_is_not_taken_for_clipping(name: str, dtype: torch.dtype):
    sampler = sampler_of(name, "batched", dtype=dtype, samples=4, shape=(4, 16, 16))
    _, plain, rough = measured(sampler)
    _, _, exact = measured(sampler_of(name, "batched", samples=4, shape=(4, 16, 16)))
    assert plain.calls[0].latent.dtype == dtype
    matrices = torch.from_numpy(rough.matrix), torch.from_numpy(exact.matrix)
    assert relative(*matrices) < 0.02
    assert rough.weights[:, 0].tolist() == pytest.approx([2.5] * plain.evaluations, abs=0.3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_sampler_that_clips_is_refused_with_the_residual(dtype: torch.dtype):
    clipping = solver(DDIMScheduler, 6, clip_sample=True)
    sampler = ToySampler(Wave(), clipping, dtype=dtype, samples=4, shape=(4, 16, 16))
    with pytest.raises(
        CalibrationError, match=r"\(relative residual 0\.\d+\), so errors .* it clips"
    ):
        measured(sampler)


# ---------------------------------------------------------------------------- what is refused


class Unseeded(OneStep):
    def step(self, output: Tensor, timestep: Any, latent: Tensor) -> tuple[Tensor]:
        return super().step(output + 0.1 * torch.randn_like(output), timestep, latent)


def test_noise_that_does_not_come_from_the_seed_is_refused():
    with pytest.raises(CalibrationError, match="noise that does not come from the seed"):
        measured(ToySampler(Wave(), lambda: Unseeded(4)))
    model = Wave()

    def start_anywhere(seed: int) -> None:
        del seed
        for timestep in (3, 2):
            model(torch.randn(2, 3), timestep)

    sampler = Sampler(model=model, adapter=WAVE, run=start_anywhere)
    with pytest.raises(CalibrationError, match=r"two runs of seed 7 differ; .*from the seed"):
        measure_response(sampler, record(sampler, 7))


@pytest.mark.parametrize("change", [1, -1])
def test_a_sampler_that_takes_another_number_of_steps_is_refused(change: int):
    model, steps = Wave(), [4]

    def sample(seed: int) -> None:
        for timestep in range(steps[0]):
            model(torch.full((2, 3), float(seed)), 9 - timestep)

    sampler = Sampler(model=model, adapter=WAVE, run=sample)
    plain = record(sampler, 7)
    steps[0] += change
    with pytest.raises(CalibrationError, match="two runs of seed 7 differ"):
        measure_response(sampler, plain)


def test_a_run_without_a_final_latent_leaves_the_last_row_empty():
    toy = sampler_of("dpm 2", "batched")
    whole = measured(toy)[2]
    sampler = toy.value(WAVE, run=toy.without_latent)
    plain = record(sampler, 5)
    response = measure_response(sampler, plain)
    assert plain.final is None
    assert torch.equal(plain.end, plain.latents[-1])
    assert not response.matrix[-1].any()
    assert not response.knows_end
    assert (response.matrix[:-1] == whole.matrix[:-1]).all()
    assert response.weights[:, 0].tolist() == pytest.approx([2.5] * 6, abs=1e-3)


# ---------------------------------------------------------------------------- side effects


@pytest.mark.parametrize("passes", ["one", "batched", "sequential"])
def test_the_model_is_not_called_by_replays_and_left_as_it_was(passes: Passes):
    model = Wave()
    before = anatomy(model)
    toy = ToySampler(model, SDE, passes, random=True)
    plain = record(toy.value(WAVE), 0)
    calls, runs = model.calls, toy.runs
    assert calls == len(plain.calls) == 6 * (2 if passes == "sequential" else 1)
    measure_response(toy.value(WAVE), plain)
    assert model.calls == calls
    assert toy.runs > runs
    model.calls = 0
    assert anatomy(model) == before


# ---------------------------------------------------------------------------- the final latent


def decoded(latent: Tensor) -> Tensor:
    """Return a latent as decoders are given it: channels last, each on a scale of its own."""
    return latent.transpose(1, 2) * torch.tensor([1.0, 2.0, 0.5])


class TestAFinalLatentOfAnotherLayout:
    def sampler(self, **changes: Any) -> tuple[Sampler, Sampler]:
        toy = sampler_of("euler", **changes)
        return toy.value(WAVE), toy.value(WAVE, run=lambda seed: decoded(toy(seed)))

    def test_all_other_steps_are_known(self):
        plain, other = self.sampler()
        _, expected = responding(plain, record(plain, 5))
        seen, found = responding(other, record(other, 5))
        assert seen.final is None
        assert not found.matrix[-1].any()
        assert found.residual < 1e-5
        torch.testing.assert_close(found.matrix[:-1], expected.matrix[:-1])

    def test_it_is_told_by_whoever_needs_it(self):
        _, other = self.sampler()
        with pytest.raises(OtherFinal, match="scaled, clipped or laid out in another way"):
            measure_response(other, record(other, 5))

    def test_so_it_is_where_the_sampler_overwrites_entries_too(self):
        """Kandinsky 5 keeps the first frame of a video, and gives its decoder another layout."""
        toy = sampler_of("euler")
        solver = toy.solver
        toy.solver = lambda: Keeping(solver())
        other = toy.value(WAVE, run=lambda seed: decoded(toy(seed)))
        seen, found = responding(other, record(other, 5))
        assert seen.entries is not None
        assert seen.entries.tolist() == [n for n in range(24) if n % 12 >= 4]
        assert seen.final is None
        assert found.residual < 1e-5


class Keeping:
    """A solver that puts back the first channel after every step."""

    def __init__(self, solver: Any) -> None:
        self._solver, self._first = solver, None
        self.timesteps, self.init_noise_sigma = solver.timesteps, solver.init_noise_sigma
        self.scale_model_input = solver.scale_model_input

    def step(self, output: Tensor, timestep: Any, latent: Tensor) -> tuple[Tensor]:
        self._first = latent[:, :1].clone() if self._first is None else self._first
        after = self._solver.step(output, timestep, latent)[0]
        after[:, :1] = self._first
        return (after,)
