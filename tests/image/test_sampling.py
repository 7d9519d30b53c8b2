from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from kit.image_folders import PIXELS, SIZE
from smoothcache_core import calibrate
from smoothcache_core.errors import PipelineError, SamplerError
from smoothcache_core.sources.interval import interval_of
from smoothcache_image import cached_pipeline, load_pipeline, sampler_of
from smoothcache_image.conditions import choose_conditions, label_name
from smoothcache_image.sampling import PromptSampler, prompt_sampler
from torch import Tensor

diffusers_warns = pytest.mark.filterwarnings("ignore:__array__ implementation")  # under numpy 2


@pytest.fixture(scope="module")
def dit(dit_folder: Path) -> Any:
    pipe = load_pipeline(dit_folder, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def lumina2(lumina2_folder: Path) -> Any:
    pipe = load_pipeline(lumina2_folder, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def dit_sampler(pipe: Any, **settings: Any) -> PromptSampler:
    given = {"conditions": (0, 1, 2), "steps": 3, "samples": 2}
    return prompt_sampler(pipe, **given | settings)


def lumina2_sampler(pipe: Any, **settings: Any) -> PromptSampler:
    given = {"conditions": ("fox", "hen owl"), "steps": 3, "samples": 2, "size": SIZE}
    return prompt_sampler(pipe, **given | settings)


# ---------------------------------------------------------------------------- samples


def test_pictures_are_those_of_the_pipeline(dit: Any):
    sampler = dit_sampler(dit, guidance=1.5)
    expected = dit(
        class_labels=[2, 0],
        guidance_scale=1.5,
        generator=torch.Generator().manual_seed(4),
        num_inference_steps=3,
        output_type="pt",
    ).images
    assert torch.equal(sampler.decode(sampler(4)), expected)


def test_pictures_of_prompts_are_those_of_the_pipeline(lumina2: Any):
    sampler = lumina2_sampler(lumina2)
    expected = lumina2(
        prompt=["fox", "hen owl"],
        generator=torch.Generator().manual_seed(1),
        num_inference_steps=3,
        height=SIZE,
        width=SIZE,
        output_type="pt",
    ).images
    pictures = sampler.decode(sampler(1))
    assert torch.equal(pictures, expected)
    assert pictures.shape == (2, 3, PIXELS, PIXELS)


def test_the_seed_is_all_the_noise(dit: Any):
    sampler = dit_sampler(dit)
    assert torch.equal(sampler(1), sampler(1))
    assert not torch.equal(sampler(1), sampler(4))


class Watched(DPMSolverMultistepScheduler):
    """Keeps the samples it is given and the noise that it adds to them."""

    def watch(self, sample: Tensor | None, noise: Tensor | None) -> None:
        assert sample is not None
        assert noise is not None
        self.samples.append(sample)
        self.noise.append(noise)

    def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        super().set_timesteps(*args, **kwargs)
        self.samples: list[Tensor] = []
        self.noise: list[Tensor] = []

    def dpm_solver_first_order_update(
        self, output: Tensor, *, sample: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
        self.watch(sample, noise)
        return super().dpm_solver_first_order_update(output, sample=sample, noise=noise)

    def multistep_dpm_solver_second_order_update(
        self, outputs: list[Tensor], *, sample: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
        self.watch(sample, noise)
        return super().multistep_dpm_solver_second_order_update(outputs, sample=sample, noise=noise)


@pytest.fixture
def noisy(dit_folder: Path) -> Any:
    """A pipeline whose solver draws noise, and is given no generator to draw it from."""
    pipe: Any = load_pipeline(dit_folder, device="cpu", solver="sde-dpmsolver++")
    pipe.scheduler = Watched.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@diffusers_warns
def test_the_seed_is_all_the_noise_of_a_stochastic_solver(noisy: Any):
    sampler = dit_sampler(noisy)
    first = sampler(1)
    torch.manual_seed(99)
    assert torch.equal(sampler(1), first)


@diffusers_warns
def test_a_stochastic_solver_leaves_the_global_generator_alone(noisy: Any):
    before = torch.get_rng_state()
    dit_sampler(noisy)(0)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(RuntimeError, match="dtype of NoneType"):
        dit_sampler(noisy, conditions=(None,))(0)
    assert torch.equal(torch.get_rng_state(), before)


@diffusers_warns
def test_a_cached_run_has_the_noise_of_the_plain_run(noisy: Any):
    sampler = dit_sampler(noisy)
    taken = sampler_of(noisy, sampler, samples=sampler.samples)
    calibration = calibrate(taken, seeds=[0], max_lag=1, progress=False)
    with cached_pipeline(noisy, interval_of(calibration, 2)):
        reused = sampler(0)
    noise = noisy.scheduler.noise
    assert not torch.equal(sampler(0), reused)
    assert len(noise) == 3
    assert all(torch.equal(*pair) for pair in zip(noise, noisy.scheduler.noise, strict=True))


@diffusers_warns
def test_every_step_of_every_seed_has_noise_of_its_own(noisy: Any):
    sampler = dit_sampler(noisy, guidance=1.0)
    drawn = []
    for seed in range(3):
        sampler(seed)
        drawn += [noisy.scheduler.samples[0], *noisy.scheduler.noise]
    assert len({tuple(each.flatten().tolist()) for each in drawn}) == 3 * (1 + 3)


def test_guidance_reaches_the_pipeline(dit: Any):
    own, none = dit_sampler(dit), dit_sampler(dit, guidance=1.0)
    assert torch.equal(own(0), dit_sampler(dit, guidance=4.0)(0))
    assert not torch.equal(own(0), none(0))


def test_the_autoencoder_is_as_before(dit: Any):
    before = dict(vars(dit.vae))
    dit_sampler(dit)(0)
    with pytest.raises(RuntimeError, match="dtype of NoneType"):
        dit_sampler(dit, conditions=(None,))(0)
    assert vars(dit.vae) == before


def test_conditions_go_round_over_the_runs(dit: Any):
    sampler = dit_sampler(dit)
    assert [sampler.conditions_of(seed) for seed in range(4)] == [[0, 1], [2, 0], [1, 2], [0, 1]]


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"conditions": ()}, "nothing to sample"),
        ({"steps": 0}, "a run has at least 1 step, got steps=0"),
        ({"samples": 0}, "a run has at least 1 sample, got samples=0"),
        ({"size": 16}, "DiTPipeline has one size of its own"),
    ],
)
def test_wrong_settings_are_refused(dit: Any, settings: dict[str, Any], message: str):
    with pytest.raises((PipelineError, SamplerError), match=message):
        dit_sampler(dit, **settings)


# ---------------------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("labels", "expected"),
    [("2,0", [2, 0]), ("0-2", [0, 1, 2]), ("owl, 0-1", [2, 0, 1]), ("chicken", [1])],
)
def test_labels_are_numbers_ranges_and_names(dit: Any, labels: str, expected: list[int]):
    assert choose_conditions(dit, labels=labels, prompts=()) == expected


def test_no_labels_are_all_classes(dit: Any):
    assert choose_conditions(dit, labels=None, prompts=()) == [0, 1, 2]


def test_many_classes_are_all_there_but_not_in_order(dit_folder: Path):
    pipe: Any = load_pipeline(dit_folder, device="cpu")
    pipe.labels = {str(number): number for number in range(1000)}
    chosen = choose_conditions(pipe, labels=None, prompts=())
    assert sorted(chosen) == list(range(1000))
    assert chosen != sorted(chosen)
    assert chosen == choose_conditions(pipe, labels=None, prompts=())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("wolf", r"'wolf' is no class of this model"),
        ("1-", r"'1-' is no class of this model"),
        ("3", r"classes '3' are not among 0-2"),
        ("2-1", r"classes '2-1' are not among 0-2"),
        ("", r"'' is no class of this model"),
    ],
)
def test_unknown_labels_are_refused(dit: Any, labels: str, message: str):
    with pytest.raises(PipelineError, match=message):
        choose_conditions(dit, labels=labels, prompts=())


def test_each_pipeline_wants_its_own_kind_of_condition(dit: Any, lumina2: Any):
    assert choose_conditions(lumina2, labels=None, prompts=["fox"]) == ["fox"]
    with pytest.raises(PipelineError, match="takes class labels, not prompts"):
        choose_conditions(dit, labels=None, prompts=["fox"])
    with pytest.raises(PipelineError, match="takes prompts, not class labels"):
        choose_conditions(lumina2, labels="0", prompts=())
    with pytest.raises(PipelineError, match="give at least one"):
        choose_conditions(lumina2, labels=None, prompts=())


def test_labels_have_names(dit: Any):
    assert label_name(dit, 0) == "fox"
    assert label_name(dit, 1) in ("hen", "chicken")
    assert label_name(dit, 7) == "7"
    assert label_name(dit, "a red fox " * 9) == ("a red fox " * 9)[:40]


# ---------------------------------------------------------------------------- caching


def test_branches_are_named_where_guidance_is_sequential(dit: Any, lumina2: Any):
    assert dit_sampler(dit).branches == ()
    assert lumina2_sampler(lumina2).branches == ("cond", "uncond")
    assert lumina2_sampler(lumina2, guidance=1.0).branches == ()


@pytest.mark.parametrize("kind", ["dit", "lumina2"])
def test_a_calibrated_pipeline_is_cached(kind: str, request: pytest.FixtureRequest):
    pipe = request.getfixturevalue(kind)
    sampler = dit_sampler(pipe) if kind == "dit" else lumina2_sampler(pipe)
    taken = sampler_of(pipe, sampler, samples=2, branches=sampler.branches)
    calibration = calibrate(taken, seeds=[0], max_lag=1, progress=False)
    plain = sampler(1)
    with cached_pipeline(pipe, interval_of(calibration, 2)) as stats:
        reused = sampler(1)
    sites, calls = len(calibration.sites), max(len(sampler.branches), 1)
    assert calibration.evaluations == 3
    assert calibration.samples == 2
    assert sum(stats.computed.values()) == 2 * sites * calls
    assert sum(stats.reused.values()) == sites * calls
    assert not torch.equal(plain, reused)
    assert torch.equal(plain, sampler(1))
