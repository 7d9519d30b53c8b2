"""Videos longer than a clip: each clip begins with the last frames of the one before."""

from collections.abc import Sequence
from typing import Any

import torch
from smoothcache_core.errors import PipelineError
from torch import Tensor

from smoothcache_video.open_sora.autoencoder import AutoencoderKLOpenSora
from smoothcache_video.open_sora.pipeline import OpenSoraPipeline, OpenSoraPipelineOutput

_KEPT = 5
"""Frames of the latent that Open-Sora v1.2's own settings keep (`condition_frame_length`): those
of 17 frames of the video, which its autoencoder decodes by themselves."""


def long_video(
    pipe: OpenSoraPipeline,
    prompt: str | Sequence[str] | None = None,
    *,
    clips: int,
    num_frames: int = 51,
    kept: int = _KEPT,
    anew: float = 0.0,
    output_type: str = "pil",
    **arguments: Any,
) -> OpenSoraPipelineOutput:
    """Sample a video of several clips, as Open-Sora v1.2 does by `loop`.

    Each clip is a run of its own, so a schedule for one clip serves all of them. Clips are joined
    as latents, which are decoded once; upstream decodes each and encodes it again.

    Example:
        Two clips, of 51 and 34 new frames, by a schedule::

            with cached_pipeline(pipe, schedule):
                frames = long_video(pipe, "a lighthouse", clips=2).frames

    Args:
        pipe: The pipeline that samples each clip.
        prompt: A text, or one for each clip; None if embeddings are among the arguments.
        clips: How many clips, at least 1.
        num_frames: Frames of each clip, those that are kept included.
        kept: Frames of the latent that each clip has in common with the one before.
        anew: How much of those is made anew, from 0, nothing, to 1.
        output_type: `"pil"`, `"np"`, `"pt"`, or `"latent"` for what is not decoded.
        arguments: What else the pipeline is called with: size, steps, guidance, `generator`.

    Returns:
        One video for each of the pipeline's batch.

    Raises:
        PipelineError: Clips cannot be joined so, or the pipeline refuses its arguments.
    """
    group = _group(pipe, num_frames)
    _check(pipe, prompt, clips, num_frames, kept, group)
    prompts = [prompt] * clips if prompt is None or isinstance(prompt, str) else list(prompt)
    call: Any = pipe  # with the types of what it is given here
    joined: Tensor | None = None
    for text in prompts:
        given = {} if joined is None else _given(pipe, joined, num_frames, kept, anew)
        chosen = {**arguments, **given, "num_frames": num_frames, "output_type": "latent"}
        clip = call(text, **chosen).frames
        joined = clip if joined is None else torch.cat((joined, clip[:, :, kept:]), dim=2)
    assert joined is not None
    shared = kept // group[1] * group[0]
    frames = num_frames + (clips - 1) * (num_frames - shared)
    return OpenSoraPipelineOutput(frames=pipe.decoded(joined, frames, output_type))


def _given(
    pipe: OpenSoraPipeline, before: Tensor, num_frames: int, kept: int, anew: float
) -> dict[str, Tensor]:
    """Return what the next clip begins with: its first frames, and how much is made anew."""
    frames = before.new_zeros(
        (*before.shape[:2], pipe.latent_frames(num_frames), *before.shape[3:])
    )
    frames[:, :, :kept] = before[:, :, -kept:]
    share = before.new_ones((len(before), frames.shape[2]))
    share[:, :kept] = anew
    return {"frames": frames, "frame_mask": share}


def _group(pipe: OpenSoraPipeline, num_frames: int) -> tuple[int, int]:
    """Return how many frames are decoded by themselves, of the video and of the latent."""
    if not isinstance(pipe.vae, AutoencoderKLOpenSora):
        return 1, 1
    config: Any = pipe.vae.config
    frames = config.micro_frame_size or num_frames
    return frames, pipe.vae.latent_frames(frames)


def _check(
    pipe: OpenSoraPipeline,
    prompt: str | Sequence[str] | None,
    clips: int,
    num_frames: int,
    kept: int,
    group: tuple[int, int],
) -> None:
    if clips < 1:
        raise PipelineError(f"a video has at least 1 clip, got {clips}")
    if prompt is not None and not isinstance(prompt, str) and len(prompt) != clips:
        raise PipelineError(f"give one text, or one for each of {clips} clips; got {len(prompt)}")
    frames, latents = group
    if num_frames % frames or kept % latents:
        raise PipelineError(
            f"the autoencoder makes {frames} frames of {latents} of the latent, so clips that are "
            f"joined have a multiple of {frames} frames and keep a multiple of {latents}; got "
            f"{num_frames} and {kept}"
        )
    whole = pipe.latent_frames(num_frames)
    if not 0 < kept < whole:
        raise PipelineError(
            f"clips of {num_frames} frames have {whole} frames of the latent, so they cannot keep "
            f"{kept} of those before"
        )
