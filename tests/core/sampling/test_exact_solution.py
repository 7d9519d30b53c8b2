"""The exact solution that finer runs of a sampler come near to."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from kit.exact import SHAPE, Curved, EulerSampler, Growth
from kit.planning import Passes
from smoothcache_core.errors import CalibrationError, SamplerError
from smoothcache_core.sampling.exact_solution import exact_solution, exact_trajectory
from smoothcache_core.sampling.finer_run import finer_run
from smoothcache_core.sampling.recording import record
from smoothcache_core.sampling.sampler import Sampler
from torch import Tensor


def growth(steps: int = 10) -> Sampler:
    return EulerSampler(Growth(), steps).value()


def away(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def test_latents_are_those_at_the_timesteps_of_the_run():
    sampler = growth()
    plain = record(sampler, 0)
    fine = finer_run(sampler, plain, 4)
    assert fine.evaluations == 40
    assert torch.equal(fine.latents[0], plain.latents[0])
    step = 1.0 - 1.5 / 40
    for i in range(10):
        torch.testing.assert_close(fine.latents[i], plain.latents[0] * step ** (4 * i))
    torch.testing.assert_close(fine.final, plain.latents[0] * step**40)


def test_between_timesteps_latents_are_interpolated():
    model = Growth()
    other = EulerSampler(model, 7)  # whose steps are none of the run's but the first
    sampler = EulerSampler(model, 10).value(finer=other.finer)
    plain = record(sampler, 0)
    fine = finer_run(sampler, plain, 40)
    for i in range(10):
        exact = Growth.solution(plain.latents[0], 1.0 - i / 10)
        assert away(fine.latents[i], exact) < 5e-3  # what 280 steps of Euler leave


@pytest.mark.parametrize("steps", [8, 20])
def test_runs_of_first_order_are_extrapolated_to_the_solution(steps: int):
    sampler = growth(steps)
    plain = record(sampler, 0)
    found = exact_solution(sampler, plain)
    truth = Growth.solution(plain.latents[0], 0.0)
    assert found.extrapolated
    assert away(found.final, truth) < 0.02 * away(plain.end, truth)
    assert found.doubt / 4 < away(found.final, truth) < 2 * found.doubt
    assert found.distance == pytest.approx(away(plain.end, truth), rel=0.02)
    for i in range(steps):
        assert away(found.latents[i], Growth.solution(plain.latents[0], 1 - i / steps)) < 2e-3


def test_runs_of_second_order_are_taken_as_they_are():
    sampler = EulerSampler(Growth())

    def finer(seed: int, factor: int) -> Tensor:
        count = 10 * factor
        latent = torch.randn(sampler.samples, *SHAPE, generator=torch.Generator().manual_seed(seed))
        before = None
        for step in range(count):  # Adams and Bashforth's method
            now = sampler.velocity(latent, 1.0 - step / count)
            latent = latent - (now if before is None else 1.5 * now - 0.5 * before) / count
            before = now
        return latent

    value = sampler.value(finer=finer)
    plain = record(value, 0)
    found = exact_solution(value, plain)
    truth = Growth.solution(plain.latents[0], 0.0)
    assert not found.extrapolated
    assert away(found.final, truth) < 2 * found.doubt < 0.05 * found.distance


@pytest.mark.parametrize("passes", ["one", "batched", "sequential"])
def test_the_denoiser_is_asked_on_the_exact_latents(passes: Passes):
    made = EulerSampler(Curved(), passes=passes)
    sampler = made.value()
    plain = record(sampler, 0)
    found = exact_solution(sampler, plain)
    before = made.model.calls
    asked = exact_trajectory(sampler, plain, found)
    assert made.model.calls - before == len(plain.calls)
    assert torch.equal(asked.latents, found.latents)
    assert asked.parts == plain.parts
    torch.testing.assert_close(asked.outputs[0], plain.outputs[0])
    latent = found.latents[4].reshape(made.samples, *SHAPE)
    one = made.model(latent, 1.0 - 4 / made.steps, torch.zeros(made.samples))
    torch.testing.assert_close(asked.outputs[4, 0], one.flatten())
    assert torch.equal(record(sampler, 0).end, plain.end)


# ---------------------------------------------------------------------------- refusals


Finer = Callable[[EulerSampler, int, int], Tensor]


def refusal(finer: Finer | None) -> str:
    made = EulerSampler(Curved())
    own = None if finer is None else partial(finer, made)
    sampler = made.value(finer=own)
    with pytest.raises((CalibrationError, SamplerError)) as raised:
        exact_solution(sampler, record(sampler, 0))
    return str(raised.value)


def later(sampler: EulerSampler, seed: int, factor: int) -> Tensor:
    latent = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(seed))
    for step in range(10 * factor):
        latent = latent - sampler.velocity(latent, 0.95 - step / 10 / factor) / 100
    return latent


def unsteady(sampler: EulerSampler, seed: int, factor: int) -> Tensor:
    return sampler.finer(seed, factor) * (1.0 + 0.5 * math.sin(factor))


@pytest.mark.parametrize(
    ("finer", "message"),
    [
        (None, "Sampler(finer=...)"),
        (lambda sampler, seed, factor: torch.zeros(3, *SHAPE), "never called the Curved"),
        (lambda sampler, seed, factor: sampler(seed), "made 10 evaluations"),
        (lambda sampler, seed, factor: sampler.finer(seed + 1, factor), "from the same noise"),
        (later, "does not pass timestep 1 "),
        (unsteady, "less than 5 times as far"),
    ],
)
def test_finer_runs_that_tell_no_exact_solution_are_refused(finer: Finer | None, message: str):
    assert message in refusal(finer)


def test_how_far_a_refused_reference_may_be_is_said():
    assert "one of 80 evaluations may be" in refusal(unsteady)


def test_what_is_no_function_is_refused():
    with pytest.raises(SamplerError, match="`finer` must be a function"):
        EulerSampler(Curved()).value(finer=3)
