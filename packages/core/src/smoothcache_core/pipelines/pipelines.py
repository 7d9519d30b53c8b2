"""Caching the denoiser inside a pipeline of somebody else.

What a pipeline is differs from package to package; what is done with it does not. A modality
package says which of its parts is what, and gets its sampler.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from smoothcache_core.adapters.sites import Adapter
from smoothcache_core.calls.clock import Scheduler
from smoothcache_core.outputs.latents import joined
from smoothcache_core.patching import replaced
from smoothcache_core.runtime.cached import cached
from smoothcache_core.runtime.store import CacheStats
from smoothcache_core.sampling.sampler import NOT_GIVEN, Sampler
from smoothcache_core.schedule.schedule import Schedule


def pipeline_sampler(
    model: nn.Module,
    adapter: Adapter | None,
    sample: Callable[[int], object],
    *,
    decoder: object | None,
    further_decoders: Sequence[object] = (),
    latent_of: Callable[[Sequence[Tensor]], Tensor | None] | None = None,
    scheduler: Scheduler | None = None,
    solver: str | None = None,
    branches: tuple[str, ...] = (),
    samples: int = 1,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
    divided: Callable[[int], AbstractContextManager[object]] | None = None,
) -> Sampler:
    """Return the sampler of a pipeline that was taken apart.

    The final latent is what the decoder is given while `sample` runs. If that is not one latent, it
    is what `sample` returns, if that is a tensor. Of a denoiser of several latents, as of a video
    and its sound, what their decoders are given is joined, (samples, n).

    Args:
        model: The denoiser; see `Sampler`, as for what is not explained here.
        adapter: What is known about its family; None if it is to be found by structure.
        sample: Calls the pipeline once, from the noise of the given seed.
        decoder: What turns the final latent into a sample, by its method `decode`; if any.
        further_decoders: Those of further latents of the same denoiser, in their order.
        latent_of: Makes the final latent, (samples, ...), of what the decoder is given in every
            call of a run; None where it cannot. By default it is that of the only call.
        scheduler: The pipeline's scheduler, if it has one.
        solver: Name of the solver, where there is no scheduler to name it.
        branches: Names of the conditioning passes, if they are not announced.
        samples: Samples of one run.
        around: Makes what is entered around everything that is done with the pipeline.
        divided: Makes what is entered around a run whose every step is to be divided into so many;
            None if that cannot be had.
    """

    def run(seed: int) -> Tensor | None:
        with heard(decoder) as latents, ExitStack() as stack:
            further = [stack.enter_context(heard(each)) for each in further_decoders]
            result = sample(seed)
        given = [(latent_of or the_only)(latents), *map(the_only, further)]
        known = [each for each in given if each is not None]
        if len(known) < len(given):
            return result if isinstance(result, Tensor) else None
        return (joined(known) if further else known[0]).detach().float()

    def finer(seed: int, factor: int) -> Tensor | None:
        assert divided is not None
        with divided(factor):
            return run(seed)

    return Sampler(
        model=model,
        adapter=NOT_GIVEN if adapter is None else adapter,
        run=run,
        scheduler=scheduler,
        solver=solver,
        branches=branches,
        samples=samples,
        around=around,
        finer=None if divided is None else finer,
    )


def the_only(latents: Sequence[Tensor]) -> Tensor | None:
    """Return the latent that a decoder was given, if it was called once."""
    return latents[0] if len(latents) == 1 else None


def of_frames(latents: Sequence[Tensor], samples: int) -> Tensor | None:
    """Return the latents of videos that a decoder was given at once, or as pictures of frames.

    Args:
        latents: What it was given in every call of a run: once (samples, ...), or in any number of
            calls all frames of all samples, (frames, channels, height, width).
        samples: Samples of the run.

    Returns:
        What it was given at once; or (samples, channels, frames, height, width); None if it was
        neither.
    """
    rows = sum(map(len, latents))
    if not latents or any(each.ndim != 4 for each in latents):
        return latents[0] if len(latents) == 1 and rows == samples else None
    if rows % samples:
        return None
    return torch.cat(list(latents)).unflatten(0, (samples, -1)).transpose(1, 2)


@contextmanager
def cached_sampler(
    sampler: Sampler,
    schedule: Schedule,
    *,
    branches: Sequence[str] | None = None,
    solver: str | None = None,
) -> Generator[CacheStats]:
    """Run what a sampler calls by `schedule` inside a `with` block; see `smoothcache_core.cached`.

    Args:
        sampler: What is cached: its model, with what is entered around it.
        schedule: What to compute and what to reuse.
        branches: Names of the conditioning passes; if not given the sampler's, or else those that
            the schedule was calibrated with.
        solver: Name of the solver; the sampler's if not given.

    Yields:
        Statistics, updated while the sampler runs.

    Raises:
        SmoothCacheError: See `smoothcache_core.cached`.
    """
    known = sampler.branches or schedule.fingerprint.branches or ()
    with (
        sampler.around(),
        cached(
            sampler.model,
            sampler.adapter,
            schedule,
            branches=known if branches is None else branches,
            scheduler=sampler.scheduler,
            solver=solver or sampler.solver,
        ) as stats,
    ):
        yield stats


@contextmanager
def heard(decoder: Any, answer: Callable[..., object] | None = None) -> Generator[list[Tensor]]:
    """Note the latents that a decoder is given; none if there is no decoder.

    Args:
        decoder: Object with a method `decode(latents, ...)`; None if there is none.
        answer: Called in place of that method; None lets it decode.
    """
    latents: list[Tensor] = []
    if decoder is None:
        yield latents
        return
    decode = decoder.decode if answer is None else answer

    def noting(z: Tensor, *args: Any, **kwargs: Any) -> Any:
        latents.append(z)
        return decode(z, *args, **kwargs)

    with replaced(decoder, "decode", noting):
        yield latents
