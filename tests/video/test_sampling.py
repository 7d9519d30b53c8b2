"""Pipelines of videos are sampled from seeds, and decode what they sampled."""

from pathlib import Path
from typing import Any

import pytest
import torch
from kit.video_folders import FRAMES, SIDE
from smoothcache_core import calibrate
from smoothcache_core.errors import PipelineError
from smoothcache_core.sources.interval import interval_of
from smoothcache_video import cached_pipeline, sampler_of
from smoothcache_video.loading import load_pipeline
from smoothcache_video.sampling import PromptSampler, prompt_sampler
from torch import Tensor

STEPS = 4
PROMPTS = ("a seven moving left", "a fox")
SIZE = {"height": SIDE, "width": SIDE, "frames": 5}

pytestmark = pytest.mark.filterwarnings("ignore:a run of 4 evaluations", "ignore:only 2 samples")


@pytest.fixture(scope="module")
def open_sora(open_sora_folder: Path) -> Any:
    return load_pipeline(open_sora_folder, device="cpu")


@pytest.fixture(scope="module")
def wan(wan_folder: Path) -> Any:
    return load_pipeline(wan_folder, device="cpu")


@pytest.fixture(params=["open_sora", "wan"])
def pipe(request: pytest.FixtureRequest) -> Any:
    found = request.getfixturevalue(request.param)
    found.set_progress_bar_config(disable=True)
    return found


def sampler(pipe: Any, **settings: Any) -> PromptSampler:
    given: dict[str, Any] = {"conditions": PROMPTS, "steps": STEPS, "samples": 2, **SIZE}
    return prompt_sampler(pipe, **given | settings)


def run(pipe: Any, seed: int, **options: Any) -> Tensor:
    return pipe(
        prompt=list(PROMPTS),
        height=SIDE,
        width=SIDE,
        num_frames=5,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
        **options,
    ).frames


def test_clips_are_those_of_the_pipeline(pipe: Any):
    taken = sampler(pipe)
    clips = taken.decode(taken(3))
    assert clips.shape == (2, 5, 3, SIDE, SIDE)
    assert torch.equal(clips, run(pipe, 3))


def test_a_clip_alone_is_decoded_as_in_a_batch(pipe: Any):
    taken = sampler(pipe)
    latents = taken(0)
    assert latents.ndim == 5
    alone = torch.cat([taken.decode(each) for each in latents.split(1)])
    assert torch.allclose(alone, taken.decode(latents), atol=1e-5)


def test_the_seed_is_all_the_noise(pipe: Any):
    taken = sampler(pipe)
    assert torch.equal(taken(1), taken(1))
    assert not torch.equal(taken(1), taken(4))


def test_decoding_before_a_run_is_refused(open_sora: Any):
    with pytest.raises(PipelineError, match="sample before you decode"):
        sampler(open_sora).decode(torch.zeros(1, 4, 2, 4, 4))


def test_guidance_and_frame_rate_reach_the_model(open_sora: Any):
    plain = sampler(open_sora)(0)
    assert not torch.equal(plain, sampler(open_sora, guidance=1.5)(0))
    assert not torch.equal(plain, sampler(open_sora, fps=8)(0))
    assert torch.equal(plain, sampler(open_sora, fps=24, guidance=7.0)(0))


def test_the_frame_rate_of_files_is_the_pipelines_own_or_what_is_asked_for(
    open_sora: Any, wan: Any
):
    assert sampler(open_sora).frame_rate == 24.0
    assert sampler(open_sora, fps=12).frame_rate == 12.0
    assert sampler(wan).frame_rate == 8.0


@pytest.mark.parametrize("name", ["open_sora", "wan"])
def test_what_the_users_own_call_samples_is_calibrated_and_cached(
    name: str, request: pytest.FixtureRequest
):
    pipe = request.getfixturevalue(name)
    pipe.set_progress_bar_config(disable=True)
    taken = sampler_of(pipe, lambda seed: run(pipe, seed), samples=2)
    assert torch.equal(taken.final_latent(0), sampler(pipe)(0))
    calibration = calibrate(taken, seeds=[0], sensitivity=0, max_lag=1, progress=False)
    with cached_pipeline(pipe, interval_of(calibration, 2)) as stats:
        run(pipe, 0)
    assert stats.reused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": "picture"}, "OpenSoraPipeline makes videos from prompts alone; omit the image"),
    ],
)
def test_what_a_pipeline_does_not_take_is_refused(
    open_sora: Any, settings: dict[str, Any], message: str
):
    with pytest.raises(PipelineError, match=message):
        sampler(open_sora, **settings)


class Wanting:
    """A pipeline that needs more than a prompt."""

    def __init__(self, pipe: Any) -> None:
        self.components = pipe.components
        self.vae, self.scheduler = pipe.vae, pipe.scheduler
        self.transformer = pipe.transformer


class FromImage(Wanting):
    def __call__(self, image: object, prompt: str, num_frames: int = 3) -> None:
        raise NotImplementedError


class FromVideo(Wanting):
    def __call__(self, video: object, prompt: str) -> None:
        raise NotImplementedError


class Stiff(Wanting):
    def __call__(self, prompt: str, guidance_scale: float = 2.0) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (FromImage, {}, "FromImage makes videos from an image: give one"),
        (FromVideo, {}, "FromVideo needs video, which cannot be given here; call it in Python"),
        (Stiff, {"frames": 3}, "Stiff has one number of frames; omit the frames"),
        (Stiff, {"height": 8}, "Stiff has one size of its own; omit the height"),
        (FromImage, {"guidance": 2.0}, "FromImage takes no guidance"),
    ],
)
def test_what_is_missing_is_said_before_sampling(
    open_sora: Any, kind: Any, settings: dict[str, Any], message: str
):
    with pytest.raises(PipelineError, match=message):
        prompt_sampler(kind(open_sora), conditions=PROMPTS, steps=STEPS, **settings)


def test_frames_are_not_there_without_being_asked_for(open_sora: Any):
    assert sampler(open_sora, frames=FRAMES)(0).shape[2] == FRAMES
