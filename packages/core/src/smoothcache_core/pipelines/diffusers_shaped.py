"""What pipelines in the manner of diffusers have in common, whatever they make.

Parts, methods and arguments are known by the names that diffusers gives them; nothing of diffusers
is imported. What is special about one class of pipelines is a value, `PipelineClass`, in a table
that a modality package has beside its adapters.
"""

import inspect
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from smoothcache_core.adapters.sites import Adapter, names_of
from smoothcache_core.pipelines.announcing import pipeline_announcing
from smoothcache_core.pipelines.finer import steps_divided
from smoothcache_core.pipelines.guiders import guiders_announcing
from smoothcache_core.pipelines.pipelines import of_frames, pipeline_sampler, the_only
from smoothcache_core.relay import Relay
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.sampling.seeding import devices_of, seeded_globally

_SOLVER_NOISE = 0x9E3779B9
# mixed into the seed, so that a solver's noise differs from that of the latents which it starts
# from; the golden ratio's 32 bits, as hash functions use them


_MOST_TURNS = 9  # denoisers that are looked for, more than any pipeline has

_BESIDE = ("controlnet",)
"""Parts that pipelines call before the denoiser, in every evaluation, for its sake."""


@dataclass(frozen=True, kw_only=True)
class PipelineClass:
    """What is known about a class of pipelines that its signature does not say.

    Attributes:
        name: Name of the class, as `type(pipe).__name__` gives it.
        passes: Names of the conditioning passes, in their order, if guidance makes one call of the
            denoiser for each and does not announce them.
        guidance_argument: Argument that sets the strength of classifier-free guidance.
        guidance_needs: Further arguments without which that has no effect.
        length_argument: Argument that sets the length of a sound in seconds; None if there is none.
        bounded: Whether a sound has at most as many latents as the denoiser's `sample_size`.
        length_first: Whether the denoiser's latent is (batch, length, channels), as opposed to its
            decoder's, (batch, channels, length).
        rate: Entry of the decoder's configuration with the audio samples per second.
        texts: Arguments beside the prompts that want one text for each sample; they get empty ones.
    """

    name: str
    passes: tuple[str, ...] = ()
    guidance_argument: str = "guidance_scale"
    guidance_needs: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    length_argument: str | None = None
    bounded: bool = False
    length_first: bool = False
    rate: str = "sampling_rate"
    texts: tuple[str, ...] = ()

    def with_guidance(self, scale: float | None) -> dict[str, Any]:
        """Return the arguments that set the strength of guidance; none where the pipeline decides.

        Args:
            scale: Strength of guidance, 1 for none; None is the pipeline's own.
        """
        if scale is None:
            return {}
        return {self.guidance_argument: scale, **self.guidance_needs}

    def passes_at(self, pipe: Any, scale: float | None) -> tuple[str, ...]:
        """Return the names of the passes that a pipeline makes and does not announce.

        Args:
            pipe: A pipeline of this class.
            scale: Strength of guidance, which is off at 1 and below; None is the pipeline's own.
        """
        if not self.passes:
            return ()
        if scale is None:
            scale = call_arguments(pipe)[self.guidance_argument].default
        return self.passes if scale is not None and scale > 1 else ()


def known_class(pipe: object, table: Iterable[PipelineClass]) -> PipelineClass:
    """Return what a table knows of a pipeline's class or of its next base class in the table."""
    by_name = {each.name: each for each in table}
    bases = [base.__name__ for base in type(pipe).__mro__]
    return next((by_name[name] for name in bases if name in by_name), PipelineClass(name=bases[0]))


def call_arguments(pipe: object) -> dict[str, inspect.Parameter]:
    """Return the arguments that calling a pipeline takes, by name."""
    return dict(inspect.signature(type(pipe).__call__).parameters)


def part_of(pipe: Any, *names: str) -> Any:
    """Return the first part that a pipeline has under one of some names; None if it has none."""
    parts = getattr(pipe, "components", {})
    return next((parts[name] for name in names if parts.get(name) is not None), None)


def denoiser_part(pipe: Any, *names: str) -> nn.Module | None:
    """Return the denoiser among the parts of a pipeline; None if it has none.

    It is a `Relay` if there is a second that it takes turns with (`transformer_2` of Wan 2.2), or
    if a ControlNet is called for its sake.

    Args:
        pipe: A pipeline in the manner of diffusers.
        names: Names that the part may have, such as `"transformer"`.
    """
    for name in names:
        numbered = [name, *(f"{name}_{number}" for number in range(2, _MOST_TURNS + 1))]
        found = [part for part in (part_of(pipe, each) for each in numbered) if part is not None]
        if found:
            nets = [net for net in (part_of(pipe, each) for each in _BESIDE) if net is not None]
            return found[0] if len(found) == 1 and not nets else Relay(*found, beside=nets)
    return None


def diffusers_sampler(
    pipe: Any,
    model: nn.Module,
    adapter: Adapter | None,
    sample: Callable[[int], object],
    *,
    known: PipelineClass,
    solver: str | None = None,
    branches: Sequence[str] = (),
    samples: int = 1,
    frames: bool = False,
) -> Sampler:
    """Return the sampler of a pipeline; see `pipeline_sampler`.

    Args:
        pipe: A pipeline in the manner of diffusers, with a `scheduler`.
        model: The denoiser among its parts.
        adapter: What is known about the denoiser's family; None if it is to be found by structure.
        sample: Calls the pipeline once, from the noise of the given seed.
        known: What is known about the pipeline's class.
        solver: Name of the solver; None if the scheduler names it.
        branches: Names of the conditioning passes, if they are not announced.
        samples: Samples of one run, at least 1.
        frames: Whether the decoder may be given the frames of videos as pictures.

    Raises:
        SamplerError: `samples` is below 1.
    """
    return pipeline_sampler(
        model,
        adapter,
        sample,
        decoder=part_of(pipe, "vae"),
        further_decoders=_further_decoders(pipe, adapter),
        latent_of=_latent_of(known, samples, frames),
        scheduler=pipe.scheduler,
        solver=solver,
        branches=tuple(branches),
        samples=samples,
        around=partial(_announcing, pipe, model),
        divided=partial(steps_divided, pipe),
    )


def _further_decoders(pipe: Any, adapter: Adapter | None) -> list[Any]:
    """Return the decoders of a denoiser's latents after the first; none if there is but one."""
    several = adapter is not None and len(names_of(adapter.latent)) > 1
    decoder = part_of(pipe, "audio_vae") if several else None
    return [] if decoder is None else [decoder]


@contextmanager
def _announcing(pipe: Any, model: nn.Module) -> Generator[None]:
    with pipeline_announcing(pipe), guiders_announcing(pipe, model):
        yield


def called_with_seed(pipe: Any, seed: int, **arguments: Any) -> Any:
    """Call a pipeline so that everything random comes from `seed`, and return what it returns.

    That is also so where it leaves noise to torch's global generators, which are afterwards as they
    were before. The strength of guidance is announced.

    Args:
        pipe: A pipeline in the manner of diffusers.
        seed: Seed of the noise.
        arguments: Everything else that the pipeline is called with.
    """
    parts = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    devices = devices_of(parts, pipe._execution_device)
    with pipeline_announcing(pipe), seeded_globally(devices, seed ^ _SOLVER_NOISE):
        return pipe(generator=torch.Generator("cpu").manual_seed(seed), **arguments)


def show_steps(pipe: Any, shown: bool) -> None:
    """Show a progress bar of the steps of every run from now on, where there is a terminal."""
    pipe.set_progress_bar_config(desc="steps", leave=False, disable=None if shown else True)


def _latent_of(
    known: PipelineClass, samples: int, frames: bool
) -> Callable[[Sequence[Tensor]], Tensor | None]:
    """Return what makes a final latent of what a decoder is given in a run."""
    if frames:
        return partial(of_frames, samples=samples)
    return _transposed if known.length_first else the_only


def _transposed(latents: Sequence[Tensor]) -> Tensor | None:
    latent = the_only(latents)
    return None if latent is None else latent.transpose(1, 2)
