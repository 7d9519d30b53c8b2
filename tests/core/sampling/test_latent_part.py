"""Only a part of the latent argument is denoised, the rest of it is a condition."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from kit.conditioned import CONDITIONED, SHAPE, Conditional, Layout
from kit.planning import MIXTURE, Mixture, Noisy, OneStep, Passes, ToySampler
from smoothcache_core import (
    Calibration,
    SmoothCacheWarning,
    attach,
    cached,
    calibrate,
    evaluate,
    fit,
    plan,
)
from smoothcache_core.adapters import DENOISER, GUIDANCE, LatentPart
from smoothcache_core.calibrating import transfer
from smoothcache_core.errors import AdapterError, AttachError, CalibrationError, SamplerError
from smoothcache_core.metrics import relative_l2
from smoothcache_core.outputs.structures import Structure
from smoothcache_core.sampling.latent_part import found_part, passes_in
from smoothcache_core.schedule import Fingerprint, Schedule

LAYOUTS = {
    "channels behind": Layout(),
    "channels in front, all answered": Layout(first=True, answer="all"),
    "tokens behind, all answered": Layout(dim=2, size=3, answer="all"),
    "frames in front": Layout(dim=3, size=1, first=True),
}
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
CHANNELS = Layout()


def calibrated(sampler: Conditional, **changes: Any) -> Any:
    return calibrate(sampler.value(**changes), seeds=[0, 1], progress=False)


def error_of(sampler: Conditional, schedule: Schedule) -> tuple[float, Any]:
    seeds = (10, 11)
    plain = [sampler(seed) for seed in seeds]
    with cached(sampler.model, sampler.adapter, schedule, branches=sampler.branches) as stats:
        found = [sampler(seed) for seed in seeds]
    return float(relative_l2(torch.cat(plain), torch.cat(found)).mean()), stats


def with_solver(sampler: Conditional, solver: Any) -> Conditional:
    """Return a sampler of the same model by another solver."""
    other = replace(sampler, solver=solver)
    other.model = sampler.model
    return other


# ---------------------------------------------------------------------------- planned


@pytest.mark.parametrize(
    ("layout", "passes"),
    list(zip(LAYOUTS.values(), ("batched", "one", "sequential", "batched"), strict=True)),
    ids=LAYOUTS,
)
def test_plans_are_those_of_a_denoiser_that_is_given_the_latent_only(
    layout: Layout, passes: Passes
):
    sampler, twin = (
        Conditional(layout, passes=passes),
        Conditional(layout, passes=passes, twin=True),
    )
    known, other = calibrated(sampler), calibrated(twin)
    assert known.remark == other.remark == ""
    assert known.fingerprint.latent_part == layout.part
    assert other.fingerprint.latent_part is None
    targets: tuple[Literal["denoiser", "guidance", "site"], ...] = ("denoiser", "guidance", "site")
    for target in targets if passes != "one" else ("denoiser", "site"):
        one, two = (plan(each, compute=0.6, target=target) for each in (known, other))
        error, stats = error_of(sampler, one)
        expected, _ = error_of(twin, two)
        assert error == pytest.approx(expected, rel=0.02, abs=1e-6), target
        assert stats.recomputed == 0
        assert one.prediction is not None
        assert two.prediction is not None
        assert one.prediction.error == pytest.approx(two.prediction.error, rel=0.02), target
    whole = [plan(each, compute=0.6, target="denoiser").rows for each in (known, other)]
    assert whole[0] == whole[1]


@every_layout
def test_fills_see_the_noise_that_was_added_to_the_part(layout: Layout):
    sampler, twin = (Conditional(layout, Noisy(8), twin=twin) for twin in (False, True))
    plans = [plan(calibrated(each), compute=0.6, target="denoiser") for each in (sampler, twin)]
    assert plans[0].fill(DENOISER).anchors
    errors = [error_of(each, made)[0] for each, made in zip((sampler, twin), plans, strict=True)]
    assert errors[0] == pytest.approx(errors[1], rel=0.02)


@pytest.mark.parametrize("final", ["part", "all"])
def test_predicted_and_measured_errors_are_of_the_part(final: Literal["part", "all"]):
    sampler = Conditional(Layout(answer="all", size=9), final=final)
    known = calibrated(sampler)
    schedule = plan(known, compute=0.6, target="denoiser")
    settings: dict[str, Any] = {"seeds": [10, 11], "warmup": 0, "progress": False}
    report = evaluate(sampler.value(), {"plan": schedule}, **settings)
    alone = error_of(Conditional(sampler.layout), schedule)[0]
    assert report.row("plan").rel_l2 == pytest.approx(alone, rel=1e-4)


@every_layout
def test_fills_are_fitted_on_the_part(layout: Layout):
    sampler = Conditional(layout, passes="batched", final="all")
    schedule = plan(calibrated(sampler), compute=0.5, target="guidance")
    fitted = fit(sampler.value(), schedule, seeds=[0, 1], progress=False)
    assert fitted.prediction is not None
    assert fitted.prediction.measured
    assert fitted.fingerprint.latent_part == layout.part
    error, _ = error_of(Conditional(layout, passes="batched"), fitted)
    assert error < 2 * fitted.prediction.error


@every_layout
def test_a_calibration_is_transferred_with_its_part(layout: Layout):
    sampler = Conditional(layout, passes="batched")
    other = with_solver(sampler, OneStep(10))
    other.solver.timesteps = torch.linspace(0, 7, 10)
    other.solver.step = lambda output, timestep, latent: (latent - 0.1 * output,)
    moved = transfer(calibrated(sampler), other.value())
    assert moved.evaluations == 10
    assert moved.fingerprint.latent_part == layout.part


# ---------------------------------------------------------------------------- found or said


def test_the_part_is_told_once(caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO", logger="smoothcache_core"):
        calibrated(Conditional(CHANNELS))
    told = [record.message for record in caplog.records if "denoised" in record.message]
    assert len(told) == 1
    assert "(None, 6, 3, 5)" in told[0]
    assert "LatentPart(dim=1, start=0, stop=4)" in told[0]


class Renoised(Conditional):
    """Adds noise to the condition at every evaluation."""

    def asked(self, latent: torch.Tensor, timestep: Any, labels: Any) -> torch.Tensor:
        generator = torch.Generator().manual_seed(int(timestep))
        clean = self.layout.condition(self.samples)
        self.condition = clean + 0.1 * torch.randn(clean.shape, generator=generator)
        return super().asked(latent, timestep, labels)


def test_a_condition_that_changes_is_asked_for_and_can_be_said():
    known = calibrated(Renoised(CHANNELS))
    assert "(2, 6, 3, 5), whose output has shape (2, 4, 3, 5), changes everywhere" in known.remark
    assert "Sampler(..., part=LatentPart(dim=1, start=0, stop=4))" in known.remark
    sampler = Renoised(CHANNELS)
    said = calibrated(sampler, part=CHANNELS.part)
    assert said.remark == ""
    assert error_of(sampler, plan(said, compute=0.6, target="denoiser"))[0] < 0.1


def rows(*changing: int) -> list[torch.Tensor]:
    first = torch.zeros(2, 6, 5)
    second = first.clone()
    second[:, list(changing)] = 1.0
    return [first, second]


def test_what_is_denoised_is_one_slice():
    whole, four = Structure.of(torch.zeros(2, 6, 5)), Structure.of(torch.zeros(2, 4, 5))
    assert found_part(rows(0, 1, 2, 3, 4, 5), whole) is None
    assert found_part(rows(0, 1, 2, 3), four) == LatentPart(dim=1, start=0, stop=4)
    assert found_part(rows(2, 3, 4, 5), four) == LatentPart(dim=1, start=2)
    assert found_part(rows(1, 2), whole) == LatentPart(dim=1, start=1, stop=3)
    assert found_part(rows(1), Structure.of([torch.zeros(6, 5)] * 2)) == LatentPart(
        dim=1, start=1, stop=2
    )
    with pytest.raises(
        CalibrationError, match=r"indices \[0, 1, 4\] of dimension 1 only: .* one s"
    ):
        found_part(rows(0, 1, 4), whole)
    with pytest.raises(CalibrationError, match=r"changes in a run at the indices .* say what is"):
        found_part(rows(0, 1, 2), four)
    with pytest.raises(CalibrationError, match="changes everywhere; say what is denoised"):
        found_part([torch.zeros(2, 6, 5)], four)
    inside = torch.zeros(2, 6, 5)
    inside[:, 1:3, 2:4] = 1.0
    with pytest.raises(CalibrationError, match=r"\[1, 2\] of dimension 1, \[2, 3\] of dimension 2"):
        found_part([torch.zeros(2, 6, 5), inside], whole)
    # the output says which dimension; frames that stay as they are the solver does not move
    shorter = Structure.of(torch.zeros(2, 2, 5))
    assert found_part([torch.zeros(2, 6, 5), inside], shorter) == LatentPart(dim=1, start=1, stop=3)


def test_a_part_is_a_slice_that_the_latent_has():
    for wrong in ({"dim": 0}, {"dim": 1, "start": -1}, {"dim": 1, "start": 3, "stop": 3}):
        with pytest.raises(AdapterError, match="is a slice of dimension 1 or a later one"):
            LatentPart(**wrong)
    with pytest.raises(AdapterError, match="by integers"):
        LatentPart(dim=1, stop=2.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(SamplerError, match="must be"):
        Conditional(CHANNELS).value(part=(1, 0, 4))
    with pytest.raises(
        SamplerError, match=r"start=0, stop=40.* shape \(2, 6, 3, 5\) does not have"
    ):
        calibrated(Conditional(CHANNELS), part=LatentPart(dim=1, stop=40))


def test_the_final_latent_is_of_the_part_or_of_all():
    sampler = Conditional(CHANNELS)
    with pytest.raises(SamplerError, match=r"of 120 entries as LatentPart.* or all of it"):
        calibrated(sampler, run=lambda seed: sampler(seed)[:, :1])


def test_repeated_batches_are_counted():
    row = torch.randn(3, 4)
    for passes in (1, 2, 3, 4):
        assert passes_in(torch.cat([row] * passes), 3) == passes
    assert passes_in(torch.cat((row, row)), 1) == 2  # whoever did not say how many samples
    assert passes_in(torch.cat((row, row + 1e-6)), 3) == 1
    assert passes_in(torch.cat((row, row, row + 1)), 3) == 1
    assert passes_in(torch.cat((row[:1], row[:1])), 2) == 2


# ---------------------------------------------------------------------------- while it runs


def planned(sampler: Conditional, target: Any = "denoiser") -> Schedule:
    return plan(calibrated(sampler), compute=0.6, target=target)


def test_another_solver_is_told_by_the_part():
    sampler = Conditional(CHANNELS)
    schedule = planned(sampler)
    other = with_solver(sampler, OneStep(8))
    other.solver.sizes = [2 * size for size in sampler.solver.sizes]
    with (
        pytest.warns(SmoothCacheWarning, match="does not follow the planned solver"),
        cached(sampler.model, CONDITIONED, schedule),
    ):
        other(3)


@pytest.mark.filterwarnings("ignore:a run ended after:smoothcache_core.SmoothCacheWarning")
def test_runs_that_take_turns_are_refused_by_the_part():
    sampler = Conditional(Layout(size=40))  # a condition that is most of the latent
    schedule = planned(sampler)
    attachment = attach(sampler.model, CONDITIONED, schedule)
    latents = {seed: torch.randn(2, *SHAPE) for seed in (0, 1)}
    with pytest.raises(AttachError, match="two runs take turns"):
        take_turns(sampler, latents)
    attachment.detach(quietly=True)


def take_turns(sampler: Conditional, latents: dict[int, torch.Tensor]) -> None:
    for timestep in sampler.solver.timesteps:
        for seed, latent in latents.items():
            output = sampler.guided(latent, timestep)
            latents[seed] = sampler.solver.step(output, timestep, latent)[0]


def test_halves_of_a_batch_are_compared_without_their_conditions():
    sampler = Conditional(CHANNELS, passes="batched")
    schedule = planned(sampler, "guidance")
    assert 0 in schedule.row(GUIDANCE)
    _, stats = error_of(sampler, schedule)
    assert stats.reused["guidance"] > 0
    assert stats.recomputed == 0


@pytest.mark.parametrize("answer", ["part", "all"])
def test_a_condition_of_another_size_is_told_and_filled(answer: Literal["part", "all"]):
    sampler = Conditional(Layout(dim=1, size=2, answer=answer))
    schedule = planned(sampler).changed(
        fingerprint=Fingerprint(
            latent_shape=(9, 3, 5), latent_part=LatentPart(dim=1, start=0, stop=4)
        )
    )
    with pytest.warns(
        SmoothCacheWarning, match=r"latent_shape is \(6, 3, 5\) instead of \(9, 3, 5\)"
    ):
        error, stats = error_of(sampler, schedule)
    assert error < 0.1
    assert stats.recomputed == 0


# ---------------------------------------------------------------------------- overwritten


@dataclass
class Inpainting(ToySampler):
    """Puts known entries back after every step, with less noise from step to step."""

    def __call__(self, seed: int) -> torch.Tensor:
        solver, generator = self.solver(), torch.Generator().manual_seed(seed)
        noise = torch.randn(self.samples, *self.shape, generator=generator)
        known, latent = torch.ones(noise.shape), noise
        for timestep in solver.timesteps:
            output = self.guided(latent, timestep)
            latent = solver.step(output, timestep, latent)[0]
            share = 1 - (float(timestep) + 1) / len(solver.timesteps)
            latent = torch.where(self.mask, latent, known + share * noise)
        return latent

    @property
    def mask(self) -> torch.Tensor:
        return (torch.arange(12).reshape(self.shape) % 5 > 0).expand(self.samples, *self.shape)

    def error(self, schedule: Schedule) -> float:
        mask, plain = self.mask, self(5)
        with cached(self.model, MIXTURE, schedule):  # pyright: ignore[reportArgumentType]
            found = self(5)
        return float((found - plain)[mask].norm() / plain[mask].norm())


@pytest.mark.parametrize("passes", ["one", "batched"])
def test_inpainting_is_planned_by_what_is_not_overwritten(passes: Passes, tmp_path: Path):
    model = Mixture((1.0, 0.5), 8, bend=0.1)
    sampler = Inpainting(model, lambda: OneStep(8), passes)
    known = calibrate(sampler.value(), seeds=range(4), progress=False)
    assert known.remark == ""
    assert known.dynamics is not None
    assert known.dynamics.overwritten
    assert Calibration.load(known.save(tmp_path / "known.safetensors")) == known
    schedule = plan(known, compute=0.6, target="denoiser")
    assert schedule.solver_steps is None
    assert schedule.prediction is not None
    assert schedule.prediction.high is not None
    assert sampler.error(schedule) < schedule.prediction.high
    fitted = fit(sampler.value(), schedule, seeds=range(4), progress=False)
    assert fitted.prediction is not None
    assert sampler.error(fitted) < 3 * fitted.prediction.error


def test_a_mask_that_differs_from_step_to_step_is_refused():
    class Changing(Inpainting):
        @property
        def mask(self) -> torch.Tensor:
            self.asked = getattr(self, "asked", -1) + 1
            return (torch.arange(12).reshape(self.shape) >= self.asked % 8).expand(2, *self.shape)

    sampler = Changing(Mixture((1.0, 0.5), 8), lambda: OneStep(8))
    assert "is not affine" in calibrate(sampler.value(), seeds=[0], progress=False).remark
