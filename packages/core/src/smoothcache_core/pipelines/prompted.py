"""Sampling a diffusers pipeline from seeds, with the autoencoder's decoding kept apart."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from smoothcache_core.errors import PipelineError
from smoothcache_core.pipelines.adapting import chosen_adapter
from smoothcache_core.pipelines.diffusers_shaped import (
    PipelineClass,
    call_arguments,
    called_with_seed,
    known_class,
    show_steps,
)
from smoothcache_core.pipelines.family import PipelineFamily
from smoothcache_core.pipelines.finer import steps_divided
from smoothcache_core.pipelines.guiders import guiders_announcing
from smoothcache_core.pipelines.labels import condition_argument
from smoothcache_core.pipelines.pipelines import heard
from smoothcache_core.sampling.conditioned import ConditionedSampler
from smoothcache_core.sampling.sampler import NOT_GIVEN, Sampler


@dataclass(frozen=True, kw_only=True)
class PipelineSampler(ConditionedSampler, ABC):
    """Samples a diffusers pipeline that takes class labels or prompts.

    A modality has a subclass, with what else its pipelines can be told, which says by `options`
    what that is for a call, and by `decoded` what becomes of latents.

    Attributes:
        pipe: A pipeline that takes `class_labels` or `prompt`, with an autoencoder `vae`.

    Raises:
        PipelineError: The pipeline does not take what is asked.
        SamplerError: See `ConditionedSampler`.
    """

    FAMILY: ClassVar[PipelineFamily]
    """What the modality knows of models and pipelines."""

    pipe: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self.pipe).__name__
        if getattr(self.pipe, "vae", None) is None:
            raise PipelineError(f"{name} has no autoencoder (`vae`) that decodes its latents")
        if self.guidance is not None and self.known.guidance_argument not in self.arguments:
            raise PipelineError(f"{name} takes no guidance")

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Return arguments of a call beside conditions, guidance, steps and noise."""

    @abstractmethod
    def decoded(self, latents: Tensor) -> Tensor:
        """Decode final latents, (n, ...).

        Args:
            latents: What `latents` returned, of any runs.

        Returns:
            Float32 samples, (n, ...), with values in [0, 1].
        """

    def plain_sampler(self) -> Sampler:
        """Return the sampler without its conditions, with `decode`."""
        denoiser = self.FAMILY.denoiser_of(self.pipe)
        adapter = chosen_adapter(denoiser, self.given_adapter, self.FAMILY.adapters)
        return Sampler(
            model=denoiser,
            adapter=adapter or NOT_GIVEN,
            run=self.latents,
            decode=self.decoded,
            scheduler=self.pipe.scheduler,
            branches=self.known.passes_at(self.pipe, self.guidance),
            samples=self.samples,
            around=partial(guiders_announcing, self.pipe, denoiser),
            finer=self.finer_latents,
        )

    def latents(self, seed: int) -> Tensor:
        """Return what the solver ends with for `seed`: the input of the autoencoder's decoder.

        Noise that the solver adds depends on `seed` alone too, also where the pipeline leaves it to
        torch's global generators; these are afterwards as they were before.

        Args:
            seed: Seed of the run, at least 0.

        Returns:
            Float32 latents, (samples, channels, height, width), or with a frame dimension before
            height where they are of a video.

        Raises:
            PipelineError: The decoder was not given one latent for each sample.
        """
        with heard(self.pipe.vae, self.undecoded) as latents:
            called_with_seed(
                self.pipe,
                seed,
                **{condition_argument(self.pipe): self.conditions_of(seed)},
                **self.options(),
                **self.known.with_guidance(self.guidance),
                num_inference_steps=self.steps,
                output_type="pt",
            )
        return self.joined(latents).float()

    def finer_latents(self, seed: int, factor: int) -> Tensor:
        """Return what the solver ends with for `seed` where every step is divided.

        Args:
            seed: Seed of the run, at least 0.
            factor: Steps that are made of one, at least 2.

        Raises:
            PipelineError: How the steps of its scheduler can be divided is not known.
        """
        with steps_divided(self.pipe, factor):
            return self.latents(seed)

    def undecoded(self, latents: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Give black pictures in place of decoded ones.

        Every pipeline scales and unpacks its latents in a way of its own before decoding, and not
        all can leave decoding out; decoded pictures are not needed while sampling.

        Args:
            latents: What the autoencoder's `decode` is called with, as are the others.
            args: Not looked at here.
            kwargs: Not looked at here.
        """
        del args, kwargs
        return _Undecoded(latents.new_zeros((latents.shape[0], 3, *latents.shape[2:])))

    def joined(self, latents: Sequence[Tensor]) -> Tensor:
        """Return the final latents of a run from what the decoder was given, call by call.

        Args:
            latents: Of every call, (samples, ...).

        Raises:
            PipelineError: It was not called once.
        """
        if len(latents) != 1:
            raise PipelineError(
                f"{type(self.pipe).__name__} decoded {len(latents)} times in one call, expected 1"
            )
        return latents[0]

    def show_progress(self, shown: bool) -> None:
        """Show a progress bar of the steps of every run from now on, or none.

        Args:
            shown: Whether to show it.
        """
        show_steps(self.pipe, shown)

    @property
    def evaluations(self) -> int | None:
        """Evaluations of one run, where a step makes one; None where it may make more."""
        return self.steps if getattr(self.pipe.scheduler, "order", 1) == 1 else None

    @property
    def known(self) -> PipelineClass:
        """What is known about the class of the pipeline."""
        return known_class(self.pipe, self.FAMILY.classes)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that calling the pipeline takes, by name."""
        return call_arguments(self.pipe)


class _Undecoded(NamedTuple):
    """What a decoder returns, both as a value with `sample` and as a tuple."""

    sample: Tensor
