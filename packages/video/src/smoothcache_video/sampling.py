"""Sampling a pipeline of videos from seeds."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from smoothcache_core.adapters import Adapter
from smoothcache_core.errors import PipelineError
from smoothcache_core.pipelines import PipelineFamily, PipelineSampler
from smoothcache_core.pipelines.labels import SHORT
from smoothcache_core.pipelines.pipelines import of_frames
from torch import Tensor

from smoothcache_video.conditions import written
from smoothcache_video.pipelines import FAMILY

FPS = 8.0
"""Frames per second of files, where neither a user nor the pipeline says any."""

_FRAMES = ("num_frames", "video_length", "frames")
_RATES = ("fps", "frame_rate")
"""Arguments that set the number of frames, and the frames per second: the first that there is."""

_GIVEN = {"self", "kwargs", "prompt", "image"}


@dataclass
class _Decoding:
    """How a pipeline called its decoder, which is how it is called again.

    Attributes:
        by_frames: Whether it was given frames as pictures; None if it was never called.
        rows: How many of them at once.
        args: What it was given after the latents.
        options: What it was given by name.
    """

    by_frames: bool | None = None
    rows: int = 1
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def note(self, latents: Tensor, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Note a call, the largest of a run where there are several."""
        rows = len(latents)
        if self.by_frames is None or rows >= self.rows:
            self.by_frames, self.rows, self.args = latents.ndim == 4, rows, args
            self.options = {**options, "return_dict": False}

    def videos(self, vae: Any, latents: Tensor) -> Tensor:
        """Decode (n, channels, frames, height, width) in the way that was noted."""
        if not self.by_frames:
            args = [_of_batch(each, len(latents)) for each in self.args]
            return vae.decode(latents, *args, **self.options)[0]
        flat = latents.transpose(1, 2).flatten(0, 1)
        parts = [vae.decode(part, **self._with_count(len(part)))[0] for part in self._split(flat)]
        return torch.cat(parts).unflatten(0, (len(latents), -1)).transpose(1, 2)

    def _split(self, flat: Tensor) -> Sequence[Tensor]:
        return flat.split(self.rows)

    def _with_count(self, rows: int) -> dict[str, Any]:
        """Return the options, told how many frames there are if it wants to know."""
        counted = {"num_frames": rows} if "num_frames" in self.options else {}
        return {**self.options, **counted}


def _of_batch(value: Any, rows: int) -> Any:
    """Return an argument with one value for each of `rows` samples, if it has one for each."""
    if not isinstance(value, Tensor) or not value.ndim or len(value) == rows:
        return value
    return value[:1].expand(rows, *value.shape[1:])


@dataclass(frozen=True, kw_only=True)
class PromptSampler(PipelineSampler):
    """Samples a diffusers pipeline of videos; `prompt_sampler` makes one.

    Attributes:
        height: Height in pixels; None is the pipeline's own.
        width: Width in pixels; None is the pipeline's own.
        frames: Frames of a video; None is the pipeline's own number.
        fps: Frames per second, of the model where it can be told, and of files; None is the
            pipeline's own, or 8.
        image: A picture to begin with, for pipelines from image to video.

    Raises:
        PipelineError: The pipeline does not take what is asked, or needs more.
        SamplerError: See `ConditionedSampler`.
    """

    FAMILY: ClassVar[PipelineFamily] = FAMILY

    height: int | None = None
    width: int | None = None
    frames: int | None = None
    fps: float | None = None
    image: Any = None
    decoding: _Decoding = field(default_factory=_Decoding, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self.pipe).__name__
        if "prompt" not in self.arguments:
            raise PipelineError(f"{name} takes no prompts, but {sorted(self.arguments)}")
        for option in ("height", "width"):
            if getattr(self, option) is not None and option not in self.arguments:
                raise PipelineError(f"{name} has one size of its own; omit the {option}")
        if self.frames is not None and self._argument(_FRAMES) is None:
            raise PipelineError(f"{name} has one number of frames; omit the frames")
        if self.image is not None and "image" not in self.arguments:
            raise PipelineError(f"{name} makes videos from prompts alone; omit the image")
        if self.image is None and "image" in self._needed:
            raise PipelineError(f"{name} makes videos from an image: give one")
        if more := sorted(self._needed - _GIVEN):
            raise PipelineError(
                f"{name} needs {', '.join(more)}, which cannot be given here; call it in Python, "
                "with `sampler_of`"
            )

    @torch.no_grad()
    def decoded(self, latents: Tensor) -> Tensor:
        """Decode final latents as the pipeline did in the last run.

        Args:
            latents: What `latents` returned, (n, channels, frames, height, width), of any runs.

        Returns:
            Float32 videos, (n, frames, 3, height, width), values in [0, 1].

        Raises:
            PipelineError: Nothing was sampled before.
        """
        vae = self.pipe.vae
        if self.decoding.by_frames is None:
            raise PipelineError(
                "how this pipeline decodes is known from a run of it: sample before you decode"
            )
        decoded = self.decoding.videos(vae, latents.to(vae.device, vae.dtype))
        return (decoded.transpose(1, 2).float() / 2 + 0.5).clamp(0, 1)

    def undecoded(self, latents: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Give black frames in place of decoded ones, and note how they were asked for.

        Args:
            latents: What the autoencoder's `decode` is called with, as are the others.
            args: Whatever else it is given.
            kwargs: Whatever else it is given by name.
        """
        self.decoding.note(latents, args, kwargs)
        return super().undecoded(latents)

    def joined(self, latents: Sequence[Tensor]) -> Tensor:
        """Return the final latents of a run from what the decoder was given, call by call.

        Args:
            latents: Of every call, (samples, ...), or frames of all samples as pictures.

        Raises:
            PipelineError: They are not those of the samples of a run.
        """
        found = of_frames(latents, self.samples)
        return super().joined(latents) if found is None else found

    def label(self, condition: str) -> str:
        """Return a prompt, short enough for a caption or the name of a file."""
        return written(condition)[:SHORT]

    @property
    def frame_rate(self) -> float:
        """Frames per second of files."""
        name = self._argument(_RATES)
        own = self.arguments[name].default if name is not None else None
        return self.fps or (float(own) if isinstance(own, int | float) and own > 0 else FPS)

    def options(self) -> dict[str, Any]:
        """Return the arguments that set size, frames, frame rate and the first picture."""
        pictures = self.image if self.samples == 1 else [self.image] * self.samples
        named = {
            "height": self.height,
            "width": self.width,
            self._argument(_FRAMES): self.frames,
            self._argument(_RATES): self.fps,
            "image": None if self.image is None else pictures,
        }
        return {
            name: value for name, value in named.items() if name is not None and value is not None
        }

    def _argument(self, names: Sequence[str]) -> str | None:
        """Return the first of some names that the pipeline has an argument of."""
        return next((name for name in names if name in self.arguments), None)

    @property
    def _needed(self) -> set[str]:
        """Arguments without a default."""
        empty = inspect.Parameter.empty
        return {name for name, each in self.arguments.items() if each.default is empty}


def prompt_sampler(
    pipe: Any,
    *,
    conditions: Sequence[str],
    steps: int,
    guidance: float | None = None,
    samples: int = 1,
    height: int | None = None,
    width: int | None = None,
    frames: int | None = None,
    fps: float | None = None,
    image: Any = None,
    adapter: Adapter | str | None = None,
) -> PromptSampler:
    """Return the sampler of a pipeline that makes videos from prompts.

    Example:
        >>> sampler = prompt_sampler(pipe, conditions=["a red fox"], steps=30, frames=49)
        >>> video = sampler.decode(sampler.final_latent(0))

    Args:
        pipe: A diffusers pipeline that takes a `prompt`.
        conditions: Prompts; sample n of all has prompt n, counted round.
        steps: Steps of the solver, at least 1.
        guidance: Strength of classifier-free guidance; None is the pipeline's own.
        samples: Samples of one run, at least 1.
        height: Height in pixels; None is the pipeline's own.
        width: Width in pixels; None is the pipeline's own.
        frames: Frames of a video; None is the pipeline's own number.
        fps: Frames per second, of the model where it can be told, and of files; None is the
            pipeline's own, or 8.
        image: A picture to begin with, for pipelines from image to video.
        adapter: What is known about the denoiser; see `sampler_of`.

    Raises:
        AdapterError: See `sampler_of`.
        PipelineError: The pipeline does not take what is asked, or needs more.
        SamplerError: There are no prompts, or less than a step or a sample.
    """
    return PromptSampler(
        pipe=pipe,
        conditions=conditions,
        steps=steps,
        guidance=guidance,
        samples=samples,
        height=height,
        width=width,
        frames=frames,
        fps=fps,
        image=image,
        given_adapter=adapter,
    )
