from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.image_shell import STEPS, Shell
from smoothcache_core import Calibration, Schedule, calibrate, transfer
from smoothcache_image import load_pipeline, sampler_of
from smoothcache_image.sampling import PromptSampler, prompt_sampler

MORE = STEPS + 2


@pytest.fixture
def sampler(dit_folder: Path) -> PromptSampler:
    pipe = load_pipeline(dit_folder, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    return prompt_sampler(pipe, conditions=(0, 1, 2), steps=MORE)


# ---------------------------------------------------------------------------- the command


def test_a_transferred_calibration_plans_for_the_new_steps(
    shell: Shell, calibrated: Path, sampler: PromptSampler
):
    output = shell.folder / "t.safetensors"
    before = calibrated.read_bytes()
    words = ("--model", shell.model, "--steps", MORE, "--output", output)
    said = shell.run("transfer", calibrated, *words)
    old, new = Calibration.load(calibrated), Calibration.load(output)
    assert calibrated.read_bytes() == before
    assert new == transfer(old, sampler_of(sampler.pipe, sampler))
    assert new.fingerprint.transferred_from == STEPS
    assert said.splitlines() == [
        f"{output}: transferred from {STEPS} evaluations to {MORE}, an estimate. "
        f"The sites have {new.max_lag} lags; {old.max_lag} were calibrated.",
        f"Next: smoothcache-image plan {output} --compute 0.5",
    ]
    folder = shell.plan(output, "--compute", 0.5)
    schedule = Schedule.load(folder / "auto-compute0.5.json")
    assert schedule.evaluations == MORE
    assert schedule.fingerprint.transferred_from == STEPS
    said, _ = shell.sample("s", "--schedule", folder / "auto-compute0.5.json")
    assert f"{schedule.compute_fraction():.3f} of the MACs" in said


def test_it_is_said_where_no_lags_are_left(shell: Shell):
    calibration = shell.calibrate("c.safetensors", "--max-lag", 1, samples=1, sensitivity=1)
    output = shell.folder / "t.safetensors"
    words = ("--model", shell.model, "--steps", STEPS - 2, "--output", output)
    said = shell.run("transfer", calibration, *words)
    assert (
        "The sites have no lags left (1 lags of the 6 evaluations that were calibrated do not span "
        "one of the 4 that it was transferred to), so only whole evaluations can be skipped."
    ) in said
    folder = shell.plan(output, "--compute", 0.5)
    assert set(Schedule.load(folder / "auto-compute0.5.json").rows) <= {"denoiser", "guidance"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--steps requires an argument"),
        (("--steps", 0), 'Invalid value "0" for --steps. Must be > 0'),
        (("--steps", 3), "calibrated are 6, the new run has 3"),
        (("--steps", 2 * STEPS + 1), "from 4 to 2 times as many; calibrated are 6, the new"),
        (("--steps", MORE, "--solver", "dpmsolver++"), "the solver is 'DPMSolverMultistepSch"),
        (("--steps", MORE, "--prompt", "a fox"), "takes class labels, not prompts"),
        (("--steps", MORE, "--model", "./nowhere"), "there is no model folder './nowhere'"),
    ],
)
def test_what_cannot_be_transferred_to_writes_nothing(
    shell: Shell, calibrated: Path, words: Sequence[object], message: str
):
    output = shell.folder / "t.safetensors"
    given = (calibrated, "--model", shell.model, "--output", output, *words)
    assert message in shell.refused("transfer", *given)
    assert not output.exists()


def test_what_cannot_be_transferred_is_refused_before_the_model_is_loaded(
    shell: Shell, planned: Path
):
    output = shell.folder / "t.safetensors"
    none = shell.calibrate(samples=1)
    for file, message in [
        (shell.folder / "none.safetensors", "cannot read"),
        (planned / "interval-2.json", "is not a calibration file"),
        (none, f"{str(none)!r} holds nothing of whole runs to transfer: calibrate with "),
    ]:
        words = ("--model", "./nowhere", "--steps", MORE, "--output", output)
        assert message in shell.refused("transfer", file, *words)
    assert not output.exists()


def test_a_calibration_is_not_overwritten_by_what_it_becomes(
    shell: Shell, calibrated: Path, monkeypatch: pytest.MonkeyPatch
):
    before = calibrated.read_bytes()
    monkeypatch.chdir(calibrated.parent)
    for output in (calibrated, calibrated.name):
        words = ("--model", "./nowhere", "--steps", MORE, "--output", output)
        message = shell.refused("transfer", calibrated, *words)
        assert message == (
            f"smoothcache-image: {str(output)!r} is the calibration that is transferred; give "
            "another --output"
        )
    assert calibrated.read_bytes() == before


def test_what_was_transferred_is_not_transferred_again(shell: Shell, calibrated: Path):
    output, again = (shell.folder / name for name in ("t.safetensors", "again.safetensors"))
    words = ("--model", shell.model, "--steps", MORE)
    shell.run("transfer", calibrated, *words, "--output", output)
    message = shell.refused("transfer", output, *words, "--output", again)
    assert "this calibration was itself transferred, from 6 evaluations" in message
    assert not again.exists()


# ---------------------------------------------------------------------------- in Python


def test_pipelines_are_transferred_though_sample_returns_pictures(
    calibrated: Path, sampler: PromptSampler
):
    calibration = Calibration.load(calibrated)
    pipe = sampler.pipe
    before = dict(vars(pipe.vae))

    def sample(seed: int) -> object:
        generator = torch.Generator().manual_seed(seed)
        labels = sampler.conditions_of(seed)
        return pipe(labels, generator=generator, num_inference_steps=MORE).images

    found = transfer(calibration, sampler_of(pipe, sample), seed=3)
    expected = transfer(calibration, sampler, seed=3)
    assert found == expected
    assert found.dynamics is not None
    assert found.dynamics.response.knows_end
    assert vars(pipe.vae) == before


def test_branches_that_are_named_are_those_of_both(lumina2_folder: Path):
    pipe: Any = load_pipeline(lumina2_folder, device="cpu")
    pipe.set_progress_bar_config(disable=True)

    def sample(seed: int, *, steps: int = STEPS) -> object:
        return pipe(
            "a fox", height=64, width=64, cfg_normalization=False, num_inference_steps=steps,
            generator=torch.Generator().manual_seed(seed),
        ).images  # fmt: skip

    branches = ("cond", "uncond")
    first = sampler_of(pipe, sample, branches=branches)
    calibration = calibrate(first, seeds=[0], max_lag=3, sensitivity=1, progress=False)
    more = sampler_of(pipe, lambda seed: sample(seed, steps=MORE), branches=branches)
    found = transfer(calibration, more)
    assert (found.evaluations, found.branches) == (MORE, branches)
