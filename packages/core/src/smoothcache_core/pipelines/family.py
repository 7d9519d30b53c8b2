"""What a package does with a diffusers pipeline, given what it knows of models and pipelines."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import nn

from smoothcache_core.adapters.patterns import PatternAdapter
from smoothcache_core.adapters.sites import Adapter
from smoothcache_core.errors import PipelineError
from smoothcache_core.pipelines.adapting import adapter_for_schedule, chosen_adapter
from smoothcache_core.pipelines.diffusers_shaped import (
    PipelineClass,
    denoiser_part,
    diffusers_sampler,
    known_class,
)
from smoothcache_core.pipelines.pipelines import cached_sampler
from smoothcache_core.runtime.store import CacheStats
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.schedule.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class PipelineFamily:
    """Diffusers' pipelines of one modality: its methods are that package's functions.

    Example:
        >>> family = PipelineFamily(adapters=(adapter,), classes=())
        >>> sampler_of = family.sampler_of

    Attributes:
        adapters: The adapters of the package.
        classes: What is known about classes of pipelines.
        frames: Whether decoders may be given the frames of videos as pictures.
    """

    adapters: tuple[PatternAdapter, ...]
    classes: tuple[PipelineClass, ...]
    frames: bool = False

    def denoiser_of(self, pipe: Any) -> nn.Module:
        """Return the denoiser of a pipeline, or a `Relay` of those that take turns in it.

        Args:
            pipe: A diffusers pipeline.

        Raises:
            PipelineError: It has none.
        """
        found = denoiser_part(pipe, "transformer", "unet")
        if found is None:
            raise PipelineError(
                f"{type(pipe).__name__} has neither a transformer nor a unet, but "
                f"{sorted(pipe.components)}"
            )
        return found

    def sampler_of(
        self,
        pipe: Any,
        sample: Callable[[int], object],
        *,
        adapter: Adapter | str | None = None,
        samples: int = 1,
        branches: Sequence[str] = (),
        solver: str | None = None,
    ) -> Sampler:
        """Return the sampler of a pipeline, for `calibrate`, `transfer`, `fit` and `evaluate`.

        The final latent is what the pipeline gives to its decoder while `sample` runs, if it
        decodes once; else what `sample` returns, if that is a tensor.

        Example:
            A pipeline of pictures, whose classes are numbers::

                def sample(seed):
                    pipe([207], generator=torch.Generator().manual_seed(seed))
                calibration = calibrate(sampler_of(pipe, sample), seeds=range(10))

        Args:
            pipe: A diffusers pipeline.
            sample: Calls the pipeline once, from the noise of the given seed.
            adapter: What is known about the denoiser: an adapter; the name of one in `ADAPTERS`;
                `"structure"`, to have its sites found by two evaluations of `sample`, when they are
                first needed; or `"whole"`, to leave it at whole evaluations. If it is not given, or
                `"auto"`: that of the class, if it is known, else by structure.
            samples: Samples in the batch of one run, at least 1.
            branches: Names of the conditioning passes, if guidance makes one call for each and the
                pipeline does not announce them.
            solver: Name of the solver, where there is no scheduler to name it.

        Raises:
            PipelineError: The pipeline has no denoiser.
            AdapterError: There is no adapter of this name, or what the denoiser's arguments mean is
                not known.
            SamplerError: `samples` is below 1.
        """
        denoiser = self.denoiser_of(pipe)
        return diffusers_sampler(
            pipe,
            denoiser,
            chosen_adapter(denoiser, adapter, self.adapters),
            sample,
            known=known_class(pipe, self.classes),
            solver=solver,
            branches=branches,
            samples=samples,
            frames=self.frames,
        )

    def cached_pipeline(
        self,
        pipe: Any,
        schedule: Schedule,
        *,
        adapter: Adapter | str | None = None,
        branches: Sequence[str] | None = None,
        solver: str | None = None,
    ) -> AbstractContextManager[CacheStats]:
        """Run a pipeline by `schedule` inside a `with` block; it is restored exactly at the end.

        Example:
            A pipeline of pictures, whose classes are numbers::

                with cached_pipeline(pipe, Schedule.load("schedule.json")) as stats:
                    image = pipe([207], num_inference_steps=50).images[0]

        Args:
            pipe: A diffusers pipeline.
            schedule: What to compute and what to reuse.
            adapter: What is known about the denoiser; see `sampler_of`. If it is not given, it is
                what the schedule records, that of the class, or that for whole evaluations.
            branches: Names of the conditioning passes, if guidance makes one call for each and the
                pipeline does not announce them; those of the calibration if not given.
            solver: Name of the solver, where there is no scheduler to name it.

        Yields:
            Statistics, updated while the pipeline runs.

        Raises:
            PipelineError: The pipeline has no denoiser.
            SmoothCacheError: See `smoothcache_core.cached`.
        """
        denoiser = self.denoiser_of(pipe)
        found = adapter_for_schedule(denoiser, adapter, self.adapters, schedule)
        known = self.sampler_of(pipe, pipe, adapter=found)
        return cached_sampler(known, schedule, branches=branches, solver=solver)
