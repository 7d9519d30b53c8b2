import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from smoothcache_audio.stable_audio_tools import quiet_loading
from torch import Tensor

pytest.importorskip("stable_audio_tools")

from tools.bench.models.audio_policies import KINDS, LEAST, PUBLISHED, policies
from tools.bench.models.stable_audio import SIGMA_MAX, SIGMA_MIN, Size, sampling
from tools.bench.policies import PLAIN, Policy, evenly_spaced
from tools.bench.records import Record
from tools.bench.stepping import Halted
from tools.bench.studies.speed import SEED, Settings, cost_of, count, measure_speed
from tools.bench.studies.speed_audio import audio_subject

pytestmark = pytest.mark.filterwarnings("ignore:Should have t:UserWarning")  # torchsde, of rounding

EVALUATIONS = 8
SMALL = Size(layers=2, heads=2, seconds=0.4)
SUBJECT = audio_subject(SMALL)
OURS = [policy for policy in policies() if policy.ours]
ON_SHAPES = [p for p in policies() if p.name in ("plain", "smoothcache", "magcache")]


@pytest.fixture(scope="module")
def model():
    return SUBJECT.build(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def record():
    return measure_speed(SUBJECT, Settings(evaluations=EVALUATIONS, progress=False))


# ---------------------------------------------------------------------------- the model


def test_full_size_is_the_published_one():
    from stable_audio_tools.models.dit import DiffusionTransformer

    with torch.device("meta"):
        model = DiffusionTransformer(**Size().config())
    assert sum(p.numel() for p in model.parameters()) == 1_056_828_544
    assert Size().latents == 215
    assert audio_subject().full_size
    assert not SUBJECT.full_size


def test_no_component_gives_zero(model: torch.nn.Module):
    assert all(parameter.any() for parameter in model.parameters() if parameter.ndim > 1)


def test_sampler_is_that_of_the_library(model: torch.nn.Module):
    with quiet_loading():
        from stable_audio_tools.inference.sampling import sample_k
    with torch.no_grad(), sampling(model, PLAIN, EVALUATIONS, size=SMALL, seed=SEED) as sampler:
        sampler.start()
        for evaluation in range(EVALUATIONS):
            sampler.evaluate(evaluation)
            sampler.advance(evaluation)
        torch.manual_seed(SEED)
        expected: Any = sample_k(
            lambda latent, timestep: model(latent, timestep, **sampler.options),
            sampler.noise,
            steps=EVALUATIONS,
            sampler_type="dpmpp-3m-sde",
            sigma_min=SIGMA_MIN,
            sigma_max=int(SIGMA_MAX),
            device="cpu",
        )
    assert torch.equal(sampler.latent, expected)


# ---------------------------------------------------------------------------- counting


@pytest.mark.parametrize("policy", OURS, ids=lambda policy: policy.setting)
def test_our_macs_are_the_plain_ones_less_those_of_the_reused_sites(
    model: torch.nn.Module, policy: Policy
):
    cost = cost_of(SUBJECT, model)
    (fraction,) = (each for each in (*PUBLISHED, LEAST) if f" {each}" in policy.setting)
    reused = evenly_spaced(EVALUATIONS, fraction).count(0)
    assert {site.kind for site in cost.sites} == set(KINDS)
    each = cost.total if "whole" in policy.setting else sum(site.macs for site in cost.sites)
    macs = sum(count(SUBJECT, model, policy, EVALUATIONS))
    assert macs == EVALUATIONS * cost.total - reused * each


@torch.no_grad()
@pytest.mark.parametrize("policy", ON_SHAPES, ids=lambda p: p.key)
def test_counting_on_shapes_and_on_tensors_agree(model: torch.nn.Module, policy: Policy):
    looking = replace(policy, looks_at_data=True)
    on_tensors = count(SUBJECT, model, looking, EVALUATIONS)
    assert count(SUBJECT, model, policy, EVALUATIONS) == on_tensors


# ---------------------------------------------------------------------------- the record


def test_predictions_are_what_was_counted(record: Record):
    ours = [row for row in record.rows if row["ours"]]
    assert len(ours) == len(OURS)
    for row in ours:
        assert row["predicted_compute"] == pytest.approx(row["compute"], rel=1e-12)
        assert row["predicted_bytes"] == row["bytes_peak"]
    assert any(row["bytes_peak"] for row in ours)


def test_record_has_the_agreed_keys(record: Record):
    assert {"command", "date", "hardware", "versions", "commit", "seeds", "rows"} <= set(
        asdict(record)
    )
    wanted = (
        "modality model full_size solver evaluations policy ours compute seconds speedup of_limit"
    )
    for row in record.rows:
        assert set(wanted.split()) <= set(row)
        assert row["of_limit"] == pytest.approx(row["speedup"] * row["compute"])
        assert row["modality"] == "audio"


def test_what_refuses_is_reported_with_its_reason(record: Record):
    reasons = {row["policy"]: row["reason"] for row in record.refused}
    assert "matches no module" in reasons["pyramid-attention-broadcast"]
    assert "hidden_states" in reasons["first-block-cache"]
    assert len(record.rows) + len(record.refused) == len(policies())


def test_checks_hold(record: Record):
    assert record.checks
    assert all(record.checks.values())


@given(st.integers(min_value=2, max_value=200), st.floats(min_value=0.0, max_value=1.0))
def test_evenly_spaced_rows_compute_the_fraction(evaluations: int, fraction: float):
    row = evenly_spaced(evaluations, fraction)
    assert row[0] == row[-1] == 1
    assert sum(row) == max(round(fraction * evaluations), 2)
    gaps = np.diff([i for i, computed in enumerate(row) if computed])
    assert gaps.max() - gaps.min() <= 1


# ---------------------------------------------------------------------------- halted loops


def powers(denoise: Callable[..., Tensor]) -> Tensor:
    latent = torch.ones(1)
    for step in range(3):
        latent = latent * denoise(latent, step=step)
    return latent


def test_halted_loop_gives_what_it_gives_by_itself():
    halted = Halted(powers)
    asked = []
    while halted.question is not None:
        asked.append((float(halted.question.args[0]), halted.question.kwargs["step"]))
        halted.answer(halted.question.args[0] + 1)
    assert asked == [(1.0, 0), (2.0, 1), (6.0, 2)]
    assert halted.result is not None
    assert torch.equal(halted.result, powers(lambda latent, step: latent + 1))
    with pytest.raises(ValueError, match="at its end"):
        halted.answer(torch.ones(1))
    halted.close()


def test_closed_loop_leaves_no_thread():
    before = threading.active_count()
    halted = Halted(powers)
    assert threading.active_count() == before + 1
    halted.close()
    assert threading.active_count() == before
    assert halted.result is None


def test_errors_of_a_loop_reach_its_holder():
    def broken(denoise: Callable[..., Tensor]) -> Tensor:
        return denoise(torch.ones(1)) / "no tensor"  # pyright: ignore[reportOperatorIssue]

    halted = Halted(broken)
    with pytest.raises(TypeError):
        halted.answer(torch.ones(1))
    halted.close()
