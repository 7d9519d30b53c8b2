"""Calibrating, fitting and caching the denoiser inside a pipeline of somebody else.

What a pipeline is differs from package to package; what is done with it does not. A modality
package says how to take its pipelines apart, and gets the functions that its users call.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from smoothcache_core.adapters.sites import Adapter
from smoothcache_core.calibrating.calibrate import calibrate
from smoothcache_core.calibrating.sharded import calibrate_sharded
from smoothcache_core.calibrating.transfer import transfer
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.calls.clock import Scheduler
from smoothcache_core.errors import CalibrationError
from smoothcache_core.fitting.fit import fit
from smoothcache_core.fitting.refine import refine
from smoothcache_core.patching import replaced
from smoothcache_core.runtime.cached import cached
from smoothcache_core.runtime.store import CacheStats
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.schedule import Schedule

PLANNING_LAG = 12
"""Largest lag that is measured unless told otherwise; plans of sites skip up to half as many."""


@dataclass(frozen=True, kw_only=True)
class PipelineParts:
    """What caching needs of a pipeline.

    Attributes:
        denoiser: The module that its sampler calls.
        adapter: Where the denoiser's sites are.
        scheduler: Its scheduler, if it has one.
        decoder: What turns the final latent into a sample, by its method `decode`; if any.
        latent_of: Gives what the decoder is given the layout of the denoiser's latent, if that is
            another one.
        around: Makes what is entered around everything that is done with the pipeline.
    """

    denoiser: nn.Module
    adapter: Adapter
    scheduler: Scheduler | None = None
    decoder: object | None = None
    latent_of: Callable[[Tensor], Tensor] | None = None
    around: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True)
class PipelineCaching:
    """Calibrates, transfers, fits and caches pipelines of one kind.

    Attributes:
        parts_of: Takes a pipeline apart.
    """

    parts_of: Callable[[Any], PipelineParts]

    @contextmanager
    def cached_pipeline(
        self,
        pipe: Any,
        schedule: Schedule,
        *,
        branches: Sequence[str] | None = None,
        solver: str | None = None,
    ) -> Generator[CacheStats]:
        """Run a pipeline by `schedule` inside a `with` block; it is restored exactly at the end.

        Example:
            >>> with cached_pipeline(pipe, Schedule.load("schedule.json")) as stats:
            ...     sample = pipe(prompt, num_inference_steps=50)

        Args:
            pipe: A pipeline with a denoiser that the package has an adapter for.
            schedule: What to compute and what to reuse.
            branches: Names of the conditioning passes, if guidance makes one call for each and the
                pipeline does not announce them; those of the calibration if not given.
            solver: Name of the solver, where the pipeline has no scheduler to tell it.

        Yields:
            Statistics, updated while the pipeline runs.

        Raises:
            PipelineError: The pipeline has no denoiser.
            SmoothCacheError: See `smoothcache_core.cached`.
        """
        parts = self.parts_of(pipe)
        with (
            parts.around(),
            cached(
                parts.denoiser,
                parts.adapter,
                schedule,
                branches=_branches(schedule.fingerprint, branches),
                scheduler=parts.scheduler,
                solver=solver,
            ) as stats,
        ):
            yield stats

    def calibrate_pipeline(
        self,
        pipe: Any,
        sample: Callable[[int], object],
        *,
        seeds: Iterable[int],
        max_lag: int = PLANNING_LAG,
        samples_per_run: int = 1,
        sensitivity: int | Collection[int] = 2,
        branches: Sequence[str] = (),
        solver: str | None = None,
        references: Literal["device", "cpu"] = "device",
        checkpoint: str | Path | None = None,
        progress: bool = True,
        sharded: bool = False,
    ) -> Calibration:
        """Measure the denoiser of a pipeline; see `smoothcache_core.calibrate`.

        Example:
            >>> def sample(seed: int) -> None:
            ...     pipe(prompt, generator=torch.Generator().manual_seed(seed))
            >>> calibration = calibrate_pipeline(pipe, sample, seeds=range(10))

        Args:
            pipe: A pipeline with a denoiser that the package has an adapter for.
            sample: Calls the pipeline once, from the noise of the given seed; the final latent is
                what the pipeline gives to its decoder, or what `sample` returns.
            seeds: One run each. Keep them apart from the seeds you evaluate with.
            max_lag: Largest lag, at least 1.
            samples_per_run: Samples in the batch of one run.
            sensitivity: See `smoothcache_core.calibrate`.
            branches: See `cached_pipeline`.
            solver: See `cached_pipeline`.
            references: See `smoothcache_core.calibrate`.
            checkpoint: File that is saved after every run, and continued from if it exists.
            progress: Show a progress bar.
            sharded: Share the seeds with the other processes of `torch.distributed`, or those that
                a launcher started; see `smoothcache_core.calibrate_sharded`.

        Raises:
            PipelineError: The pipeline has no denoiser.
            SmoothCacheError: See `smoothcache_core.calibrate`.
        """
        parts = self.parts_of(pipe)
        measure = calibrate_sharded if sharded else calibrate
        with parts.around():
            return measure(
                parts.denoiser,
                parts.adapter,
                _final_latents(parts, sample),
                seeds=seeds,
                max_lag=max_lag,
                samples_per_run=samples_per_run,
                sensitivity=sensitivity,
                branches=branches,
                scheduler=parts.scheduler,
                solver=solver,
                references=references,
                checkpoint=checkpoint,
                progress=progress,
            )

    def transfer_pipeline(
        self,
        pipe: Any,
        calibration: Calibration,
        sample: Callable[[int], object],
        *,
        branches: Sequence[str] | None = None,
        solver: str | None = None,
        seed: int = 0,
    ) -> Calibration:
        """Return the calibration of a pipeline at another number of evaluations, by estimate.

        The denoiser is not evaluated; see `smoothcache_core.transfer`.

        Example:
            >>> def at_30_steps(seed: int) -> None:
            ...     generator = torch.Generator().manual_seed(seed)
            ...     pipe(prompt, generator=generator, num_inference_steps=30)
            >>> schedule = plan(transfer_pipeline(pipe, calibration, at_30_steps), speedup=2.0)

        Args:
            pipe: A pipeline with a denoiser that the package has an adapter for.
            calibration: Measured, from `calibrate_pipeline`.
            sample: See `calibrate_pipeline`, but at the new number of evaluations.
            branches: See `cached_pipeline`.
            solver: See `cached_pipeline`.
            seed: What to sample with.

        Raises:
            PipelineError: The pipeline has no denoiser.
            CalibrationError: See `smoothcache_core.transfer`.
        """
        parts = self.parts_of(pipe)
        with parts.around():
            return transfer(
                calibration,
                parts.denoiser,
                parts.adapter,
                _final_latents(parts, sample),
                scheduler=parts.scheduler,
                branches=_branches(calibration.fingerprint, branches),
                solver=solver,
                seed=seed,
            )

    def fit_pipeline(
        self,
        pipe: Any,
        sample: Callable[[int], object],
        schedule: Schedule,
        *,
        seeds: Sequence[int],
        samples_per_run: int = 1,
        terms: int | None = None,
        branches: Sequence[str] | None = None,
        trials: int = 0,
        checkpoint: str | Path | None = None,
        progress: bool = True,
    ) -> Schedule:
        """Fit a schedule to what its cached runs really do, and measure its error.

        See `smoothcache_core.fit`, and `smoothcache_core.refine` for `trials`.

        Example:
            >>> schedule = fit_pipeline(pipe, sample, plan(calibration, compute=0.35), seeds=[1, 2])

        Args:
            pipe: A pipeline with a denoiser that the package has an adapter for.
            sample: See `calibrate_pipeline`.
            schedule: What to compute and what to skip.
            seeds: One run each; those of the calibration will do.
            samples_per_run: Samples in the batch of one run.
            terms: See `smoothcache_core.fit`; not with `trials`.
            branches: See `cached_pipeline`.
            trials: Other schedules of whole evaluations to try.
            checkpoint: File that keeps what was tried, and is continued from if it exists.
            progress: Show a progress bar.

        Raises:
            PipelineError: The pipeline has no denoiser.
            CalibrationError: Both `terms` and `trials` are given.
            SmoothCacheError: See `smoothcache_core.fit`.
        """
        if trials and terms is not None:
            raise CalibrationError(
                f"refining takes 3 terms; give trials or terms={terms}, not both"
            )
        parts = self.parts_of(pipe)
        adapt = partial(
            refine if trials else fit,
            parts.denoiser,
            parts.adapter,
            _final_latents(parts, sample),
            schedule,
            seeds=seeds,
            samples_per_run=samples_per_run,
            branches=_branches(schedule.fingerprint, branches),
            scheduler=parts.scheduler,
            progress=progress,
        )
        with parts.around():
            if trials:
                return adapt(trials=trials, checkpoint=checkpoint)
            return adapt(terms=terms)


def _branches(known: Fingerprint, branches: Sequence[str] | None) -> Sequence[str]:
    return known.branches or () if branches is None else branches


def _final_latents(
    parts: PipelineParts, sample: Callable[[int], object]
) -> Callable[[int], object]:
    """Return `sample`, but giving what the pipeline decodes, if it decodes once."""
    if parts.decoder is None:
        return sample

    def listening(seed: int) -> object:
        with heard(parts.decoder) as latents:
            result = sample(seed)
        if len(latents) != 1:
            return result
        latent = latents[0] if parts.latent_of is None else parts.latent_of(latents[0])
        return latent.detach().float()

    return listening


@contextmanager
def heard(decoder: Any) -> Generator[list[Tensor]]:
    """Note the latents that a decoder is given."""
    latents: list[Tensor] = []
    decode = decoder.decode

    def noting(z: Tensor, *args: Any, **kwargs: Any) -> Any:
        latents.append(z)
        return decode(z, *args, **kwargs)

    with replaced(decoder, "decode", noting):
        yield latents
