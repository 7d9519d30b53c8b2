"""The pipeline of Open-Sora: texts, guidance, given frames, and a cache on its denoiser."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from kit.open_sora_models import video_autoencoder
from smoothcache_core import Sampler, cached, calibrate, plan
from smoothcache_core.errors import PipelineError
from smoothcache_video import OPEN_SORA
from smoothcache_video.open_sora import OpenSoraPipeline, RectifiedFlowScheduler, STDiT3
from torch import Tensor

STEPS = 8


def pipeline(*, decoded: bool = True) -> OpenSoraPipeline:
    torch.manual_seed(0)
    denoiser = STDiT3(
        hidden_size=32,
        depth=2,
        num_heads=2,
        caption_channels=12,
        model_max_length=5,
        input_sq_size=32,
    ).eval()
    for parameter in denoiser.parameters():
        if parameter.ndim > 1 and parameter.requires_grad:
            parameter.detach().normal_(std=0.2)
    size: dict[str, Any] = {
        "block_out_channels": (8, 8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
    }
    vae = AutoencoderKL(latent_channels=4, norm_num_groups=4, **size).eval()
    pipe = OpenSoraPipeline(
        None, None, vae if decoded else None, denoiser, RectifiedFlowScheduler()
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe: OpenSoraPipeline, seed: int = 0, **options: Any) -> Tensor:
    words = torch.randn(1, 5, 12, generator=torch.Generator().manual_seed(9))
    chosen = {"num_frames": 3, "num_inference_steps": STEPS, "output_type": "latent"} | options
    generator = torch.Generator().manual_seed(seed)
    call: Any = pipe  # with the types of what it is given here
    return call(prompt_embeds=words, generator=generator, **chosen).frames


def test_videos_come_in_every_type_asked_for():
    pipe = pipeline()
    assert run(pipe).shape == (1, 4, 3, 8, 8)
    assert run(pipe, output_type="pt").shape == (1, 3, 3, 32, 32)
    assert run(pipe, output_type="np").shape == (1, 3, 32, 32, 3)
    assert [len(frames) for frames in run(pipe, output_type="pil")] == [3]
    assert run(pipe, height=16, width=24).shape == (1, 4, 3, 4, 6)


def test_a_pipeline_without_an_autoencoder_makes_pixels():
    pipe = pipeline(decoded=False)
    assert run(pipe).shape == (1, 4, 3, 32, 32)


def test_a_video_autoencoder_makes_more_frames_of_those_of_the_latent():
    pipe = pipeline()
    pipe.register_modules(vae=video_autoencoder())
    assert pipe.pixels_per_latent == 2
    assert run(pipe, num_frames=18, height=16, width=16).shape == (1, 4, 6, 8, 8)
    shown = run(pipe, num_frames=18, height=16, width=16, output_type="pt")
    assert shown.shape == (1, 18, 3, 16, 16)
    moved = RectifiedFlowScheduler()
    moved.set_timesteps(STEPS, height=16, width=16, num_frames=18)
    assert torch.equal(pipe.scheduler.timesteps, moved.timesteps)


def test_guidance_is_one_batch_of_two_and_none_is_one():
    pipe, rows = pipeline(), []
    pipe.transformer.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    guided, plain = run(pipe, guidance_scale=3.0), run(pipe, guidance_scale=1.0)
    assert rows == [2] * STEPS + [1] * STEPS
    assert not torch.allclose(guided, plain)


def test_the_same_seed_gives_the_same_video_and_given_noise_is_taken():
    pipe = pipeline()
    assert torch.equal(run(pipe, 1), run(pipe, 1))
    assert not torch.equal(run(pipe, 1), run(pipe, 2))
    noise = torch.randn(1, 4, 3, 8, 8)
    assert torch.equal(run(pipe, 1, latents=noise), run(pipe, 2, latents=noise))


def test_saved_and_loaded_it_samples_the_same(tmp_path: Path):
    pipe = pipeline()
    pipe.save_pretrained(tmp_path)
    loaded = OpenSoraPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(run(loaded), run(pipe))


def test_given_frames_stay_and_others_are_made():
    pipe, known = pipeline(), torch.randn(1, 4, 3, 8, 8)
    made = run(pipe, frames=known, frame_mask=torch.tensor([[0.0, 1.0, 1.0]]))
    assert torch.equal(made[:, :, 0], known[:, :, 0])
    assert not torch.allclose(made[:, :, 1], known[:, :, 1])
    free = run(pipe, frames=known, frame_mask=torch.ones(1, 3))
    assert torch.allclose(free, run(pipe), atol=1e-5)


def test_a_frame_of_which_a_part_is_made_anew_stays_until_then():
    pipe, known, seen = pipeline(), torch.randn(1, 4, 3, 8, 8), []

    def note(pipe: OpenSoraPipeline, step: int, t: Tensor, named: dict[str, Tensor]):
        seen.append((float(t), torch.equal(named["latents"][:, :, 0], known[:, :, 0])))
        return named

    run(pipe, frames=known, frame_mask=torch.tensor([[0.5, 1.0, 1.0]]), callback_on_step_end=note)
    assert all(same == (t > 500) for t, same in seen)
    assert {same for _, same in seen} == {True, False}


def test_a_callback_may_replace_the_latents():
    def zero(pipe: object, step: int, t: Tensor, named: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"latents": torch.zeros_like(named["latents"])}

    assert not run(pipeline(), callback_on_step_end=zero).any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"height": 30}, "must be multiples of 4, got 30 x 32"),
        ({"frames": torch.zeros(1)}, "need both `frames` and `frame_mask`"),
        (
            {"frames": torch.zeros(1, 4, 2, 8, 8), "frame_mask": torch.ones(1, 2)},
            r"`frames` must be \(1, 4, 3, 8, 8\)",
        ),
        ({"latents": torch.zeros(1, 4, 2, 8, 8)}, r"latents must be \(1, 4, 3, 8, 8\)"),
        ({"prompt": "a"}, "either `prompt` or `prompt_embeds`"),
        ({"num_inference_steps": 0}, "at least 1"),
    ],
)
def test_what_does_not_go_together_is_refused(wrong: dict[str, Any], message: str):
    pipe, calls = pipeline(), []
    pipe.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(PipelineError, match=message):
        run(pipe, **wrong)
    assert not calls


def test_a_clip_longer_than_the_model_takes_is_refused():
    pipe, calls = pipeline(), []
    pipe.transformer.register_to_config(max_frames=4)
    pipe.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    message = "at most 4 frames of the latent, and 5 frames of a video have 5; sample fewer"
    with pytest.raises(PipelineError, match=message):
        run(pipe, num_frames=5)
    assert not calls
    assert run(pipe, num_frames=4).shape[2] == 4


def test_more_words_than_the_model_takes_are_refused():
    with pytest.raises(PipelineError, match="at most 5 words, but `prompt_embeds` has 6"):
        pipeline()(prompt_embeds=torch.zeros(1, 6, 12))


def test_a_text_without_an_encoder_is_refused():
    with pytest.raises(PipelineError, match="no text encoder"):
        pipeline()(prompt="a cat")


@pytest.mark.filterwarnings("ignore:a run of 8 evaluations")
def test_a_plan_at_half_the_compute_stays_near_the_plain_run():
    pipe = pipeline()

    def sampler() -> Sampler:
        return Sampler(
            model=pipe.transformer,
            adapter=OPEN_SORA,
            run=lambda seed: run(pipe, seed, guidance_scale=3.0),
            scheduler=pipe.scheduler,
        )

    calibration = calibrate(sampler(), seeds=range(4), progress=False)
    schedule = plan(calibration, compute=0.6)
    with cached(pipe.transformer, OPEN_SORA, schedule, scheduler=pipe.scheduler) as stats:
        made = run(pipe, 7, guidance_scale=3.0)
    plain = run(pipe, 7, guidance_scale=3.0)
    error = float((made - plain).norm() / plain.norm())
    assert stats.runs == 1
    assert stats.recomputed == 0
    assert schedule.prediction is not None
    assert 0 < error < 3 * schedule.prediction.error
