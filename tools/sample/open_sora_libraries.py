"""Open-Sora in each of its implementations, as something that is calibrated, cached and sampled.

What stands here is what their own scripts do before they sample; of caching there is only the
`Sampler`, which says what the denoiser is and how a run is made of a seed.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from smoothcache_core import Sampler
from smoothcache_core.errors import PipelineError
from smoothcache_core.pipelines import pipeline_sampler
from smoothcache_core.pipelines.diffusers_shaped import show_steps
from smoothcache_video import adapter_for, sampler_of
from smoothcache_video.loading import load_pipeline
from smoothcache_video.open_sora import load_published
from smoothcache_video.open_sora.published import AUTOENCODER, DENOISER, TEXT_ENCODER
from torch import Tensor

Library = Literal["opensora-1.2", "opensora-2.0", "smoothcache-video"]

_SCORED = "{} aesthetic score: 6.5."
"""What version 1.2's own settings add to every prompt, as its training did."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be sampled.

    Attributes:
        prompt: What to see.
        height: Height in pixels, a multiple of 8.
        width: Width in pixels, a multiple of 8.
        frames: Frames of the video, at least 1.
        fps: Frames per second.
        steps: Steps of the solver, at least 1.
        guidance: Strength of guidance; 1 is none.
    """

    prompt: str
    height: int
    width: int
    frames: int
    fps: float
    steps: int
    guidance: float


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model that samples what was wished for.

    Attributes:
        sampler: What `calibrate` and `cached_sampler` take.
        video: Samples from a seed: (frames, 3, height, width), values in [0, 1].
    """

    sampler: Sampler
    video: Callable[[int], Tensor]


def load(library: Library, model: str | None, wish: Wish, device: torch.device) -> Loaded:
    """Load a model of a library.

    Args:
        library: Whose implementation.
        model: Checkpoint or folder of the denoiser, or of version 2.0 its settings file; None is
            what was published.
        wish: What will be sampled.
        device: Where to.

    Raises:
        PipelineError: The library is not installed, or there is no such model.
    """
    if library == "smoothcache-video":
        return _ours(model, wish, device)
    if find_spec("opensora") is None:
        raise PipelineError(
            f"{library} needs Open-Sora installed (https://github.com/hpcaitech/Open-Sora, version "
            f"{library.rpartition('-')[2]}); --library smoothcache-video needs nothing more"
        )
    return (_version_1 if library == "opensora-1.2" else _version_2)(model, wish, device)


# ---------------------------------------------------------------------------- this package


def _ours(model: str | None, wish: Wish, device: torch.device) -> Loaded:
    if model is None:
        pipe: Any = load_published().to(device)
        prompt = _SCORED.format(wish.prompt.strip().lower())
    else:
        pipe, prompt = load_pipeline(model, device=str(device)), wish.prompt
    show_steps(pipe, True)

    def video(seed: int) -> Tensor:
        return pipe(
            prompt,
            height=wish.height,
            width=wish.width,
            num_frames=wish.frames,
            fps=wish.fps,
            num_inference_steps=wish.steps,
            guidance_scale=wish.guidance,
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="pt",
        ).frames[0]

    return Loaded(sampler=sampler_of(pipe, video), video=video)


# ---------------------------------------------------------------------------- version 1.2


def _version_1(model: str | None, wish: Wish, device: torch.device) -> Loaded:
    registry, dtype = _of("registry"), torch.bfloat16 if device.type == "cuda" else torch.float32

    def built(kind: str, *, of: Any = registry.MODELS, **settings: Any) -> Any:
        return registry.build_module({"type": kind, **settings}, of)

    words = built("t5", from_pretrained=TEXT_ENCODER, model_max_length=300, device=str(device))
    vae = built(
        "OpenSoraVAE_V1_2", from_pretrained=AUTOENCODER, micro_frame_size=17, micro_batch_size=4
    )
    vae = vae.to(device, dtype).eval()
    sizes = tuple(vae.get_latent_size((wish.frames, wish.height, wish.width)))
    denoiser = built(
        "STDiT3-XL/2",
        from_pretrained=model or DENOISER,
        qk_norm=True,
        enable_flash_attn=device.type == "cuda",
        enable_layernorm_kernel=device.type == "cuda",
        enable_sequence_parallelism=False,
        input_size=sizes,
        in_channels=vae.out_channels,
        caption_channels=words.output_dim,
        model_max_length=words.model_max_length,
    )
    denoiser = denoiser.to(device, dtype).eval()
    words.y_embedder = denoiser.y_embedder  # as upstream's own script: the embedding of no text
    rflow = built(
        "rflow",
        of=registry.SCHEDULERS,
        use_timestep_transform=True,
        num_sampling_steps=wish.steps,
        cfg_scale=wish.guidance,
    )
    prompt = _of("models.text_encoder.t5").text_preprocessing(_SCORED.format(wish.prompt))
    about = _of("utils.inference_utils").prepare_multi_resolution_info(
        "STDiT2", 1, (wish.height, wish.width), wish.frames, wish.fps, device, dtype
    )

    @torch.no_grad()
    def video(seed: int) -> Tensor:
        torch.manual_seed(seed)  # upstream draws all noise from the global generator
        noise = torch.randn(1, vae.out_channels, *sizes, device=device, dtype=dtype)
        latent = rflow.sample(
            denoiser, words, z=noise, prompts=[prompt], device=device, additional_args=about
        )
        return _shown(vae.decode(latent.to(dtype), num_frames=wish.frames))

    return _loaded(denoiser, vae, video, solver="rflow")


# ---------------------------------------------------------------------------- version 2.0


def _version_2(model: str | None, wish: Wish, device: torch.device) -> Loaded:
    if model is None or not Path(model).is_file():
        raise PipelineError(
            "for version 2.0 give --model the settings of its own script, such as "
            "configs/diffusion/inference/256px.py, which name the checkpoints"
        )
    config: Any = importlib.import_module("mmengine.config").Config.fromfile(model)
    sampling, dtype = _of("utils.sampling"), torch.bfloat16
    denoiser, vae, *others = sampling.prepare_models(config, device, dtype)
    api = sampling.prepare_api(denoiser, vae, *others)
    sizes = {"resolution": None, "aspect_ratio": None, "height": wish.height, "width": wish.width}
    counts = {"num_frames": wish.frames, "num_steps": wish.steps, "guidance": wish.guidance}
    option = sampling.sanitize_sampling_option(
        sampling.SamplingOption(**{**config.sampling_option, **sizes, **counts})
    )

    said = _of("utils.inference").add_fps_info_to_text([wish.prompt], fps=round(wish.fps))
    if "motion_score" in config:
        said = _of("utils.inference").add_motion_score_to_text(said, config["motion_score"])

    def video(seed: int) -> Tensor:
        made = api(
            option,
            "t2v",
            seed=seed,
            text=said,
            patch_size=config.get("patch_size", 2),
            channel=config.model["in_channels"],
        )
        return _shown(made.clone())

    return _loaded(denoiser, vae, video, solver="euler")


def _loaded(denoiser: Any, vae: Any, video: Callable[[int], Tensor], *, solver: str) -> Loaded:
    """Return a model whose final latent is what its autoencoder is given."""
    sampler = pipeline_sampler(denoiser, adapter_for(denoiser), video, decoder=vae, solver=solver)
    return Loaded(sampler=sampler, video=video)


def _of(module: str) -> Any:
    """Import a module of an installation of Open-Sora."""
    return importlib.import_module(f"opensora.{module}")


def _shown(videos: Tensor) -> Tensor:
    """Return the first of (batch, 3, frames, height, width), from -1 to 1, as files take it."""
    return (videos[0].transpose(0, 1).float() / 2 + 0.5).clamp(0, 1)
