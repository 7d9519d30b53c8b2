"""What STDiT3 keeps is foretold for every target, at the calibrated size and at others."""

import functools
from collections.abc import Sequence

import pytest
import torch
from kit.adapter_contract import Case
from kit.memory import at_size_of, calibrated, check_kept, guided_sampler
from kit.video_models import CASES
from smoothcache_core import Calibration, PatternAdapter, Sampler, SitePattern, SpanPattern
from smoothcache_core.calibrating import cost_from_shapes
from smoothcache_video import OPEN_SORA
from smoothcache_video.open_sora import STDiT3
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore::smoothcache_core.SmoothCacheWarning")


@functools.cache
def small() -> tuple[Case, nn.Module]:
    case = next(case for case in CASES if case.adapter is OPEN_SORA)
    return case, case.model().requires_grad_(False)


@functools.cache
def calibration() -> Calibration:
    return calibrated(guided_sampler(*small()))


def test_what_is_kept_is_foretold_at_the_calibrated_size():
    peaks = check_kept(guided_sampler(*small()), calibration())
    assert peaks["site"] > peaks["block"] > peaks["span"]


def test_what_is_kept_is_foretold_at_another_resolution_and_frame_count():
    larger = guided_sampler(*small(), (4, 5, 12, 10))
    known = at_size_of(calibration(), larger)
    assert known.cost.total > 4 * calibration().cost.total
    check_kept(larger, known)


@pytest.mark.parametrize("depth", [4, pytest.param(28, marks=pytest.mark.zoo)])
def test_the_full_width_at_720p_is_answered_without_weights(depth: int):
    with torch.device("meta"):
        model = STDiT3(depth=depth)
        latents, words = torch.empty(2, 4, 15, 90, 160), torch.empty(2, 1, 300, 4096)
        times = torch.empty(2)
    call = Sampler(model=model, adapter=OPEN_SORA, run=lambda seed: model(latents, times, words))
    quarter = depth // 4
    blocks = [SitePattern(f"{name}_blocks.*", name, "delta", ("x",)) for name in PAIR]
    spans = [
        SpanPattern("spatial_blocks", "span", n, n + quarter - 1, ("x",), "temporal_blocks")
        for n in range(0, depth, quarter)
    ]
    variants = (OPEN_SORA, adapter_of(blocks), adapter_of(spans))
    parts, whole, span = (cost_from_shapes(call.with_adapter(each)) for each in variants)
    tokens = 2 * 15 * 45 * 80 * 1152 * 4  # bytes of the hidden state of both passes
    assert parts.kept_bytes() == depth * 6 * tokens
    assert parts.kept_bytes("temporal_mlp") == depth * tokens
    assert whole.kept_bytes() == 2 * depth * tokens
    assert span.kept_bytes() == 4 * tokens
    assert parts.kept_bytes("denoiser") == 2 * 8 * 15 * 90 * 160 * 4
    assert {each.total for each in (parts, whole, span)} == {parts.total}


PAIR = ("spatial", "temporal")


def adapter_of(patterns: Sequence[SitePattern | SpanPattern]) -> PatternAdapter:
    return PatternAdapter(name="own", patterns=tuple(patterns), latent="x")
