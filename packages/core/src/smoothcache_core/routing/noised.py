"""Noised data in place of a model's own samples: the training of Learning-to-Cache.

arXiv 2406.01733, section 3.3: clean latents are noised to the timestep of an evaluation, the plain
model and one step of the solver make of them what the next evaluation is given, and there a teacher
and a student answer. Passes of guidance step each by itself, as data and conditions have it there.
"""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from smoothcache_core.calls.call import CallReader
from smoothcache_core.calls.clock import Tick
from smoothcache_core.errors import RouterError
from smoothcache_core.outputs.structures import Structure
from smoothcache_core.routing.sampled import Arguments, sampled
from smoothcache_core.sampling.sampler import Sampler

CleanLatents = Callable[[int, torch.Generator], Tensor]
"""Draws clean latents, (samples, ...), of what the samples of a run's seed are asked to show."""


class NoisedData:
    """Calls of a denoiser as in a run of its sampler, on noised data.

    Args:
        sampler: Whose run, of one seed, says all that the denoiser is given but its latents.
        clean: Draws the data.
        seed: The seed of that run.
        evaluations: Evaluations of a run, at least 2.

    Raises:
        RouterError: The sampler has no scheduler that noises data, makes more evaluations than
            steps or others than `evaluations`, or its latents are not those of the data.
    """

    def __init__(self, sampler: Sampler, clean: CleanLatents, seed: int, evaluations: int) -> None:
        self._sampler, self._clean, self._seed = sampler, clean, seed
        self._reader = CallReader(sampler.model, sampler.adapter)
        self._calls: list[dict[str, Arguments]] = []
        scheduler: Any = sampler.scheduler
        if not hasattr(scheduler, "add_noise") and not hasattr(scheduler, "scale_noise"):
            raise RouterError(
                f"data is noised by the scheduler of the sampler, and {type(scheduler).__name__} "
                "has neither add_noise nor scale_noise; train along samples (on='samples')"
            )
        self._scheduler = self._recorded(seed)
        steps = len(self._scheduler.timesteps)
        if not len(self._calls) == steps == evaluations:
            raise RouterError(
                f"a run makes {len(self._calls)} evaluations in {steps} steps, and routers are "
                f"trained for {evaluations}; on data the three are one number, so train along "
                "samples (on='samples')"
            )

    def _recorded(self, seed: int) -> Any:
        """Run the sampler once; return its scheduler as it was before the first step."""
        before: list[Any] = []

        def answer(tick: Tick, compute: Callable[[], Any], latent: Tensor) -> Any:
            del latent
            if not before:
                before.append(copy.deepcopy(self._sampler.scheduler))
            with torch.no_grad():
                return compute()

        def note(tick: Tick, given: Arguments) -> None:
            if tick.evaluation == len(self._calls):
                self._calls.append({})
            self._calls[tick.evaluation][tick.branch] = given

        sampled(self._sampler, seed, answer, note)
        return before[0]

    @property
    def branches(self) -> tuple[str, ...]:
        """The conditioning passes that are calls of their own, or the only one, `""`."""
        return tuple(self._calls[0])

    def noised(self, evaluation: int, branch: str, generator: torch.Generator) -> Tensor:
        """Return data as noisy as an evaluation's latents are, (rows, ...), before any scaling.

        Args:
            evaluation: Index in the run, from 0.
            branch: The conditioning pass.
            generator: Data and noise are drawn from it.

        Raises:
            RouterError: The denoiser is given latents of another shape than the data's.
        """
        given = self._latent(evaluation, branch)
        clean = self._clean(self._seed, generator)
        if given.shape[1:] != clean.shape[1:] or len(given) % len(clean):
            raise RouterError(
                f"clean latents are of shape {tuple(clean.shape)}, but the denoiser is given "
                f"{tuple(given.shape)}: as many rows once or for every pass, and nothing besides"
            )
        clean = clean.repeat(len(given) // len(clean), *[1] * (clean.dim() - 1)).to(given)
        noise = torch.randn(clean.shape, generator=generator).to(given)
        scheduler = self._at(evaluation)
        times = scheduler.timesteps[evaluation].expand(len(given))
        if hasattr(scheduler, "add_noise"):
            return scheduler.add_noise(clean, noise, times)
        return scheduler.scale_noise(clean, times, noise)

    def called(
        self, evaluation: int, branch: str, noisy: Tensor
    ) -> tuple[Callable[[], Any], Tensor]:
        """Return what calls the denoiser with a noisy latent, and the latent as it is given it.

        Args:
            evaluation: Index in the run, from 0.
            branch: The conditioning pass.
            noisy: (rows, ...), before any scaling.
        """
        scheduler, (args, kwargs) = self._at(evaluation), self._calls[evaluation][branch]
        scales = hasattr(scheduler, "scale_model_input")
        time = scheduler.timesteps[evaluation]
        latent = scheduler.scale_model_input(noisy, time) if scales else noisy
        args, named = self._reader.with_latent(args, kwargs, latent)
        return lambda: self._sampler.model(*args, **named), latent

    def stepped(
        self, evaluation: int, noisy: Tensor, output: Any, generator: torch.Generator
    ) -> Tensor:
        """Return what one step of the solver makes of a noisy latent, (rows, ...).

        Args:
            evaluation: Index in the run, from 0.
            noisy: What the denoiser was given there, before any scaling.
            output: What it answered.
            generator: For solvers that draw noise.
        """
        scheduler = self._at(evaluation)
        takes = "generator" in inspect.signature(scheduler.step).parameters
        drawn = {"generator": generator} if takes else {}
        time, signal = scheduler.timesteps[evaluation], Structure.of(output).signal(noisy)
        return scheduler.step(signal, time, noisy, return_dict=False, **drawn)[0]

    def _at(self, evaluation: int) -> Any:
        """Return a scheduler that begins at an evaluation."""
        scheduler = copy.deepcopy(self._scheduler)
        if "_step_index" in vars(scheduler):  # scaling the first latent begins to count
            scheduler._step_index = None
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(evaluation)
        return scheduler

    def _latent(self, evaluation: int, branch: str) -> Tensor:
        args, kwargs = self._calls[evaluation][branch]
        latent = self._reader.latent(args, kwargs)
        if not isinstance(latent, Tensor):
            raise RouterError(
                "data is noised to one tensor of latents, and the denoiser is given a "
                f"{type(latent).__name__}; train along samples (on='samples')"
            )
        return latent


def drawn_for(seed: int, number: int) -> torch.Generator:
    """Return the random numbers of one update, so that a training can go on from any of them.

    Args:
        seed: Seed of the training, at least 0.
        number: Which of the updates, of all processes.
    """
    return torch.Generator().manual_seed(seed * 1_000_003 + number)
