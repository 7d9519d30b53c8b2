"""Routers trained on noised data, as Learning-to-Cache trains them."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from kit.routing import ADAPTER, STEPS, Drifting, sampler_of as drifting
from smoothcache_core import PatternAdapter, Sampler, SitePattern
from smoothcache_core.errors import RouterError
from smoothcache_core.routing import LEARNING_TO_CACHE, Routers, RouterSettings, train_router
from smoothcache_core.routing.mixing import Mixing
from smoothcache_core.routing.noised import NoisedData, drawn_for
from torch import Tensor, nn

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SETTINGS = RouterSettings(
    updates=150, learning_rate=0.2, sparsity=0.02, proxy="none", decides="alternate", on="data"
)


def sampler_of(model: nn.Module, scheduler: Any = None, **given: Any) -> Sampler:
    scheduler = scheduler or DDIMScheduler(clip_sample=False)

    @torch.no_grad()
    def run(seed: int) -> Tensor:
        scheduler.set_timesteps(STEPS)
        scales = getattr(scheduler, "scale_model_input", lambda latent, time: latent)
        latent = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
        latent = latent * getattr(scheduler, "init_noise_sigma", 1.0)
        for time in scheduler.timesteps:
            output = model(scales(latent, time), time / 1000)
            latent = scheduler.step(output, time, latent, return_dict=False)[0]
        return latent

    fields = {"adapter": ADAPTER, "scheduler": scheduler} | given
    return Sampler(model=model, run=run, samples=2, **fields)


def clean(seed: int, generator: torch.Generator) -> Tensor:
    return 3.0 + seed + 0.1 * torch.randn(2, 4, generator=generator)


def trained(**given: Any) -> Routers:
    given = {"evaluations": STEPS, "progress": False, "settings": SETTINGS, "data": clean} | given
    return train_router(sampler_of(Drifting()), **given)


# ---------------------------------------------------------------------------- one pair


def test_data_is_noised_and_stepped_as_published():
    """`q_sample` at an evaluation, and one step of DDIM without noise from there."""
    scheduler = DDIMScheduler(clip_sample=False)
    sampler = sampler_of(Drifting(), scheduler)
    data = NoisedData(sampler, clean, 5, STEPS)
    noisy = data.noised(2, "", drawn_for(0, 0))
    generator = drawn_for(0, 0)
    x0, noise = clean(5, generator), torch.randn(2, 4, generator=generator)
    now, following = scheduler.timesteps[2], scheduler.timesteps[3]
    kept, later = scheduler.alphas_cumprod[now], scheduler.alphas_cumprod[following]
    torch.testing.assert_close(noisy, kept.sqrt() * x0 + (1 - kept).sqrt() * noise)
    output = torch.full((2, 4), 0.3)
    guess = (noisy - (1 - kept).sqrt() * output) / kept.sqrt()
    stepped = data.stepped(2, noisy, output, drawn_for(0, 1))
    torch.testing.assert_close(stepped, later.sqrt() * guess + (1 - later).sqrt() * output)


@pytest.mark.parametrize(
    "scheduler",
    [
        EulerDiscreteScheduler,
        DPMSolverMultistepScheduler,
        FlowMatchEulerDiscreteScheduler,
        partial(DDIMScheduler, prediction_type="v_prediction"),
    ],
)
def test_any_scheduler_of_one_evaluation_a_step_noises_at_its_place(scheduler: Any):
    data = NoisedData(sampler_of(Drifting(), scheduler()), clean, 0, STEPS)
    near, far = (
        (data.noised(evaluation, "", drawn_for(0, 3)) - 3.0) for evaluation in (STEPS - 1, 1)
    )
    assert near.abs().mean() < far.abs().mean()
    compute, given = data.called(1, "", far)
    assert compute().shape == given.shape == far.shape
    assert torch.isfinite(data.stepped(1, far, compute(), drawn_for(0, 4))).all()


def test_an_update_is_the_published_one():
    """Features of the evaluation before are mixed in by scores; AdamW steps down the error."""
    model, settings = Drifting(), replace(SETTINGS, updates=1, straight_through=False)
    start = Routers(STEPS, ADAPTER.sites(model), decides="alternate", seed=0)
    made = train_router(sampler_of(model), settings, evaluations=STEPS, data=clean, progress=False)
    (moved,) = [
        e
        for e in range(STEPS)
        if (one := start.logits(e)) is not None
        and (other := made.logits(e)) is not None
        and not torch.equal(one, other)
    ]
    assert (STEPS - 1 - moved) % 2 == 0
    scheduler: Any = DDIMScheduler(clip_sample=False)
    data, own = NoisedData(sampler_of(model, scheduler), clean, 0, STEPS), drawn_for(1, 0)
    noisy = data.noised(moved - 1, "", own)
    before, after = ((time / 1000) for time in scheduler.timesteps[[moved - 1, moved]])
    with torch.no_grad():
        kept = model.still(noisy, before), model.lively(noisy, before)
        latent = data.stepped(moved - 1, noisy, model(noisy, before), own)
        parts = model.still(latent, after), model.lively(latent, after)
        teacher = 0.1 * latent + parts[0] + parts[1]
    logits = start.logits(moved)
    assert logits is not None
    with torch.enable_grad():
        logits = logits.detach().requires_grad_()
        scores = logits.sigmoid()
        student = 0.1 * latent
        for weight, old, new in zip(scores, kept, parts, strict=True):
            student = student + old * (1 - weight) + new * weight
        size = teacher.square().sum(dim=1)
        error = ((student - teacher).square().sum(dim=1) / size).mean()
        loss = error + settings.sparsity * scores.sum()
        (logits.grad,) = torch.autograd.grad(loss, [logits])
        torch.optim.AdamW([logits], lr=settings.learning_rate, weight_decay=0.0).step()
    found = made.logits(moved)
    assert found is not None
    torch.testing.assert_close(found.detach(), logits.detach(), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------- trainings


def test_what_changes_is_computed_and_what_does_not_is_reused():
    rows = trained().schedule(threshold=0.1).rows
    assert sum(rows["still"]) < sum(rows["lively"])
    numbers = [STEPS - 1 - e for e in range(STEPS)]
    assert all(rows["still"][e] for e in range(STEPS) if numbers[e] % 2)


def test_random_numbers_and_the_scheduler_are_left_as_they_were():
    sampler = sampler_of(Drifting())
    state = torch.get_rng_state()
    train_router(
        sampler, replace(SETTINGS, updates=8), evaluations=STEPS, data=clean, progress=False
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert sampler.run(0) is not None


def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path: Path):
    whole = trained(settings=replace(SETTINGS, updates=20))
    trained(settings=replace(SETTINGS, updates=9), checkpoint=tmp_path / "r.pt")
    rest = trained(settings=replace(SETTINGS, updates=20), checkpoint=tmp_path / "r.pt")
    for one, other in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(one, other)


def test_passes_that_are_calls_of_their_own_are_trained_in_turn():
    scheduler: Any = DDIMScheduler(clip_sample=False)
    seen: list[float] = []

    class Guided(Drifting):
        def forward(self, x: Tensor, t: Tensor, label: float = 0.0) -> Tensor:
            seen.append(label)
            return super().forward(x, t) + label

    model = Guided()

    @torch.no_grad()
    def run(seed: int) -> Tensor:
        scheduler.set_timesteps(STEPS)
        latent = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
        for time in scheduler.timesteps:
            outputs = [model(latent, time / 1000, label=label) for label in (1.0, -1.0)]
            latent = scheduler.step(sum(outputs) / 2, time, latent, return_dict=False)[0]
        return latent

    sampler = Sampler(
        model=model, adapter=ADAPTER, run=run, samples=2, scheduler=scheduler,
        branches=("cond", "uncond"),
    )  # fmt: skip
    train_router(
        sampler, replace(SETTINGS, updates=12), evaluations=STEPS, data=clean, progress=False
    )
    recorded, rest = seen[: 2 * STEPS], seen[2 * STEPS :]
    assert recorded == [1.0, -1.0] * STEPS
    triples = [rest[n : n + 3] for n in range(0, len(rest), 3)]  # before, teacher, student
    assert len(triples) == 12
    assert {tuple(each) for each in triples} == {(1.0,) * 3, (-1.0,) * 3}


# ---------------------------------------------------------------------------- deltas


class Fused(nn.Module):
    """A block that changes its input in place and gives two tensors."""

    def __init__(self, swing: float) -> None:
        super().__init__()
        self.swing = swing

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x += 0.01 * x + self.swing * t + 1.0
        return x


class FusedModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.still, self.lively = Fused(0.0), Fused(5.0)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.lively(self.still(x.clone(), t), t) - x


DELTAS = PatternAdapter(
    name="fused",
    patterns=tuple(
        SitePattern(name, name, target="delta", inputs=("x",)) for name in ("still", "lively")
    ),
    latent="x",
    timestep="t",
)


def test_deltas_are_mixed_by_their_scores():
    model, sites = FusedModel(), DELTAS.sites(FusedModel())
    first, second = torch.ones(2, 4), torch.full((2, 4), 2.0)
    early, late = torch.tensor(0.2), torch.tensor(0.4)
    mixing = Mixing(model, sites)
    plain = model(second, late)
    with mixing.entered():
        mixing.keep("")
        assert torch.equal(model(first, early), FusedModel()(first, early))
        mixing.mix("", torch.tensor([0.0, 0.25]), 0.5)
        mixed = model(second, late)
    still = second + (0.01 * first + 1.0)
    before = 1.01 * first + 1.0  # what the second block was given
    old, new = 0.01 * before + 5.0 * early + 1.0, 0.01 * still + 5.0 * late + 1.0
    torch.testing.assert_close(mixed, still + old + 0.25 * (new - old) - second)
    assert torch.equal(model(second, late), plain)


def test_routers_of_deltas_learn_what_changes():
    settings = RouterSettings(updates=150, learning_rate=0.2, sparsity=0.02, proxy="none")
    made = train_router(
        drifting(FusedModel(), adapter=DELTAS), settings, evaluations=STEPS, progress=False
    )
    rows = made.schedule(threshold=0.1).rows
    assert sum(rows["still"]) < sum(rows["lively"])


# ---------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": None}, "train on data, and `data`, .* is not given"),
        ({"settings": RouterSettings()}, "train on samples, and `data`, .* is given"),
        ({"evaluations": STEPS + 1}, "6 evaluations in 6 steps, and routers are trained for 7"),
        ({"data": lambda seed, generator: torch.ones(2, 5)}, r"clean latents .* \(2, 5\), but"),
        ({"data": lambda seed, generator: torch.ones(3, 4)}, r"clean latents .* \(3, 4\), but"),
    ],
)
def test_data_that_does_not_go_with_the_run_is_refused(changes: dict[str, Any], said: str):
    with pytest.raises(RouterError, match=said):
        trained(**changes)


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        (HeunDiscreteScheduler, "11 evaluations in 11 steps, and routers are trained for 6"),
        (None, "NoneType has neither add_noise nor scale_noise"),
    ],
)
def test_samplers_that_cannot_noise_data_are_refused(scheduler: Any, said: str):
    sampler = sampler_of(Drifting(), scheduler and scheduler())
    if scheduler is None:
        sampler = Sampler(model=sampler.model, adapter=ADAPTER, run=sampler.run, samples=2)
    with pytest.raises(RouterError, match=said):
        train_router(sampler, SETTINGS, evaluations=STEPS, data=clean, progress=False)


def test_the_preset_trains_on_data():
    assert LEARNING_TO_CACHE.on == "data"
    assert LEARNING_TO_CACHE.decides == "alternate"
