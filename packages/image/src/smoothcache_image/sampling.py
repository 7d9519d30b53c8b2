"""Sampling a pipeline of pictures from seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from smoothcache_core.adapters import Adapter
from smoothcache_core.errors import PipelineError
from smoothcache_core.pipelines import PipelineFamily, PipelineSampler
from torch import Tensor

from smoothcache_image.conditions import label_name
from smoothcache_image.pipelines import FAMILY


@dataclass(frozen=True, kw_only=True)
class PromptSampler(PipelineSampler):
    """Samples a diffusers pipeline of pictures; `prompt_sampler` makes one.

    Attributes:
        size: Height and width in pixels; None is the pipeline's own.

    Raises:
        PipelineError: The pipeline does not take what is asked.
        SamplerError: See `ConditionedSampler`.
    """

    FAMILY: ClassVar[PipelineFamily] = FAMILY

    size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None and "height" not in self.arguments:
            raise PipelineError(
                f"{type(self.pipe).__name__} has one size of its own; omit the size"
            )

    @torch.no_grad()
    def decoded(self, latents: Tensor) -> Tensor:
        """Decode final latents, (n, ...).

        Args:
            latents: What `latents` returned, of any runs.

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

    def options(self) -> dict[str, Any]:
        """Return the arguments that set the size."""
        return {} if self.size is None else {"height": self.size, "width": self.size}


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
