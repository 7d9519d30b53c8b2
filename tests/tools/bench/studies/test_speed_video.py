"""The speed benchmark of video, on a small STDiT3."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from smoothcache_video.open_sora import OpenSoraPipeline, RectifiedFlowScheduler, STDiT3

from tools.bench.models.stdit3_xl import FPS, GUIDANCE, WORDS, Size, sampling
from tools.bench.models.video_policies import FRACTIONS, KINDS, PUBLISHED, policies
from tools.bench.policies import CONTROL, PLAIN, Policy, evenly_spaced
from tools.bench.records import Record
from tools.bench.studies.speed import SEED, Settings, cost_of, count, measure_speed
from tools.bench.studies.speed_video import VideoSettings, video_subject

EVALUATIONS = 6
SMALL = Size(depth=1, heads=1, frames=6, height=32, width=48)
SUBJECT = video_subject(SMALL)
OURS = [policy for policy in policies() if policy.ours]


@pytest.fixture(scope="module")
def model() -> STDiT3:
    return SUBJECT.build(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def record() -> Record:
    return measure_speed(SUBJECT, Settings(evaluations=EVALUATIONS, progress=False))


def test_full_size_is_the_published_one():
    with torch.device("meta"):
        model = STDiT3()
    size = Size()
    assert (model.config["depth"], model.config["num_heads"]) == (size.depth, size.heads)
    assert model.config["hidden_size"] == 72 * size.heads
    assert size.latent == (4, 15, 18, 32)
    assert SMALL.latent == (4, 2, 4, 6)
    assert video_subject().full_size
    assert not SUBJECT.full_size
    assert VideoSettings(depth=1, frames=6).size == replace(size, depth=1, frames=6)


def test_sides_that_are_no_patches_are_refused():
    with pytest.raises(ValueError, match="multiples of 16, got 40 x 48"):
        Size(height=40, width=48)


@torch.no_grad()
def test_sampler_is_that_of_the_pipeline(model: STDiT3):
    pipe: Any = OpenSoraPipeline(None, None, None, model, RectifiedFlowScheduler())
    pipe.scheduler.set_timesteps(EVALUATIONS, height=32, width=48, num_frames=6)
    pipe._guidance_scale = GUIDANCE
    about = {"fps": FPS, "height": 32, "width": 48, "mask": None}
    with sampling(model, PLAIN, EVALUATIONS, size=SMALL, seed=SEED) as sampler:
        sampler.text[1, 0] = model.y_embedder.y_embedding[:WORDS]
        for evaluation in range(EVALUATIONS):
            sampler.evaluate(evaluation)
            sampler.advance(evaluation)
    found = sampler.noise
    for t in pipe.scheduler.timesteps:
        velocity = pipe._velocity(found, t, sampler.text[:1], None, about)
        found = pipe.scheduler.step(velocity, t, found).prev_sample
    assert torch.allclose(sampler.latent, found, atol=1e-5)


@pytest.mark.parametrize("policy", OURS, ids=lambda policy: policy.setting)
def test_our_macs_are_the_plain_ones_less_those_of_what_is_skipped(model: STDiT3, policy: Policy):
    cost = cost_of(SUBJECT, model)
    fraction = next((f for f in FRACTIONS if f" {f:g}" in policy.setting), None)
    skipped = 0 if fraction is None else evenly_spaced(EVALUATIONS, fraction).count(0)
    each = cost.total if "whole" in policy.setting else sum(site.macs for site in cost.sites)
    assert {site.kind for site in cost.sites} == set(KINDS)
    expected = EVALUATIONS * cost.total - skipped * each
    assert sum(count(SUBJECT, model, policy, EVALUATIONS)) == expected


def test_everything_is_timed_beside_the_plain_model(record: Record):
    settings = [row["setting"] for row in record.rows if row["ours"]]
    assert settings == [policy.setting for policy in OURS]
    assert {f"all sites at {each:g}" for each in PUBLISHED} <= set(settings)
    for row in record.rows:
        if row["ours"]:
            assert row["predicted_compute"] == pytest.approx(row["compute"], rel=1e-12)
            assert row["predicted_bytes"] == row["bytes_peak"]
    assert all(record.checks.values())
    assert len(record.checks) == 2
    assert CONTROL.key in {f"{row['policy']} ({row['setting']})" for row in record.rows}
