"""Cached runs simulated without the model, against real ones of a denoiser that is affine."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from hypothesis import given, strategies as st
from kit.planning import SHAPE, Mixture, Noisy, OneStep, Passes, ToySampler
from numpy.typing import NDArray
from smoothcache_core.calibrating.solver_response import measure_response
from smoothcache_core.calibration.response import Response
from smoothcache_core.numerics.least_squares import RIDGE, ridge, ridge_normal
from smoothcache_core.optimize.masks import Basis, Mask
from smoothcache_core.optimize.surrogate import ReducedRun, Simulated
from smoothcache_core.sampling.recording import record
from smoothcache_core.sampling.trajectory import Trajectory
from torch import Tensor

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # diffusers
STEPS = 8
Array = NDArray[np.float64]


class Multistep:
    """A second-order multistep solver whose timesteps are 0, 1, 2, ..."""

    def __init__(self) -> None:
        self.solver = DPMSolverMultistepScheduler(solver_order=2)
        self.solver.set_timesteps(STEPS)
        self.timesteps = torch.arange(STEPS)

    def step(self, output: Tensor, timestep: Any, latent: Tensor) -> Any:
        return self.solver.step(output, self.solver.timesteps[int(timestep)], latent)


SOLVERS = {
    "one step": lambda: OneStep(STEPS),
    "multistep": Multistep,
    "noisy": lambda: Noisy(STEPS),
}


def recorded(passes: Passes, solver: str) -> tuple[ToySampler, Trajectory, ReducedRun]:
    model = Mixture((1.0, 0.5), STEPS)
    sampler = ToySampler(model, SOLVERS[solver], passes, samples=4)
    plain = record(sampler.value(), 0)
    vectors = torch.cat((plain.latents, plain.end[None], *plain.outputs.unbind(dim=1))).double()
    gram = (vectors @ vectors.T / vectors.shape[1]).numpy()
    feedback = model.feedback()[:, : plain.parts].double().numpy()
    return sampler, plain, ReducedRun(gram, measure_response(sampler.value(), plain), feedback)


class Follower:
    """Answers a sampler's calls as a cache would, by the coefficients of a simulation."""

    def __init__(self, model: Mixture, mask: Mask, plan: Simulated, parts: int) -> None:
        self.model, self.skips, self.plan, self.parts = model, mask, plan, parts
        self.outputs: list[Tensor] = []
        self.differences: list[Tensor] = []
        self.latents: list[Tensor] = []
        self.anchor = torch.zeros(())

    def __call__(self, latent: Tensor, timestep: Any, label: Tensor) -> Tensor:
        i = int(timestep)
        self.latents.append(latent.chunk(self.parts)[0])
        if self.skips.denoiser[i]:
            self.anchor = latent
            return self.computed(i, self.model(latent, timestep, label))
        terms = zip(self.plan.terms[i], self.outputs, strict=False)
        latents = (
            self.plan.inputs.get(i, 0.0) * latent + self.plan.anchors.get(i, 0.0) * self.anchor
        )
        return sum((c * y for c, y in terms), latents)

    def computed(self, i: int, output: Tensor) -> Tensor:
        if self.parts == 2:
            one, other = output.chunk(2)
            if self.skips.guidance[i]:
                self.differences.insert(0, one - other)
            else:
                terms = zip(self.plan.differences[i], self.differences, strict=False)
                output = torch.cat((one, one - sum((c * d for c, d in terms), torch.zeros(()))))
        self.outputs.insert(0, output)
        return output


def real(
    sampler: ToySampler, plain: Trajectory, mask: Mask, plan: Simulated
) -> tuple[float, float]:
    """Return the error and drift of the real cached run."""
    model = sampler.model
    assert isinstance(model, Mixture)
    follower = sampler.model = Follower(model, mask, plan, plain.parts)
    final = sampler(plain.seed).flatten()
    sampler.model = model
    drifts = [
        float((latent.flatten() - before).norm() / before.norm())
        for i, (latent, before) in enumerate(zip(follower.latents, plain.latents, strict=True))
        if mask.denoiser[i]
    ]
    error = (final - plain.end).norm() / plain.end.norm()
    return float(error), float(np.sqrt(np.mean(np.square(drifts))))


def mask_of(text: str) -> Mask:
    """Read "1" computed, "c" conditional pass only, "." skipped."""
    return Mask(denoiser=tuple(t != "." for t in text), guidance=tuple(t == "1" for t in text))


# ---------------------------------------------------------------------------- real runs


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    ("passes", "text"),
    [
        ("one", "1.1.1.1."),
        ("one", "11..1..1"),
        ("one", "1......."),
        ("one", "111111.1"),
        ("batched", "1.1.1.1."),
        ("batched", "11..1..1"),
        ("batched", "1c1c1c1c"),
        ("batched", "11cccccc"),
        ("batched", "11c.1.c."),
        ("batched", "1c.c.c.1"),
    ],
)
@pytest.mark.parametrize("terms", [1, 2, 3])
@pytest.mark.parametrize(
    ("use_input", "use_anchor"),
    [(False, False), (True, False), (True, True)],
    ids=["outputs", "outputs and latent", "outputs and both latents"],
)
def test_the_simulation_is_the_real_run(
    passes: Passes, text: str, terms: int, use_input: bool, use_anchor: bool, solver: str
):
    sampler, plain, reduced = recorded(passes, solver)
    basis = Basis(terms=terms, use_input=use_input, use_anchor=use_anchor)
    plan = reduced.simulate(mask_of(text), basis)
    error, drift = real(sampler, plain, mask_of(text), plan)
    assert plan.error == pytest.approx(error, rel=1e-3, abs=2e-6)
    assert plan.drift == pytest.approx(drift, rel=1e-3, abs=2e-6)
    assert set(plan.terms) == {i for i, t in enumerate(text) if t == "."}
    assert set(plan.inputs) == (set(plan.terms) if use_input else set())
    assert set(plan.anchors) == (set(plan.terms) if use_anchor else set())
    assert set(plan.differences) == {i for i, t in enumerate(text) if t == "c"}
    assert all(len(c) <= terms for c in (*plan.terms.values(), *plan.differences.values()))


@pytest.mark.parametrize("passes", ["one", "batched"])
def test_computing_everything_has_no_error(passes: Passes):
    _, _, reduced = recorded(passes, "multistep")
    plan = reduced.simulate(mask_of("1" * STEPS))
    assert plan.error < 1e-12
    assert plan.drift < 1e-12
    assert (plan.terms, plan.inputs, plan.differences) == ({}, {}, {})


def test_more_freedom_is_not_worse_for_a_single_fill():
    """The last fill alone decides how near the end is."""
    _, _, reduced = recorded("one", "multistep")
    mask = mask_of("1111111.")
    errors = [
        reduced.simulate(mask, Basis(terms=terms, use_input=use_input)).error
        for terms, use_input in ((1, False), (2, False), (3, False), (3, True))
    ]
    assert all(later <= earlier * 1.001 for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < errors[0] / 2


# ---------------------------------------------------------------------------- landing


def random_run(parts: int, seed: int = 0, dimension: int = 3) -> ReducedRun:
    """Return a run in a space of few dimensions; outputs turn from one axis to the next."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(STEPS * (1 + parts) + 1, dimension))
    vectors[STEPS + 1 :] *= 0.1
    vectors[STEPS + 1 : 2 * STEPS + 1] += np.eye(dimension)[np.arange(STEPS) % dimension]
    matrix = 0.3 * np.tril(random.normal(size=(STEPS, STEPS))) + np.eye(STEPS)
    shares = np.tile([2.0, -1.0] if parts == 2 else [1.0], (STEPS, 1))
    response = Response(matrix=matrix, weights=shares, residual=0.0)
    feedback = 0.1 * random.normal(size=(STEPS, parts))
    return ReducedRun(vectors @ vectors.T, response, feedback)


@given(st.integers(0, 1000), st.text("1.", min_size=2, max_size=2))
def test_a_fill_whose_outputs_span_everything_takes_all_drift_back(seed: int, middle: str):
    """One output and the latent are not enough for three dimensions; three outputs are."""
    reduced = random_run(1, seed)
    drifting = reduced.simulate(mask_of("1." + middle + "1111")).error
    landed = reduced.simulate(mask_of("1." + middle + "111.")).error
    assert landed < 1e-3
    assert drifting > 10 * landed


@given(st.integers(0, 1000), st.text("1.", min_size=2, max_size=2))
def test_guidance_that_spans_everything_takes_all_drift_back(seed: int, middle: str):
    reduced = random_run(2, seed)
    drifting = reduced.simulate(mask_of("1." + middle + "1111")).error
    landed = reduced.simulate(mask_of("1." + middle + "111c")).error
    assert landed < 1e-3
    assert drifting > 10 * landed


def test_a_slope_that_one_output_spans_is_followed_without_error():
    """If y_i = (1 - a h) y_{i-1} exactly, whatever is skipped makes no error."""
    factors = np.cumprod(np.full(STEPS, 0.9))
    outputs = np.outer(factors, [1.0, 2.0, -1.0])
    sizes = -np.tril(np.full((STEPS, STEPS), 0.1))
    latents = np.vstack(([[5.0, 1.0, 1.0]], [5.0, 1.0, 1.0] + sizes @ outputs))
    vectors = np.vstack((latents, outputs))
    response = Response(matrix=sizes, weights=np.ones((STEPS, 1)), residual=0.0)
    reduced = ReducedRun(vectors @ vectors.T, response, np.zeros((STEPS, 1)))
    for text in ("1.......", "1.1.1.1.", "1..1..1."):
        plan = reduced.simulate(mask_of(text), Basis(terms=1, use_input=False))
        assert plan.error < 1e-5
    assert plan.terms[1][0] == pytest.approx(0.9, abs=1e-5)


def test_an_evaluation_without_effect_is_fitted_to_what_it_was():
    """There is nothing to land on where the matrix is 0."""
    reduced = random_run(1)
    reduced.response.matrix[4] = 0.0
    plan = reduced.simulate(mask_of("111111.."), Basis(terms=3))
    assert np.isfinite(plan.error)
    reduced.response.matrix[-1] = 0.0
    known = reduced.simulate(mask_of("111111.1"), Basis(terms=1))
    assert known.error > 0.0
    again = reduced.simulate(mask_of("111111.."), Basis(terms=1))
    assert again.error == known.error  # of the last latent: what comes after it was not seen


def test_a_share_of_zero_is_fitted_to_the_difference_itself():
    reduced = random_run(2)
    reduced.response.weights[:] = [1.0, 0.0]
    reduced = ReducedRun(_gram_of(reduced), reduced.response, np.zeros((STEPS, 2)))
    plan = reduced.simulate(mask_of("111c1111"))
    differences = reduced.outputs[:, 0] - reduced.outputs[:, 1]
    found = np.array(plan.differences[3]) @ differences[2::-1]
    np.testing.assert_allclose(found, differences[3], atol=1e-3)
    assert plan.error < 1e-12  # the unconditional pass has no part in it


def _gram_of(reduced: ReducedRun) -> Array:
    end = np.zeros((1, reduced.latents.shape[1]))
    end[0, 0] = reduced.size
    vectors = np.vstack((reduced.latents, end, *reduced.outputs.transpose(1, 0, 2)))
    return vectors @ vectors.T


# ---------------------------------------------------------------------------- parts


@given(st.integers(1, 4), st.integers(0, 100))
def test_ridge_is_least_squares_with_rows_that_pull_to_reuse(count: int, seed: int):
    random = np.random.default_rng(seed)
    regressors, target = random.normal(size=(count, 9)), random.normal(size=9)
    strength = RIDGE * np.mean(np.square(regressors).sum(axis=1))
    rows = np.vstack((regressors.T, np.sqrt(strength) * np.eye(count)))
    wanted = np.concatenate((target, np.sqrt(strength) * np.eye(count)[0]))
    expected = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    np.testing.assert_allclose(ridge(regressors, target), expected, rtol=1e-9, atol=1e-12)
    normal, right = regressors @ regressors.T, regressors @ target
    assert (ridge_normal(normal, right) == ridge(regressors, target)).all()


def test_where_nothing_is_told_the_newest_output_is_reused():
    assert ridge(np.zeros((3, 5)), np.zeros(5)).tolist() == [1.0, 0.0, 0.0]
    alike = ridge(np.ones((2, 5)), np.ones(5))
    np.testing.assert_allclose(alike, [1.0, 0.0], atol=1e-9)


def test_a_conditional_pass_alone_counts_a_half():
    assert mask_of("1c.c").compute == 2.0
    assert mask_of("1111").compute == 4.0


@given(st.floats(1e-3, 1e3), st.sampled_from(["1.1.1.1.", "11..1..1", "111....."]))
def test_the_error_has_no_unit(factor: float, text: str):
    reduced = random_run(1, dimension=12)
    vectors = np.vstack((reduced.latents, np.eye(1, 12) * reduced.size, reduced.outputs[:, 0]))
    runs = [
        ReducedRun(scale * vectors @ vectors.T, reduced.response, reduced.gain)
        for scale in (1.0, factor)
    ]
    one, other = (run.simulate(mask_of(text)).error for run in runs)
    assert one == pytest.approx(other, rel=1e-6)


# ---------------------------------------------------------------------------- noise


@pytest.mark.parametrize("passes", ["one", "batched"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_noise_is_what_latents_and_outputs_do_not_explain(passes: Passes, solver: str):
    _, plain, reduced = recorded(passes, solver)
    if solver != "noisy":
        assert reduced.noise < 1e-5
        return
    drawn = [
        0.5 * torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(i)).norm()
        for i in range(STEPS - 1)
    ]
    shares = [float(n / latent.norm()) for n, latent in zip(drawn, plain.latents[1:], strict=True)]
    assert 0.5 * np.sqrt(np.mean(np.square(shares))) < reduced.noise
    assert reduced.noise <= np.sqrt(np.mean(np.square(shares))) * (1 + 1e-6)
