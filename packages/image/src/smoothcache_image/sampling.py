"""Sampling a pipeline from seeds, with the autoencoder's decoding kept apart."""

from __future__ import annotations

import inspect
import random
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from smoothcache_core import Sampler
from smoothcache_core.errors import PipelineError
from smoothcache_core.patching import replaced
from smoothcache_core.pipelines import devices_of, pipeline_announcing, seeded_globally
from smoothcache_core.pipelines.labels import chosen_classes
from smoothcache_core.sampling import ConditionedSampler
from torch import Tensor, nn

from smoothcache_image.adapters import adapter_for
from smoothcache_image.pipelines import denoiser_of

SEQUENTIAL_GUIDANCE = ("Lumina2Pipeline",)
"""Pipelines whose guidance makes two calls per evaluation without announcing them."""

_SOLVER_NOISE = 0x9E3779B9  # keeps a solver's noise apart from the latents' that it starts from
_IN_ORDER = 100  # classes: with more, neighbours are alike (ImageNet), so they are shuffled


@dataclass(frozen=True, kw_only=True)
class PromptSampler(ConditionedSampler):
    """Samples a diffusers pipeline; `prompt_sampler` makes one.

    Attributes:
        pipe: A pipeline that takes `class_labels` or `prompt`.
        guidance: Strength of classifier-free guidance; None is the pipeline's own.
        size: Height and width in pixels; None is the pipeline's own.

    Raises:
        PipelineError: The pipeline does not take what is asked.
        SamplerError: See `ConditionedSampler`.
    """

    pipe: Any
    guidance: float | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        names = call_arguments(self.pipe)
        if self.size is not None and "height" not in names:
            raise PipelineError(
                f"{type(self.pipe).__name__} has one size of its own; omit the size"
            )
        if self.guidance is not None and "guidance_scale" not in names:
            raise PipelineError(f"{type(self.pipe).__name__} takes no guidance")

    def plain_sampler(self) -> Sampler:
        """Return the sampler without its conditions, with `decode`."""
        denoiser = denoiser_of(self.pipe)
        return Sampler(
            model=denoiser,
            adapter=adapter_for(denoiser),
            run=self.latents,
            decode=self.images,
            scheduler=self.pipe.scheduler,
            branches=self._branches,
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
        generator = torch.Generator("cpu").manual_seed(seed)
        with (
            pipeline_announcing(self.pipe),
            seeded_globally(_devices(self.pipe), seed ^ _SOLVER_NOISE),
            _decoding_put_off(self.pipe.vae) as latents,
        ):
            self.pipe(
                **self._condition(seed),
                **self._options(),
                generator=generator,
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
        self.pipe.set_progress_bar_config(
            desc="steps", leave=False, disable=None if shown else True
        )

    @property
    def evaluations(self) -> int | None:
        """Evaluations of one run, where a step makes one; None where it may make more."""
        return self.steps if getattr(self.pipe.scheduler, "order", 1) == 1 else None

    @property
    def _branches(self) -> tuple[str, ...]:
        """Names of the conditioning passes, if guidance makes calls that are not announced."""
        if type(self.pipe).__name__ not in SEQUENTIAL_GUIDANCE:
            return ()
        scale = self.guidance
        if scale is None:
            scale = call_arguments(self.pipe)["guidance_scale"].default
        return ("cond", "uncond") if scale > 1 else ()

    def _condition(self, seed: int) -> dict[str, Any]:
        name = "class_labels" if takes_labels(self.pipe) else "prompt"
        return {name: self.conditions_of(seed)}

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.size is not None:
            options |= {"height": self.size, "width": self.size}
        if self.guidance is not None:
            options |= _guidance(self.pipe, self.guidance)
        return options


def prompt_sampler(
    pipe: Any,
    *,
    conditions: Sequence[int] | Sequence[str],
    steps: int,
    guidance: float | None = None,
    samples: int = 1,
    size: int | None = None,
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

    Raises:
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
    )


def call_arguments(pipe: Any) -> dict[str, inspect.Parameter]:
    """Return the arguments that calling a pipeline takes."""
    return dict(inspect.signature(type(pipe).__call__).parameters)


def takes_labels(pipe: Any) -> bool:
    """Return whether a pipeline is class-conditional.

    Raises:
        PipelineError: It takes neither class labels nor prompts.
    """
    names = call_arguments(pipe)
    if "class_labels" in names:
        return True
    if "prompt" in names:
        return False
    raise PipelineError(
        f"{type(pipe).__name__} takes neither class labels nor prompts, but {sorted(names)}"
    )


def choose_conditions(pipe: Any, *, labels: str | None, prompts: Sequence[str]) -> list[Any]:
    """Return the conditions to sample, from what a user gave.

    Args:
        pipe: The pipeline.
        labels: Class numbers, ranges `"0-9"` or names, separated by commas; None for all classes.
        prompts: Prompts, for text-conditional pipelines.

    Raises:
        PipelineError: The pipeline takes the other kind, or does not know a class.
    """
    name = type(pipe).__name__
    if not takes_labels(pipe):
        if labels is not None:
            raise PipelineError(f"{name} takes prompts, not class labels")
        if not prompts:
            raise PipelineError(f"{name} takes prompts: give at least one")
        return list(prompts)
    if prompts:
        raise PipelineError(f"{name} takes class labels, not prompts")
    if labels is None:
        return _all_classes(pipe)
    return chosen_classes(labels, names=_named_classes(pipe), count=_class_count(pipe))


def label_name(pipe: Any, condition: int | str) -> str:
    """Return the name of a class, or of a prompt, short enough for a caption or a file name."""
    if isinstance(condition, str):
        return condition[:40]
    names = {number: name for name, number in reversed(_named_classes(pipe).items())}
    return names.get(condition, str(condition))


def _all_classes(pipe: Any) -> list[int]:
    numbers = sorted(set(_named_classes(pipe).values()))
    if not numbers:
        raise PipelineError(f"{type(pipe).__name__} does not list its classes: give class labels")
    if len(numbers) > _IN_ORDER:
        random.Random(0).shuffle(numbers)
    return numbers


def _class_count(pipe: Any) -> int:
    known = _named_classes(pipe)
    return max(known.values()) + 1 if known else pipe.transformer.config.num_embeds_ada_norm


def _named_classes(pipe: Any) -> dict[str, int]:
    return pipe.labels


def _guidance(pipe: Any, scale: float) -> dict[str, Any]:
    """Return the arguments that set classifier-free guidance.

    Where `guidance_scale` is for distilled models only and off by default (Qwen-Image), it is
    `true_cfg_scale`, and that needs a negative prompt.
    """
    names = call_arguments(pipe)
    if names["guidance_scale"].default is None and "true_cfg_scale" in names:
        return {"true_cfg_scale": scale, "negative_prompt": " "}
    return {"guidance_scale": scale}


def _devices(pipe: Any) -> list[torch.device]:
    """Return the CPU, and the devices that the parts of a pipeline are on or are run on."""
    modules = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    return devices_of(modules, pipe._execution_device)


@contextmanager
def _decoding_put_off(vae: Any) -> Generator[list[Tensor]]:
    """Catch what a pipeline gives to its autoencoder's decoder, and give it black pictures.

    Every pipeline scales and unpacks its latents in a way of its own before decoding, and not all
    can leave decoding out.
    """
    caught: list[Tensor] = []

    def decode(latents: Tensor, *args: Any, return_dict: bool = True, **kwargs: Any) -> Any:
        from diffusers.models.autoencoders.vae import DecoderOutput

        del args, kwargs
        caught.append(latents)
        black = latents.new_zeros((latents.shape[0], 3, *latents.shape[2:]))
        return DecoderOutput(sample=black) if return_dict else (black,)

    with replaced(vae, "decode", decode):
        yield caught
