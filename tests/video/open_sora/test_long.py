"""Long videos: clips that begin with frames of those before, and a cache that knows none of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from kit.open_sora_models import denoiser, video_autoencoder
from kit.text_encoders import save_text_encoder
from smoothcache_core import Schedule
from smoothcache_core.errors import PipelineError
from smoothcache_video import cached_pipeline
from smoothcache_video.open_sora import OpenSoraPipeline, RectifiedFlowScheduler, long_video
from torch import Tensor
from transformers import PreTrainedTokenizerFast, T5EncoderModel

STEPS = 6
HALF = Schedule(
    evaluations=STEPS,
    rows={
        f"{list_}_{kind}": (1, 1, 0, 1, 0, 1)
        for list_ in ("spatial", "temporal")
        for kind in ("attn", "cross_attn", "mlp")
    },
)


def pipeline(vae: Any = None) -> OpenSoraPipeline:
    pipe = OpenSoraPipeline(None, None, vae, denoiser(), RectifiedFlowScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def given(seed: int = 0, side: int = 8) -> dict[str, Any]:
    return {
        "prompt_embeds": torch.randn(1, 5, 12, generator=torch.Generator().manual_seed(9)),
        "height": side,
        "width": side,
        "num_inference_steps": STEPS,
        "guidance_scale": 3.0,
        "generator": torch.Generator().manual_seed(seed),
        "output_type": "latent",
    }


def long(pipe: OpenSoraPipeline, **options: Any) -> Tensor:
    return long_video(pipe, **{**given(), "clips": 3, "num_frames": 4, "kept": 1, **options}).frames


def test_a_video_of_one_clip_is_that_clip():
    pipe = pipeline()
    whole: Any = pipe(**given(), num_frames=4)
    assert torch.equal(long(pipe, clips=1), whole.frames)


def test_each_clip_begins_with_the_last_frames_of_the_one_before():
    pipe, seen = pipeline(), []
    pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args[0][0].clone(), kwargs["x_mask"])),
        with_kwargs=True,
    )
    video = long(pipe, kept=2)
    assert video.shape == (1, 4, 4 + 2 + 2, 8, 8)
    masks = [mask for _, mask in seen[::STEPS]]
    assert masks[0] is None
    assert masks[1].tolist() == masks[2].tolist() == [[False, False, True, True]] * 2
    assert torch.equal(seen[STEPS][0][:, :2], video[0, :, 2:4])
    assert torch.equal(seen[-1][0][:, :2], video[0, :, 4:6])


def test_frames_may_be_made_anew_in_part():
    pipe = pipeline()
    fixed, anew = long(pipe, clips=2, kept=2), long(pipe, clips=2, kept=2, anew=0.5)
    assert torch.equal(fixed[:, :, :4], anew[:, :, :4])
    assert not torch.allclose(fixed[:, :, 4:], anew[:, :, 4:])


def test_clips_of_a_video_autoencoder_are_joined_where_it_cuts():
    pipe = pipeline(video_autoencoder())
    video = long_video(
        pipe, **{**given(), "output_type": "pt"}, clips=2, num_frames=34, kept=5
    ).frames
    assert video.shape == (1, 34 + 17, 3, 8, 8)


def test_every_clip_may_have_a_text_of_its_own(tmp_path: Path):
    folder = save_text_encoder(tmp_path, width=12, longest=5)
    pipe = pipeline()
    pipe.register_modules(
        tokenizer=PreTrainedTokenizerFast.from_pretrained(folder),
        text_encoder=T5EncoderModel.from_pretrained(folder),
    )
    options: dict[str, Any] = {"prompt_embeds": None, "clips": 2}
    same, alike, other = (
        long(pipe, prompt=prompt, **options) for prompt in ("dog", ["dog", "dog"], ["dog", "rain"])
    )
    assert torch.equal(same, alike)
    assert torch.equal(same[:, :, :4], other[:, :, :4])
    assert not torch.equal(same, other)


def test_cached_clips_are_those_of_runs_on_their_own():
    pipe = pipeline()
    with cached_pipeline(pipe, HALF) as stats:
        video = long(pipe)
    assert stats.runs == 3
    assert stats.recomputed == 0
    generator, clips = torch.Generator().manual_seed(0), [video[:, :, :4]]
    share = torch.tensor([[0.0, 1.0, 1.0, 1.0]])
    for number in range(3):
        options: dict[str, Any] = {**given(), "generator": generator, "num_frames": 4}
        if number:
            begun = torch.cat((clips[-1][:, :, -1:], torch.zeros(1, 4, 3, 8, 8)), 2)
            options |= {"frames": begun, "frame_mask": share}
        with cached_pipeline(pipe, HALF):
            alone: Any = pipe(**options)
        clips[number:] = [alone.frames]
    assert torch.equal(video, torch.cat([clips[0], *(clip[:, :, 1:] for clip in clips[1:])], 2))
    plain = long(pipe)
    assert not torch.equal(plain, video)
    assert torch.equal(long(pipe), plain)


@pytest.mark.filterwarnings("ignore:the schedule computes everything")
def test_computing_everything_changes_no_bit():
    pipe = pipeline()
    plain = long(pipe, anew=0.5)
    with cached_pipeline(pipe, Schedule(evaluations=STEPS, rows={"spatial_attn": (1,) * STEPS})):
        assert torch.equal(long(pipe, anew=0.5), plain)


def test_videos_of_other_frames_and_sizes_leak_nothing_into_each_other():
    pipe = pipeline()
    known = torch.randn(1, 4, 4, 8, 8)
    chosen = [
        {"num_frames": 4},
        {"num_frames": 6},
        {"num_frames": 4, **{"height": 12, "width": 12}},
        {"num_frames": 4, "frames": known, "frame_mask": torch.tensor([[0.0, 1.0, 1.0, 0.3]])},
    ]

    def run(options: dict[str, Any]) -> Tensor:
        call: Any = pipe
        return call(**{**given(1), **options}).frames

    alone = []
    for options in chosen:
        with cached_pipeline(pipe, HALF):
            alone.append(run(options))
    with cached_pipeline(pipe, HALF) as stats:
        for _ in range(2):
            for options, expected in zip(chosen, alone, strict=True):
                assert torch.equal(run(options), expected)
    assert stats.runs == 2 * len(chosen)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"clips": 0}, "at least 1 clip, got 0"),
        ({"kept": 4}, "have 4 frames of the latent, so they cannot keep 4"),
        ({"kept": 0}, "cannot keep 0"),
        ({"prompt": ["a"]}, "one for each of 3 clips; got 1"),
    ],
)
def test_clips_that_cannot_be_joined_are_refused(wrong: dict[str, Any], message: str):
    pipe, calls = pipeline(), []
    pipe.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(PipelineError, match=message):
        long(pipe, **wrong)
    assert not calls


@pytest.mark.parametrize("wrong", [{"num_frames": 33}, {"kept": 4}])
def test_so_are_those_that_end_where_the_autoencoder_does_not_cut(wrong: dict[str, Any]):
    chosen = {"num_frames": 34, "kept": 5} | wrong
    with pytest.raises(PipelineError, match="a multiple of 17 frames and keep a multiple of 5"):
        long(pipeline(video_autoencoder()), **chosen)
