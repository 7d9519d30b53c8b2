"""What calibration learns of whole runs: feedback, effects, products; and how it is kept."""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from kit.helpers import anatomy
from kit.planning import MIXTURE, WAVE, Mixture, OneStep, Passes, ToySampler, Wave
from safetensors.numpy import load as load_arrays, save as save_arrays
from smoothcache_core import Calibration, Sampler, calibrate, plan
from smoothcache_core.calibrating.run_sensitivity import measure_dynamics
from smoothcache_core.calibrating.run_statistics import places_of
from smoothcache_core.calibration.dynamics import Dynamics
from smoothcache_core.errors import CalibrationError, ScheduleError
from smoothcache_core.numerics.reproducible_sum import joined
from smoothcache_core.sampling.recording import record as recorded
from torch import Tensor, nn

STEPS = 7
PLACES = places_of(STEPS)
GAINS = (1.0, 0.5, 0.25)
Run = Callable[[int], object]


def sampler_of(passes: Passes = "one", **settings: Any) -> ToySampler:
    return ToySampler(Mixture(GAINS, STEPS), lambda: OneStep(STEPS), passes, **settings)


def record(sampler: ToySampler, *, sample: Run | None = None, **settings: Any) -> Calibration:
    given = {"seeds": (0, 1, 2), "max_lag": 3, "progress": False}
    return calibrate(sampler.value(run=sample or sampler), **given | settings)


def dynamics_of(calibration: Calibration) -> Dynamics:
    assert not calibration.remark
    assert calibration.dynamics is not None
    return calibration.dynamics


# ---------------------------------------------------------------------------- what is measured


@pytest.mark.parametrize("passes", ["one", "batched", "sequential"])
def test_feedback_of_an_affine_denoiser_is_exact(passes: Passes):
    sampler = sampler_of(passes)
    dynamics = dynamics_of(record(sampler, seeds=(3,)))
    assert isinstance(sampler.model, Mixture)
    expected = sampler.model.feedback()[:, : 1 if passes == "one" else 2].numpy()
    np.testing.assert_allclose(dynamics.gain()[2:], expected[2:], atol=1e-5)
    np.testing.assert_allclose(dynamics.r_squared(), 1.0, atol=1e-6)
    assert (dynamics.gain()[:2] == 0.0).all()  # no drift gets there: nothing is skipped before


def test_feedback_of_a_bent_denoiser_explains_a_part():
    bent = ToySampler(Mixture(GAINS, STEPS, bend=2.0), lambda: OneStep(STEPS))
    explained = dynamics_of(record(bent)).r_squared()[2:]
    assert ((explained > 0.0) & (explained < 1.0 - 1e-3)).all()


@pytest.mark.parametrize("passes", ["one", "batched"])
def test_effects_of_an_affine_denoiser_are_exact(passes: Passes):
    """A change of the output is multiplied by 1 - h a in every step that follows."""
    sampler = sampler_of(passes)
    dynamics = dynamics_of(record(sampler, seeds=(3, 4), sensitivity=(3, 4)))
    assert isinstance(sampler.model, Mixture)
    both = sampler.model.feedback()
    slopes = both[:, 0] if passes == "one" else 2.5 * both[:, 0] - 1.5 * both[:, 1]
    sizes = torch.tensor(OneStep(STEPS).sizes)
    growth = 1.0 - sizes * slopes
    ends = [sampler(seed).square().mean().sqrt() for seed in (3, 4)]
    expected = [
        float(np.mean([sizes[i] * growth[i + 1 :].prod() / end for end in ends]))
        for i in range(STEPS)
    ]
    np.testing.assert_allclose(dynamics.final_sensitivity()[1:], expected[1:], rtol=1e-4)
    assert dynamics.final_sensitivity()[0] == dynamics.final_sensitivity()[1]  # not measured
    assert dynamics.effect_counts.tolist() == [0, 2, 2, 2, 2, 2, 2]


def test_effects_are_interpolated_geometrically():
    dynamics = dynamics_of(record(sampler_of()))
    counts = dynamics.effect_counts.copy()
    counts[[2, 3, 4]] = 0
    effects = dynamics.effects * (counts > 0)
    few = replace(dynamics, effects=effects, effect_counts=counts)
    one, other = dynamics.final_sensitivity()[[1, 5]]
    np.testing.assert_allclose(
        few.final_sensitivity()[2:5], one * (other / one) ** (np.arange(1, 4) / 4)
    )


@pytest.mark.parametrize("passes", ["one", "batched"])
def test_products_are_the_mean_over_samples(passes: Passes):
    sampler = sampler_of(passes, samples=3)
    calibration = record(sampler, seeds=(0, 1))
    grams = []
    for seed in (0, 1):
        run = recorded(sampler.value(), seed)
        vectors = torch.cat((run.latents, run.end[None], *run.outputs.unbind(dim=1))).double()
        grams.append((vectors @ vectors.T / vectors.shape[1]).numpy())
    dynamics = dynamics_of(calibration)
    assert dynamics.samples == calibration.samples == 6
    np.testing.assert_allclose(joined(dynamics.gram) / 6, np.mean(grams, axis=0), rtol=1e-12)


def test_products_of_sites_are_those_of_their_outputs():
    sampler, outputs = sampler_of("batched"), []
    calibration = record(sampler, seeds=(0,), max_lag=3)
    assert isinstance(sampler.model, Mixture)
    handle = sampler.model.parts[1].register_forward_hook(lambda *call: outputs.append(call[2]))
    sampler(0)
    handle.remove()
    assert calibration.products is not None
    products = joined(calibration.products)[1] / calibration.samples
    assert products.shape == (STEPS, 4)
    for i, lag in itertools.product(range(STEPS), range(4)):
        expected = (outputs[i].double() * outputs[i - lag].double()).mean() if i >= lag else 0.0
        assert products[i, lag] == pytest.approx(float(expected), rel=1e-12)


# ---------------------------------------------------------------------------- what it costs


@pytest.mark.parametrize("passes", ["one", "batched", "sequential"])
def test_the_calls_of_the_denoiser_are_those_documented(passes: Passes):
    """About 3 more runs for the perturbed ones; and at each place all sites, and one to keep."""
    sampler = sampler_of(passes)
    assert isinstance(sampler.model, Mixture)
    counts = []
    for sensitivity in (0, 1, 2):
        sampler.model.calls = 0
        record(sampler, sensitivity=sensitivity)
        counts.append(sampler.model.calls)
    several = 2 if passes == "sequential" else 1
    perturbed = sum(STEPS - 1 - place for place in PLACES)
    replaced = len(PLACES) * (len(GAINS) + 1)
    assert counts[0] == 3 * STEPS * several
    assert np.diff(counts).tolist() == [(perturbed + replaced) * several] * 2


def test_no_sensitivity_records_nothing_of_it():
    sampler = sampler_of("batched")
    calibration = record(sampler, sensitivity=0)
    assert (calibration.dynamics, calibration.influence, calibration.remark) == (None, None, "")
    assert calibration.products is not None
    assert sampler.runs == 3
    full = record(sampler)
    assert full.dynamics is not None
    assert (full.totals == calibration.totals)[~np.isnan(full.totals)].all()
    with pytest.raises(ScheduleError, match="this calibration has no sensitivities"):
        plan(calibration, compute=0.5)


def test_seeds_that_are_named_are_perturbed():
    calibration = record(sampler_of(), seeds=(4, 5, 6), sensitivity=[6, 99])
    assert dynamics_of(calibration).effect_counts.tolist() == [0, 1, 1, 1, 1, 1, 1]
    assert dynamics_of(calibration).samples == 6
    nobody = dynamics_of(record(sampler_of(), sensitivity=[99]))
    assert not nobody.measured
    with pytest.raises(CalibrationError, match="measured no sensitivity; calibrate with"):
        nobody.final_sensitivity()
    with pytest.raises(CalibrationError, match="at least 0, got -1"):
        record(sampler_of(), sample=lambda seed: pytest.fail("ran"), sensitivity=-1)


def test_an_evaluation_is_timed():
    dynamics = dynamics_of(record(sampler_of("sequential")))
    assert 0.0 < dynamics.seconds < 1.0
    assert dynamics.seconds_at(0.5) == dynamics.seconds * STEPS / 2
    assert replace(dynamics, seconds=0.0).seconds_at(0.5) is None


# ---------------------------------------------------------------------------- without a final one


def test_without_a_final_latent_the_last_evaluation_has_no_effect_of_its_own():
    sampler = sampler_of()
    seen = dynamics_of(record(sampler))
    calibration = record(sampler, sample=sampler.without_latent)
    assert calibration.remark.startswith("`run` returns no final latent")
    dynamics = dynamics_of(replace(calibration, remark=""))
    assert not dynamics.response.knows_end
    assert dynamics.effect_counts.tolist() == [0, 2, 2, 2, 2, 2, 0]
    assert dynamics.final_sensitivity()[-1] == dynamics.final_sensitivity()[-2]
    np.testing.assert_allclose(dynamics.gain(), seen.gain(), rtol=1e-9)
    assert (dynamics.response.matrix[:-1] == seen.response.matrix[:-1]).all()


# ---------------------------------------------------------------------------- merging and files


@pytest.mark.parametrize("passes", ["one", "sequential"])
def test_parts_merge_to_what_one_process_measures(passes: Passes):
    sampler = sampler_of(passes)
    whole = record(sampler, seeds=(0, 1, 2, 3), sensitivity=[1, 2])
    parts = [record(sampler, seeds=(seed,), sensitivity=[1, 2]) for seed in (2, 0, 3, 1)]
    assert Calibration.merge(*parts) == whole
    pairs = Calibration.merge(*parts[:2]), Calibration.merge(*parts[2:])
    assert Calibration.merge(*reversed(pairs)) == whole
    merged = dynamics_of(Calibration.merge(*parts))
    for name, array in dynamics_of(whole).arrays().items():
        assert array.tobytes() == merged.arrays()[name].tobytes(), name
    assert merged.response_seed == 0
    assert parts[0] != parts[1]


def test_everything_comes_back_from_a_file(tmp_path: Path):
    calibration = record(sampler_of("batched"))
    back = Calibration.load(calibration.save(tmp_path / "calibration"))
    assert back == calibration
    before, after = dynamics_of(calibration), dynamics_of(back)
    assert after.seconds == before.seconds
    assert after.response.residual == before.response.residual
    assert (after.conditional, after.samples, after.measured) == (0, 6, True)
    assert (after.final_sensitivity() == before.final_sensitivity()).all()
    assert plan(back, compute=0.6) == plan(calibration, compute=0.6)


def test_files_of_an_older_version_are_refused_in_a_line(tmp_path: Path):
    file = record(sampler_of(), seeds=(0,)).save(tmp_path / "calibration")
    content = file.read_bytes()
    arrays, size = load_arrays(content), int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["smoothcache"])
    del header["checksum"]
    for change, message in (
        ({"version": 1}, "version 1, expected 2"),
        ({"format": "other"}, "format 'other'"),
        ({"dynamics": {}}, "dynamics.samples: Field required"),
    ):
        metadata = {"smoothcache": json.dumps(header | change)}
        file.write_bytes(save_arrays(arrays, metadata=metadata))
        with pytest.raises(
            CalibrationError, match=f"is not a calibration file: .*{message}"
        ) as told:
            Calibration.load(file)
        assert "\n" not in str(told.value)
    del arrays["dynamics.gram"]
    file.write_bytes(save_arrays(arrays, metadata={"smoothcache": json.dumps(header)}))
    with pytest.raises(CalibrationError, match=r"the array 'dynamics.gram' is missing"):
        Calibration.load(file)


class Killed(Exception):
    pass


@pytest.mark.parametrize("kill_at", [3, STEPS + 2, STEPS + 17, STEPS + 30, 2 * STEPS + 40])
def test_a_killed_calibration_leaves_the_model_and_resumes_to_the_same(
    kill_at: int, tmp_path: Path
):
    sampler, checkpoint = sampler_of("batched"), tmp_path / "calibration"
    model = sampler.model
    assert isinstance(model, Mixture)
    expected = record(sampler)
    model.forget()
    before = anatomy(model)
    count = itertools.count()

    def kill(*_: object) -> None:
        if next(count) == kill_at:
            raise Killed

    handle = model.parts[0].register_forward_pre_hook(kill)
    with pytest.raises(Killed):
        record(sampler, checkpoint=checkpoint)
    handle.remove()
    model.forget()
    assert anatomy(model) == before
    resumed = record(sampler, checkpoint=checkpoint)
    assert resumed == expected
    assert Calibration.load(checkpoint) == expected


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (0, 2, "it has no sensitivities; give `sensitivity=0`"),
        (2, 0, "it has sensitivities, which would be lost with `sensitivity=0`"),
    ],
)
def test_a_checkpoint_with_other_sensitivities_is_refused(
    first: int, second: int, message: str, tmp_path: Path
):
    sampler, checkpoint = sampler_of(), tmp_path / "calibration"
    record(sampler, seeds=(0,), sensitivity=first, checkpoint=checkpoint)
    with pytest.raises(CalibrationError, match=message):
        record(sampler, sample=lambda seed: pytest.fail("ran"), sensitivity=second,
               checkpoint=checkpoint)  # fmt: skip
    same = record(sampler, sensitivity=first, checkpoint=checkpoint)
    assert same.seeds == (0, 1, 2)


def test_runs_with_and_without_guidance_do_not_merge():
    one, both = (record(sampler_of(passes)) for passes in ("one", "batched"))
    alike = replace(both, fingerprint=one.fingerprint, seeds=(7, 8, 9))
    with pytest.raises(CalibrationError, match=r"conditioning passes\) \[\(7, 1\), \(7, 2\)\]"):
        Calibration.merge(one, alike)


# ---------------------------------------------------------------------------- what cannot be had


class Clipping(OneStep):
    """Clips the latent after every step."""

    def step(self, output: Tensor, timestep: Any, latent: Tensor) -> tuple[Tensor]:
        return (super().step(output, timestep, latent)[0].clamp(-0.5, 0.5),)


def test_a_sampler_that_clips_keeps_the_errors_and_says_why():
    sampler = sampler_of()
    sampler.solver = lambda: Clipping(STEPS)
    plain = record(sampler, sensitivity=0)
    calibration = record(sampler)
    assert calibration.dynamics is None
    assert calibration.influence is None
    assert "not affine in the denoiser's outputs (relative residual" in calibration.remark
    assert (calibration.totals == plain.totals)[~np.isnan(plain.totals)].all()
    with pytest.raises(
        ScheduleError, match=r"no error can be predicted from this calibration: .*it clips"
    ):
        plan(calibration, compute=0.5)
    merged = Calibration.merge(calibration, record(sampler_of(), seeds=(9,)))
    assert merged.dynamics is None
    assert merged.remark == calibration.remark


def test_a_sampler_that_clips_at_its_end_is_known_but_for_its_last_step():
    sampler = sampler_of()
    plain, clipped = record(sampler), record(sampler, sample=lambda seed: sampler(seed).clamp(0, 1))
    assert "scaled, clipped or laid out in another way" in clipped.remark
    assert clipped.dynamics is not None
    found = clipped.dynamics.response.matrix
    expected = dynamics_of(plain).response.matrix
    np.testing.assert_allclose(found[:-1], expected[:-1], atol=1e-6)
    assert not found[-1].any()


def test_a_denoiser_that_overflows_where_it_is_perturbed_is_not_finite():
    class Exploding(Mixture):
        def forward(self, hidden_states: Tensor, timestep: int, label: Any = None) -> Tensor:
            output = super().forward(hidden_states, timestep, label)
            return output if self.calls <= STEPS else output / 0.0

    sampler = ToySampler(Exploding(GAINS, STEPS), lambda: OneStep(STEPS))
    calibration = record(sampler, seeds=(0,))
    assert calibration.dynamics is None
    assert "not finite" in calibration.remark


class Ragged(nn.Module):
    """Takes pictures of several sizes as a list."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(4, 4)])

    def forward(self, hidden_states: Sequence[Tensor], timestep: int) -> list[Tensor]:
        del timestep
        return [self.parts[0](torch.cat(list(hidden_states)))]


def test_latents_of_several_sizes_keep_the_errors_and_say_why():
    model = Ragged()

    def sample(seed: int) -> None:
        latents = [torch.full((rows, 4), float(seed)) for rows in (2, 3)]
        for timestep in (3, 2, 1):
            model(latents, timestep)
            latents = [latent + 1.0 for latent in latents]

    sampler = Sampler(model=model, adapter=MIXTURE, run=sample)
    calibration = calibrate(sampler, seeds=(1, 2), max_lag=3, progress=False)
    assert calibration.remark == "the latents of a batch must be of one shape, got [(2, 4), (3, 4)]"
    assert calibration.dynamics is None
    assert np.isfinite(calibration.mean()[..., 0, :2]).all()


def test_dynamics_of_a_solver_without_sites_are_measured_too():
    """Only the denoiser is needed."""

    def make() -> Any:
        scheduler = DDIMScheduler(clip_sample=False)
        scheduler.set_timesteps(5)
        return scheduler

    model = Wave()
    sampler = ToySampler(model, make).value(WAVE)
    plain = recorded(sampler, 0)
    dynamics = measure_dynamics(sampler, plain, 2, probes=[1, 4], conditional=None)
    assert dynamics.effect_counts.tolist() == [0, 1, 0, 0, 1]
    assert (dynamics.sum_dx2[:, :2] == 0.0).all()
    assert (joined(dynamics.sum_dx2)[2:] > 0.0).all()
