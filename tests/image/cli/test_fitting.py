import json
from pathlib import Path

import pytest
import torch
from kit.image_shell import STEPS, Shell
from smoothcache_core import Calibration, Schedule, evaluate, fit
from smoothcache_core.schedule import Prediction
from smoothcache_image import cached_pipeline, load_pipeline, sampler_of
from smoothcache_image.sampling import PromptSampler, prompt_sampler

HALF = "denoiser-compute0.5.json"


@pytest.fixture
def sampler(dit_folder: Path) -> PromptSampler:
    pipe = load_pipeline(dit_folder, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    return prompt_sampler(pipe, conditions=(0, 1, 2), steps=STEPS)


def promise(schedule: Schedule) -> Prediction:
    assert schedule.prediction is not None
    return schedule.prediction


# ---------------------------------------------------------------------------- the command


def test_fit_measures_the_error_that_the_fitted_schedule_makes(
    shell: Shell, planned: Path, sampler: PromptSampler
):
    output = shell.folder / "fitted.json"
    words = ("--model", shell.model, "--samples", 4, "--seed", 7, "--output", output)
    said = shell.run("fit", planned / HALF, *words)
    before, after = Schedule.load(planned / HALF), Schedule.load(output)
    assert after.rows == before.rows
    assert ("The schedule is unchanged" in said) == (after.fills == before.fills)
    assert promise(after).measured
    assert after.source.seeds == (0, 1, 7, 8, 9, 10)
    assert f"{promise(after).error:.2g} (" in said
    assert "Measured on 4 samples." in said
    unseen = after.changed(source=before.source)
    policies = {"fitted": unseen}
    report = evaluate(sampler, policies, seeds=range(7, 11), warmup=0, progress=False)
    assert promise(after).error == pytest.approx(report.row("fitted").rel_l2, rel=1e-5)


def test_channels_are_scaled_and_written_beside_the_schedule(shell: Shell, planned: Path):
    output = shell.folder / "scaled" / "half.json"
    words = ("--model", shell.model, "--samples", 4, "--channels", "--output", output)
    shell.run("fit", planned / "interval-2.json", *words)
    scaled = Schedule.load(output)
    assert scaled.channels is not None
    assert {each.name for each in output.parent.iterdir()} == {output.name, scaled.channels.file}
    message = shell.refused("fit", planned / HALF, "--channels", "--model", shell.model)
    assert "skips whole evaluations" in message


def test_a_fitted_schedule_is_not_judged_with_its_seeds(shell: Shell, planned: Path):
    output = shell.folder / "fitted.json"
    shell.run("fit", planned / HALF, "--model", shell.model, "--samples", 1, "-o", output)
    message = shell.refused("evaluate", output, "--model", shell.model, "--seed", 0)
    assert "so they cannot evaluate it" in message


def test_schedules_of_plain_reuse_are_measured_only(shell: Shell, planned: Path):
    output = shell.folder / "measured.json"
    words = ("--model", shell.model, "--samples", 2, "--output", output)
    said = shell.run("fit", planned / "interval-2.json", *words)
    assert "The schedule is unchanged: no fill was better." in said
    before, after = Schedule.load(planned / "interval-2.json"), Schedule.load(output)
    assert (after.rows, after.fills) == (before.rows, before.fills)
    assert promise(after).measured


def test_plain_reuse_is_fitted_where_terms_are_given(shell: Shell, planned: Path):
    output = shell.folder / "two.json"
    words = ("--model", shell.model, "--samples", 2, "--terms", 2, "--output", output)
    said = shell.run("fit", planned / "interval-2.json", *words)
    assert "stays as it was" not in said
    before, after = Schedule.load(planned / "interval-2.json"), Schedule.load(output)
    assert {key: after.rows[key] for key in before.rows} == before.rows
    assert set(after.rows.values()) == set(before.rows.values())  # of the sites that were fitted
    assert {len(terms) for fill in after.fills.values() for terms in fill.terms.values()} <= {1, 2}
    assert after.fills
    assert promise(after).measured
    message = shell.refused("fit", planned / HALF, "--terms", 2, "--refine", 3)
    assert "omit --terms" in message


def test_refine_tries_schedules_and_remembers_them(shell: Shell, planned: Path):
    checkpoint, fitted, refined = (shell.folder / name for name in ("t.json", "f.json", "r.json"))
    words = ("--model", shell.model, "--samples", 1)
    shell.run("fit", planned / HALF, *words, "--output", fitted)
    more = ("--refine", 5, "--checkpoint", checkpoint, "--output", refined)
    shell.run("fit", planned / HALF, *words, *more)
    assert len(json.loads(checkpoint.read_text())["errors"]) == 5
    before, after = Schedule.load(fitted), Schedule.load(refined)
    assert promise(after).error <= promise(before).error
    assert after.compute_fraction() == before.compute_fraction()


def test_what_cannot_be_fitted_is_refused_before_the_model_is_loaded(shell: Shell, planned: Path):
    output = shell.folder / "f.json"
    for words, message in [
        ((planned / HALF, "--checkpoint", "t.json"), "give --refine TRIALS"),
        ((planned / "interval-2.json", "--refine", 3), "only whole evaluations are refined"),
        ((planned / "none.json",), "cannot read schedule"),
        ((planned / HALF, "--samples", 3, "--batch", 2), "must divide --samples 3"),
        ((planned / HALF,), "there is no model folder './nowhere'"),
    ]:
        assert message in shell.refused("fit", *words, "--model", "./nowhere", "--output", output)
    words = ("--model", shell.model, "--steps", STEPS + 1, "--output", output)
    assert "is for 6 evaluations" in shell.refused("fit", planned / HALF, *words)
    assert not output.exists()


# ---------------------------------------------------------------------------- in Python


def test_pipelines_are_fitted_though_sample_returns_pictures(planned: Path, sampler: PromptSampler):
    schedule = Schedule.load(planned / HALF)
    pipe = sampler.pipe
    before = dict(vars(pipe.vae))

    def sample(seed: int) -> object:
        generator = torch.Generator().manual_seed(seed)
        labels = sampler.conditions_of(seed)
        return pipe(labels, generator=generator, num_inference_steps=STEPS).images

    found = fit(sampler_of(pipe, sample), schedule, seeds=[3, 4], progress=False)
    expected = fit(sampler, schedule, seeds=[3, 4], progress=False)
    assert found == expected
    assert vars(pipe.vae) == before


def test_a_fitted_schedule_lands_nearer_than_reuse(planned: Path, sampler: PromptSampler):
    schedule = Schedule.load(planned / HALF)
    taken = sampler_of(sampler.pipe, sampler)
    fitted = fit(taken, schedule, seeds=range(3), progress=False)
    plain = sampler(50)
    errors = []
    for each in (fitted, schedule.changed(fills={})):
        with cached_pipeline(sampler.pipe, each):
            errors.append(float((sampler(50) - plain).norm()))
    assert errors[0] < errors[1]


def test_calibrations_know_how_pipelines_end(calibrated: Path):
    dynamics = Calibration.load(calibrated).dynamics
    assert dynamics is not None
    assert dynamics.response.matrix[-1].any()
