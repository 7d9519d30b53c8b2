"""A pipeline with a denoiser that no adapter is known for: a UNet, guided in one batch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.hook_reference import assert_restored, snapshot
from kit.image_folders import stable_diffusion
from kit.image_shell import Shell
from smoothcache_core import Calibration, Schedule, calibrate, evaluate, fit, plan
from smoothcache_core.adapters.late import LateAdapter
from smoothcache_core.errors import AdapterError
from smoothcache_image import ADAPTERS, DIT, cached_pipeline, load_pipeline, sampler_of
from smoothcache_image.sampling import prompt_sampler

STEPS = 10
pytestmark = pytest.mark.usefixtures("one_thread")


def pipeline() -> Any:
    pipe = stable_diffusion()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sampling(pipe: Any, guidance: float = 4.0) -> Callable[[int], None]:
    def sample(seed: int) -> None:
        size = {"height": 16, "width": 16, "num_inference_steps": STEPS}
        random = torch.Generator().manual_seed(seed)
        pipe("fox", **size, guidance_scale=guidance, generator=random, output_type="pt")

    return sample


@pytest.fixture(scope="module")
def calibration(one_thread: None) -> Calibration:
    pipe = pipeline()
    sampler = sampler_of(pipe, sampling(pipe))
    return calibrate(sampler, seeds=range(8), sensitivity=1, progress=False)


def stored(schedule: Schedule, folder: Path) -> Schedule:
    return Schedule.load(schedule.save(folder / "schedule.json"))


def test_nothing_is_run_before_something_is_measured():
    pipe, runs = pipeline(), list[int]()
    sampler = sampler_of(pipe, runs.append)
    assert runs == []
    assert isinstance(sampler.adapter, LateAdapter)
    assert (sampler.adapter.latent, sampler.adapter.timestep) == ("sample", "timestep")


def test_attentions_and_feed_forwards_of_a_unet_are_found(calibration: Calibration):
    paths = {site.path for site in calibration.sites}
    for part in ("attn1", "attn2", "ff"):
        assert f"down_blocks.0.attentions.0.transformer_blocks.0.{part}" in paths
        assert f"mid_block.attentions.0.transformer_blocks.0.{part}" in paths
        assert f"up_blocks.1.attentions.1.transformer_blocks.0.{part}" in paths
    assert "mid_block.resnets.1" in paths


@pytest.mark.parametrize("target", ["site", "denoiser", "guidance"])
def test_a_stored_schedule_is_followed_and_takes_nothing_else(
    calibration: Calibration, target: Any, tmp_path: Path
):
    schedule = stored(plan(calibration, compute=0.7, target=target), tmp_path)
    pipe = pipeline()
    before = snapshot(pipe.unet)
    with cached_pipeline(pipe, schedule) as stats:
        sampling(pipe)(100)
    assert_restored(pipe.unet, before)
    assert (stats.runs, stats.evaluations) == (1, STEPS)
    assert stats.reuse_fraction > 0
    paths = {site.path for site in calibration.sites}
    assert set(schedule.rows) <= (paths if target == "site" else {"denoiser", "guidance"})


def test_the_half_with_the_weight_above_one_is_the_conditional_one(calibration: Calibration):
    assert calibration.dynamics is not None
    assert calibration.dynamics.conditional == 1  # Stable Diffusion has the empty prompt first
    assert calibration.dynamics.response.weights[0] == pytest.approx([-3.0, 4.0], abs=1e-3)


def test_skipped_unconditional_passes_err_as_little_as_promised(calibration: Calibration):
    schedule = plan(calibration, compute=0.7, target="guidance")
    assert 0 in schedule.rows["guidance"]
    pipe = pipeline()
    sampler = sampler_of(pipe, sampling(pipe))
    report = evaluate(sampler, {"guided": schedule}, seeds=[50], progress=False)
    assert report.row("guided").rel_l2 < 10 * schedule.prediction.error  # pyright: ignore[reportOptionalMemberAccess]
    fitted = fit(sampler, schedule, seeds=[60, 61], progress=False)
    assert fitted.rows == schedule.rows


def test_without_guidance_no_half_is_conditional():
    pipe = pipeline()
    sampler = sampler_of(pipe, sampling(pipe, 1.0), adapter="whole")
    measured = calibrate(sampler, seeds=[0], progress=False)
    assert measured.dynamics is not None
    assert measured.dynamics.conditional is None


# ---------------------------------------------------------------------------- what a user says


def test_an_adapter_that_is_given_is_taken():
    pipe = pipeline()
    assert sampler_of(pipe, sampling(pipe), adapter=DIT).adapter is DIT
    assert sampler_of(pipe, sampling(pipe), adapter="diffusers-dit").adapter is DIT


def test_whole_evaluations_only_have_no_sites():
    pipe = pipeline()
    whole = sampler_of(pipe, sampling(pipe), adapter="whole").adapter
    assert whole.sites(pipe.unet) == ()
    assert whole.name == "whole-evaluations"


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(AdapterError, match=r"no adapter 'dit'; give 'auto', .*'diffusers-dit'"):
        sampler_of(pipeline(), print, adapter="dit")


def test_a_known_class_may_be_found_by_structure(dit_folder: Path):
    pipe = load_pipeline(dit_folder, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    sampler = prompt_sampler(pipe, conditions=(0, 1), steps=4, adapter="structure")
    known = prompt_sampler(pipe, conditions=(0, 1), steps=4)
    assert known.adapter is DIT
    assert sampler.adapter.name == "DiTTransformer2DModel"
    assert sampler.adapter.sites(pipe.transformer) == DIT.sites(pipe.transformer)
    assert "given_adapter" not in sampler.settings
    assert replace(sampler, steps=5).adapter.name == sampler.adapter.name


def test_a_schedule_that_does_not_say_how_its_sites_are_found_is_refused():
    schedule = Schedule(evaluations=STEPS, rows={"attn1": (1, *[0] * 9)})
    with pytest.raises(AdapterError, match=r"names parts of the UNet2DConditionModel, 'attn1'"):
        cached_pipeline(pipeline(), schedule)


def test_whole_evaluations_of_a_schedule_made_by_hand_are_skipped():
    pipe = pipeline()
    schedule = Schedule(evaluations=STEPS, rows={"denoiser": (1, 0, *[1] * 8)})
    with cached_pipeline(pipe, schedule) as stats:
        sampling(pipe)(0)
    assert stats.reused == {"denoiser": 1}


def test_names_of_adapters_are_not_those_of_ways_to_find_one():
    assert not {adapter.name for adapter in ADAPTERS} & {"auto", "structure", "whole"}


# ---------------------------------------------------------------------------- the commands


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    folder = tmp_path_factory.mktemp("unknown")
    stable_diffusion().save_pretrained(folder / "model")
    return Shell(model=folder / "model", folder=folder)


SAID = ("--prompt", "fox", "--steps", 6, "--size", 16, "--device", "cpu")


def test_the_commands_know_what_to_do_with_an_unknown_model(shell: Shell):
    file, schedule = shell.folder / "c.safetensors", shell.folder / "s.json"
    model = ("--model", shell.model, *SAID)
    said = shell.run("calibrate", *model, "--samples", 2, "--sensitivity", 1, "-o", file)
    assert "No adapter is known for UNet2DConditionModel, so what can be skipped was found" in said
    assert "Continuing" in shell.run(
        "calibrate", *model, "--samples", 3, "--sensitivity", 1, "-o", file
    )
    shell.run("plan", file, "--compute", 0.6, "--target", "kind", "-o", schedule)
    folder = shell.folder / "samples"
    said = shell.run("sample", *model, "--schedule", schedule, "-o", folder)
    assert "reused" in said


def test_a_command_can_be_told_to_skip_whole_evaluations_only(shell: Shell):
    file = shell.folder / "whole.safetensors"
    words = ("--model", shell.model, *SAID, "--samples", 2, "-o", file, "--adapter", "whole")
    said = shell.run("calibrate", *words)
    assert "No adapter is known" not in said
    assert Calibration.load(file).sites == ()


def test_an_unknown_adapter_is_refused_by_name(shell: Shell):
    message = shell.refused("calibrate", "--model", shell.model, *SAID, "--adapter", "nothing")
    assert "there is no adapter 'nothing'" in message
