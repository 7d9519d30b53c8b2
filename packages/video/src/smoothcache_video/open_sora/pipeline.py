"""Open-Sora v1.2 as a pipeline of diffusers: text, and given frames, to video."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils.outputs import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from smoothcache_core.errors import PipelineError, warn
from torch import Tensor

from smoothcache_video.open_sora.autoencoder import AutoencoderKLOpenSora
from smoothcache_video.open_sora.given import GivenFrames
from smoothcache_video.open_sora.scheduler import RectifiedFlowScheduler
from smoothcache_video.open_sora.stdit3 import STDiT3

STEPS, GUIDANCE = 30, 7.0
"""Steps and guidance of Open-Sora v1.2's own settings for sampling."""

_FRAMES, _FPS = 51, 24  # likewise


@dataclass
class OpenSoraPipelineOutput(BaseOutput):
    """What the pipeline gives.

    Attributes:
        frames: Videos, (batch, frames, channels, height, width) as a tensor, or as `output_type`
            says; latents, (batch, channels, frames, height, width), with `"latent"`.
    """

    frames: Any


class OpenSoraPipeline(DiffusionPipeline):
    """Samples videos by rectified flow, with guidance in one batch of two.

    Args:
        tokenizer: Tokenizer of the text encoder; None if texts are given as embeddings.
        text_encoder: T5 encoder.
        vae: Autoencoder that decodes latents: Open-Sora's own (`AutoencoderKLOpenSora`), or one
            that does frame by frame (`AutoencoderKL`); None where the denoiser makes the pixels.
        transformer: The denoiser, which gives velocities.
        scheduler: Says at which timesteps it is evaluated.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _optional_components: ClassVar = ["tokenizer", "text_encoder", "vae"]
    _callback_tensor_inputs: ClassVar = ["latents", "prompt_embeds"]

    transformer: STDiT3
    scheduler: RectifiedFlowScheduler

    def __init__(
        self,
        tokenizer: Any,
        text_encoder: Any,
        vae: Any,
        transformer: STDiT3,
        scheduler: RectifiedFlowScheduler,
    ) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            vae=vae,
            transformer=transformer,
            scheduler=scheduler,
        )
        self.video_processor = VideoProcessor(vae_scale_factor=self.pixels_per_latent)
        self._guidance_scale = GUIDANCE

    @property
    def pixels_per_latent(self) -> int:
        """Side of a latent's entry in pixels."""
        return 1 if self.vae is None else 2 ** (len(self.vae.config.block_out_channels) - 1)

    def latent_frames(self, num_frames: int) -> int:
        """Return how many frames of the latent a video of so many frames has."""
        if isinstance(self.vae, AutoencoderKLOpenSora):
            return self.vae.latent_frames(num_frames)
        return num_frames

    @property
    def guidance_scale(self) -> float:
        """Strength of guidance of the run."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the run is guided: in one batch, conditional half first."""
        return self._guidance_scale > 1.0

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        fps: float = _FPS,
        num_inference_steps: int = STEPS,
        guidance_scale: float = GUIDANCE,
        frames: Tensor | None = None,
        frame_mask: Tensor | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> OpenSoraPipelineOutput | tuple[Any]:
        """Sample videos.

        Args:
            prompt: A text, or one for each video.
            height: Height in pixels; None is that of the denoiser's `input_sq_size`.
            width: Width in pixels; None is likewise.
            num_frames: Frames of the video; None is 51. The latent has fewer where the autoencoder
                joins frames.
            fps: Frames per second that the denoiser is given; Open-Sora was trained with 120 for
                single pictures.
            num_inference_steps: Steps, at least 1; each is one evaluation.
            guidance_scale: Strength of guidance; at most 1 is none, and halves the batch.
            frames: Latents of known frames, (batch, channels, frames, height, width), for image or
                video to video; only those that `frame_mask` keeps are looked at.
            frame_mask: How much of every frame is made anew, (batch, frames): 1 is all, 0 keeps the
                frame, between it is made from that share of the noise.
            generator: Where noise is drawn from, one or one for each video.
            latents: Noise to begin with, in place of drawn noise.
            prompt_embeds: Outputs of the text encoder, (batch, words, channels), in place of texts.
            prompt_attention_mask: Words that count, (batch, words); None is all.
            output_type: `"pil"`, `"np"`, `"pt"`, or `"latent"` for what is not decoded.
            return_dict: Whether to give an `OpenSoraPipelineOutput` or a tuple.
            callback_on_step_end: Called after every step with the pipeline, the step, the timestep
                and the tensors that are named; tensors that it returns replace them.
            callback_on_step_end_tensor_inputs: Names of those tensors: `"latents"`,
                `"prompt_embeds"`.

        Raises:
            PipelineError: Texts, sizes or known frames do not go together.
        """
        side = self.transformer.config.input_sq_size  # pyright: ignore[reportAttributeAccessIssue]
        height, width = height or side, width or side
        count = num_frames or _FRAMES
        self._check((count, height, width), frames, frame_mask, prompt, prompt_embeds)
        self._guidance_scale = guidance_scale
        device = self._execution_device
        text, mask = self._text(prompt, prompt_embeds, prompt_attention_mask, device)
        noise = self._noise(len(text), (count, height, width), latents, generator)
        noise = noise.to(device)
        given = GivenFrames.of(frames, frame_mask, like=noise)
        found = noise if given is None else given.begin(noise)
        self.scheduler.set_timesteps(
            num_inference_steps, device, height=height, width=width, num_frames=count
        )
        about = {"fps": fps, "height": height, "width": width, "mask": mask}
        bar: Any = self.progress_bar  # a decorator of classes, for the type checker
        with bar(total=num_inference_steps) as steps:
            for step, t in enumerate(self.scheduler.timesteps):
                before, noisy = found, None
                if given is not None:
                    before, noisy = given.before(step, found, noise, self.scheduler)
                velocity = self._velocity(before, t, text, noisy, about)
                found = self.scheduler.step(velocity, t, before).prev_sample
                if noisy is not None:
                    found = torch.where(noisy[:, None, :, None, None], found, before)
                if callback_on_step_end is not None:
                    known = {"latents": found, "prompt_embeds": text}
                    named = {name: known[name] for name in callback_on_step_end_tensor_inputs}
                    answer = callback_on_step_end(self, step, t, named)
                    found, text = answer.get("latents", found), answer.get("prompt_embeds", text)
                steps.update()
        videos = self.decoded(found, count, output_type)
        self.maybe_free_model_hooks()
        return OpenSoraPipelineOutput(frames=videos) if return_dict else (videos,)

    def _check(
        self,
        sizes: tuple[int, int, int],
        frames: Tensor | None,
        frame_mask: Tensor | None,
        prompt: object,
        prompt_embeds: Tensor | None,
    ) -> None:
        count, height, width = sizes
        config: Any = self.transformer.config
        if config.max_frames is not None and self.latent_frames(count) > config.max_frames:
            raise PipelineError(
                f"this model takes clips of at most {config.max_frames} frames of the latent, and "
                f"{count} frames of a video have {self.latent_frames(count)}; sample fewer, or "
                "several clips by `long_video`"
            )
        if height % self.pixels_per_latent or width % self.pixels_per_latent:
            raise PipelineError(
                f"height and width must be multiples of {self.pixels_per_latent}, got "
                f"{height} x {width}"
            )
        if (frames is None) != (frame_mask is None):
            raise PipelineError("known frames need both `frames` and `frame_mask`")
        if (prompt is None) == (prompt_embeds is None):
            raise PipelineError("give either `prompt` or `prompt_embeds`")
        if prompt_embeds is not None and prompt_embeds.shape[1] > config.model_max_length:
            raise PipelineError(
                f"this model takes texts of at most {config.model_max_length} words, but "
                f"`prompt_embeds` has {prompt_embeds.shape[1]}"
            )
        if prompt is not None and (self.tokenizer is None or self.text_encoder is None):
            raise PipelineError(
                "this pipeline has no text encoder: give `prompt_embeds` in place of `prompt`"
            )

    # ------------------------------------------------------------------ text

    def _text(
        self,
        prompt: str | Sequence[str] | None,
        embeds: Tensor | None,
        mask: Tensor | None,
        device: torch.device,
    ) -> tuple[Tensor, Tensor | None]:
        """Return embeddings, (batch, 1, words, channels), and words that count, (batch, words)."""
        if embeds is None:
            assert self.tokenizer is not None
            prompts = [prompt] if isinstance(prompt, str) else list(prompt or ())
            words = self.transformer.config.model_max_length  # pyright: ignore[reportAttributeAccessIssue]
            tokens = self.tokenizer(
                prompts,
                max_length=words,
                padding="max_length",
                truncation=True,
                return_attention_mask=True,
                return_tensors="pt",
            ).to(device)
            self._tell_cut(prompts, words)
            mask = tokens.attention_mask
            embeds = self.text_encoder(tokens.input_ids, attention_mask=mask)[0]
        assert embeds is not None
        return embeds.to(device)[:, None], None if mask is None else mask.to(device)

    def _tell_cut(self, prompts: Sequence[str], words: int) -> None:
        """Warn where the model reads the beginning of a text only."""
        lengths = [len(each) for each in self.tokenizer(list(prompts), verbose=False).input_ids]
        if max(lengths, default=0) > words:
            warn(
                f"a text has {max(lengths)} tokens, and this model reads the first {words} of them",
            )

    def _velocity(
        self,
        latents: Tensor,
        t: Tensor,
        text: Tensor,
        noisy: Tensor | None,
        about: dict[str, Any],
    ) -> Tensor:
        """Return the guided velocity, of the shape of the latents."""
        if self.do_classifier_free_guidance:
            null = self.transformer.y_embedder.y_embedding[None, None, : text.shape[2]]
            text = torch.cat((text, null.to(text).expand_as(text)))
            latents = torch.cat((latents, latents))
            noisy = None if noisy is None else torch.cat((noisy, noisy))
        output = self.transformer(latents, t.expand(len(latents)), text, x_mask=noisy, **about)
        velocity = output[:, : latents.shape[1]]
        if not self.do_classifier_free_guidance:
            return velocity
        conditional, unconditional = velocity.chunk(2)
        return unconditional + self._guidance_scale * (conditional - unconditional)

    # ------------------------------------------------------------------ latents

    def _noise(
        self,
        batch: int,
        sizes: tuple[int, int, int],
        latents: Tensor | None,
        generator: torch.Generator | list[torch.Generator] | None,
    ) -> Tensor:
        count, height, width = sizes
        channels = self.transformer.config.in_channels  # pyright: ignore[reportAttributeAccessIssue]
        factor = self.pixels_per_latent
        frames = self.latent_frames(count)
        shape = (batch, channels, frames, height // factor, width // factor)
        if latents is None:
            return randn_tensor(
                shape, generator=generator, device=self._execution_device, dtype=torch.float32
            )
        if tuple(latents.shape) != shape:
            raise PipelineError(f"latents must be {shape}, got {tuple(latents.shape)}")
        return latents.float()

    def decoded(self, latents: Tensor, frames: int, output_type: str) -> Any:
        """Return the videos of latents.

        Args:
            latents: (batch, channels, frames, height, width).
            frames: Frames of the videos.
            output_type: What to give: `"pil"`, `"np"`, `"pt"`, or `"latent"` for the latents.
        """
        if output_type == "latent":
            return latents
        videos = self._pixels(latents, frames)
        return self.video_processor.postprocess_video(videos.float(), output_type=output_type)

    def _pixels(self, latents: Tensor, frames: int) -> Tensor:
        """Return the videos of latents, (batch, channels, frames, height, width)."""
        if self.vae is None:
            return latents
        if isinstance(self.vae, AutoencoderKLOpenSora):
            whole = latents.to(self.vae.dtype)
            return self.vae.decode(whole, num_frames=frames, return_dict=False)[0]
        flat = latents.transpose(1, 2).flatten(0, 1).to(self.vae.dtype)
        pixels = self.vae.decode(flat / self.vae.config.scaling_factor, return_dict=False)[0]
        return pixels.unflatten(0, (len(latents), -1)).transpose(1, 2)
