"""Sampling a pipeline from seeds, with the autoencoder's decoding kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from smoothcache_core import Sampler
from smoothcache_core.adapters import Adapter
from smoothcache_core.errors import PipelineError
from smoothcache_core.pipelines import ConditionedSampler, PipelineClass, chosen_adapter
from smoothcache_core.pipelines.diffusers_shaped import (
    call_arguments,
    called_with_seed,
    known_class,
    show_steps,
)
from smoothcache_core.pipelines.pipelines import heard
from smoothcache_core.sampling.sampler import NOT_GIVEN
from torch import Tensor

from smoothcache_image.adapters import ADAPTERS, PIPELINES
from smoothcache_image.conditions import label_name, takes_labels
from smoothcache_image.pipelines import denoiser_of


@dataclass(frozen=True, kw_only=True)
class PromptSampler(ConditionedSampler):
    """Samples a diffusers pipeline of pictures; `prompt_sampler` makes one.

    Attributes:
        pipe: A pipeline that takes `class_labels` or `prompt`.
        size: Height and width in pixels; None is the pipeline's own.

    Raises:
        PipelineError: The pipeline does not take what is asked.
        SamplerError: See `ConditionedSampler`.
    """

    pipe: Any
    size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        names = call_arguments(self.pipe)
        if self.size is not None and "height" not in names:
            raise PipelineError(
                f"{type(self.pipe).__name__} has one size of its own; omit the size"
            )
        if self.guidance is not None and self._known.guidance_argument not in names:
            raise PipelineError(f"{type(self.pipe).__name__} takes no guidance")

    def plain_sampler(self) -> Sampler:
        """Return the sampler without its conditions, with `decode`."""
        denoiser = denoiser_of(self.pipe)
        return Sampler(
            model=denoiser,
            adapter=chosen_adapter(denoiser, self.given_adapter, ADAPTERS) or NOT_GIVEN,
            run=self.latents,
            decode=self.images,
            scheduler=self.pipe.scheduler,
            branches=self._known.passes_at(self.pipe, self.guidance),
            samples=self.samples,
        )

    def latents(self, seed: int) -> Tensor:
        """Return what the solver ends with for `seed`: the input of the autoencoder's decoder.

        Noise that the solver adds depends on `seed` alone too, also where the pipeline leaves it to
        torch's global generators; these are afterwards as they were before.

        Returns:
            Float32 latents, (samples, channels, height, width), or with a frame dimension before
            height where the autoencoder is one for video.
        """
        with heard(self.pipe.vae, _black) as latents:
            called_with_seed(
                self.pipe,
                seed,
                **self._condition(seed),
                **self._options(),
                num_inference_steps=self.steps,
                output_type="pt",
            )
        if len(latents) != 1:
            raise PipelineError(
                f"{type(self.pipe).__name__} decoded {len(latents)} times in one call, expected 1"
            )
        return latents[0].float()

    @torch.no_grad()
    def images(self, latents: Tensor) -> Tensor:
        """Decode final latents, (n, ...).

        Returns:
            Float32 pictures, (n, 3, height, width), values in [0, 1].
        """
        vae = self.pipe.vae
        decoded = vae.decode(latents.to(vae.device, vae.dtype), return_dict=False)[0]
        if decoded.ndim == 5:
            decoded = decoded[:, :, 0]
        return (decoded.float() / 2 + 0.5).clamp(0, 1)

    def label(self, condition: int | str) -> str:
        """Return the name of a class, or of a prompt, short enough for a caption or a file name."""
        return label_name(self.pipe, condition)

    def show_progress(self, shown: bool) -> None:
        """Show a progress bar of the steps of every run from now on, or none."""
        show_steps(self.pipe, shown)

    @property
    def evaluations(self) -> int | None:
        """Evaluations of one run, where a step makes one; None where it may make more."""
        return self.steps if getattr(self.pipe.scheduler, "order", 1) == 1 else None

    @property
    def _known(self) -> PipelineClass:
        """What is known about the class of the pipeline."""
        return known_class(self.pipe, PIPELINES)

    def _condition(self, seed: int) -> dict[str, Any]:
        name = "class_labels" if takes_labels(self.pipe) else "prompt"
        return {name: self.conditions_of(seed)}

    def _options(self) -> dict[str, Any]:
        size = {} if self.size is None else {"height": self.size, "width": self.size}
        return {**size, **self._known.with_guidance(self.guidance)}


def prompt_sampler(
    pipe: Any,
    *,
    conditions: Sequence[int] | Sequence[str],
    steps: int,
    guidance: float | None = None,
    samples: int = 1,
    size: int | None = None,
    adapter: Adapter | str | None = None,
) -> PromptSampler:
    """Return the sampler of a pipeline that shows class labels or prompts.

    Example:
        >>> sampler = prompt_sampler(load_pipeline("digits"), conditions=range(10), steps=50)
        >>> picture = sampler.decode(sampler.final_latent(0))

    Args:
        pipe: A diffusers pipeline that takes `class_labels` or `prompt`.
        conditions: Class numbers, or prompts; sample n of all has condition n, counted round.
        steps: Steps of the solver, at least 1.
        guidance: Strength of classifier-free guidance; None is the pipeline's own.
        samples: Samples of one run, at least 1.
        size: Height and width in pixels; None is the pipeline's own.
        adapter: What is known about the denoiser; see `sampler_of`.

    Raises:
        AdapterError: See `sampler_of`.
        PipelineError: The pipeline does not take what is asked.
        SamplerError: There are no conditions, or less than a step or a sample.
    """
    return PromptSampler(
        pipe=pipe,
        conditions=conditions,
        steps=steps,
        guidance=guidance,
        samples=samples,
        size=size,
        given_adapter=adapter,
    )


def _black(latents: Tensor, *args: Any, return_dict: bool = True, **kwargs: Any) -> Any:
    """Give black pictures in place of decoded ones.

    Every pipeline scales and unpacks its latents in a way of its own before decoding, and not all
    can leave decoding out; decoded pictures are not needed while sampling.
    """
    from diffusers.models.autoencoders.vae import DecoderOutput

    del args, kwargs
    black = latents.new_zeros((latents.shape[0], 3, *latents.shape[2:]))
    return DecoderOutput(sample=black) if return_dict else (black,)
