"""Sampling an audio model from seeds, with the autoencoder's decoding kept apart.

`prompt_sampler` makes the sampler that fits a model: of stable-audio-tools, or a pipeline of
diffusers.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from smoothcache_core import Sampler
from smoothcache_core.adapters import Adapter
from smoothcache_core.errors import PipelineError
from smoothcache_core.pipelines import (
    ConditionedSampler,
    PipelineClass,
    chosen_adapter,
    devices_of,
    pipeline_announcing,
    seeded_globally,
)
from smoothcache_core.pipelines.diffusers_shaped import (
    call_arguments,
    called_with_seed,
    known_class,
    show_steps,
)
from smoothcache_core.pipelines.finer import steps_divided
from smoothcache_core.pipelines.labels import SHORT
from smoothcache_core.sampling.sampler import NOT_GIVEN
from torch import Tensor, nn
from tqdm import tqdm

from smoothcache_audio.adapters import ADAPTERS, PIPELINES
from smoothcache_audio.pipelines import denoiser_of
from smoothcache_audio.stable_audio_tools import (
    DEFAULT_SOLVERS,
    backends_kept,
    check_solver,
    divided_steps,
    evaluations_of,
    is_stable_audio_tools,
    quiet,
    require,
    rounding_ignored,
    runs_announced,
    solvers_of,
)

DEFAULT = "default"
"""The solver that a model or a pipeline has of itself."""

SIGMA_MIN, SIGMA_MAX = 0.3, 500.0
"""Noise that solvers of stable-audio-tools end and begin with: those of Stable Audio Open."""


@dataclass
class _Progress:
    shown: bool = False


@dataclass(frozen=True, kw_only=True)
class PromptSampler(ConditionedSampler):
    """Samples an audio model; `prompt_sampler` makes the one that fits.

    Attributes:
        pipe: What `load_model` returned: a model of stable-audio-tools, or a diffusers pipeline.
        seconds: Length of the samples; None is the model's own.
        sampler_type: Name of the solver in stable-audio-tools; `"default"` is replaced by that
            which suits the model's objective. A pipeline of diffusers has its own, `"default"`.
        sigma_min: Noise that the solver ends with, above 0, for stable-audio-tools.
        sigma_max: Noise that the solver begins with, above `sigma_min`, for stable-audio-tools.

    Raises:
        PipelineError: The model does not take what is asked.
        SamplerError: See `ConditionedSampler`.
    """

    pipe: Any
    seconds: float | None = None
    sampler_type: str = DEFAULT
    sigma_min: float = SIGMA_MIN
    sigma_max: float = SIGMA_MAX
    progress: _Progress = field(default_factory=_Progress, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise PipelineError(f"a sample has a positive number of seconds, not {self.seconds}")

    @abstractmethod
    def latents(self, seed: int) -> Tensor:
        """Return what the solver ends with for `seed`: the input of the autoencoder's decoder.

        Noise that the solver adds depends on `seed` alone too. Torch's global generators are
        afterwards as they were before.

        Returns:
            Float32 latents, in the layout of the denoiser's: (samples, channels, length), or
            (samples, length, channels) for ACE-Step and LongCat-AudioDiT.
        """

    @abstractmethod
    def waveforms(self, latents: Tensor) -> Tensor:
        """Decode final latents, (n, ...).

        Returns:
            Float32 waveforms, (n, channels, audio samples), values in [-1, 1].
        """

    @property
    @abstractmethod
    def sample_rate(self) -> int:
        """Audio samples per second."""

    @property
    @abstractmethod
    def evaluations(self) -> int:
        """Evaluations of one run, known before sampling."""

    def label(self, condition: Any) -> str:
        """Return the name of a condition, short enough for a caption or a file name."""
        if isinstance(condition, Mapping):
            return ", ".join(f"{name} {value}" for name, value in condition.items())[:SHORT]
        return str(condition)[:SHORT]

    def show_progress(self, shown: bool) -> None:
        """Show a progress bar of the steps of every run from now on, or none."""
        self.progress.shown = shown


def prompt_sampler(
    model: Any,
    *,
    conditions: Sequence[Any],
    steps: int,
    guidance: float | None = None,
    samples: int = 1,
    seconds: float | None = None,
    solver: str = DEFAULT,
    sigma_min: float = SIGMA_MIN,
    sigma_max: float = SIGMA_MAX,
    adapter: Adapter | str | None = None,
) -> PromptSampler:
    """Return the sampler of a model that sounds like prompts or classes.

    Example:
        >>> sampler = prompt_sampler(load_model(), conditions=range(10), steps=100, guidance=2.5)
        >>> sound = sampler.decode(sampler.final_latent(0))

    Args:
        model: What `load_model` returned.
        conditions: Class numbers, prompts, or dictionaries of what the model is conditioned on;
            sample n of all has condition n, counted round.
        steps: Steps of the solver, at least 1.
        guidance: Strength of classifier-free guidance; None is the library's own.
        samples: Samples of one run, at least 1.
        seconds: Length of the samples, above 0; None is the model's own.
        solver: For stable-audio-tools its name for the solver, such as `"dpmpp-3m-sde"`;
            `"default"` is the one that suits the model's objective. A pipeline of diffusers has its
            own.
        sigma_min: Noise that solvers of stable-audio-tools end with, above 0.
        sigma_max: Noise that solvers of stable-audio-tools begin with, above `sigma_min`.
        adapter: What is known about the denoiser; see `sampler_of`.

    Raises:
        AdapterError: See `sampler_of`.
        PipelineError: The model does not take what is asked, or its solver has no fixed number of
            evaluations.
        SamplerError: There are no conditions, or less than a step or a sample.
    """
    kind = _StableAudioTools if is_stable_audio_tools(model) else _Pipeline
    return kind(
        pipe=model,
        conditions=conditions,
        steps=steps,
        guidance=guidance,
        samples=samples,
        seconds=seconds,
        sampler_type=solver,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        given_adapter=adapter,
    )


# ---------------------------------------------------------------------------- stable-audio-tools


@dataclass(frozen=True, kw_only=True)
class _StableAudioTools(PromptSampler):
    """Samples a model of stable-audio-tools by `generate_diffusion_cond`."""

    def __post_init__(self) -> None:
        objective = self.pipe.diffusion_objective
        if self.sampler_type == DEFAULT:
            object.__setattr__(self, "sampler_type", DEFAULT_SOLVERS[objective])
        super().__post_init__()
        check_solver(self.sampler_type, objective, self.steps)
        if not 0 < self.sigma_min < self.sigma_max:
            raise PipelineError(
                "the noise must go from sigma_max down to sigma_min above 0, got "
                f"{self.sigma_max} and {self.sigma_min}"
            )
        for condition in self.conditions:
            self._condition(condition)

    def plain_sampler(self) -> Sampler:
        denoiser = denoiser_of(self.pipe)
        return Sampler(
            model=denoiser,
            adapter=chosen_adapter(denoiser, self.given_adapter, ADAPTERS) or NOT_GIVEN,
            run=self.latents,
            decode=self.waveforms,
            solver=self._solver_name,
            samples=self.samples,
            around=partial(runs_announced, self.pipe),
            finer=self.finer_latents,
        )

    def latents(self, seed: int) -> Tensor:
        return self._sampled(seed, self.steps)

    def finer_latents(self, seed: int, factor: int) -> Tensor:
        """Return what the solver ends with for `seed` where every step is divided.

        Args:
            seed: Seed of the run, at least 0.
            factor: Steps that are made of one, at least 2.
        """
        return self._sampled(seed, divided_steps(self.sampler_type, self.steps, factor))

    def _sampled(self, seed: int, steps: int) -> Tensor:
        if seed < 0:
            raise PipelineError(f"seeds begin at 0, got {seed}")
        require()
        device = next(self.pipe.model.parameters()).device
        conditioning = [self._condition(condition) for condition in self.conditions_of(seed)]
        options: dict[str, Any] = {} if self.guidance is None else {"cfg_scale": self.guidance}
        with (
            self._steps_shown(steps) as step,
            quiet(),
            backends_kept(),
            seeded_globally(devices_of([self.pipe]), seed),
            torch.no_grad(),
        ):
            from stable_audio_tools.inference.generation import generate_diffusion_cond

            latents = generate_diffusion_cond(
                self.pipe,
                steps=steps,
                conditioning=conditioning,  # pyright: ignore[reportArgumentType] annotated as a dictionary
                batch_size=self.samples,
                sample_size=self.audio_samples,
                seed=seed,
                device=str(device),
                return_latents=True,
                sampler_type=self.sampler_type,
                sigma_min=self.sigma_min,
                sigma_max=self.sigma_max,
                callback=step,
                **options,
            )
        return latents.float()

    @contextmanager
    def _steps_shown(self, steps: int) -> Generator[Any]:
        shown = None if self.progress.shown else True
        with tqdm(total=steps, desc="steps", leave=False, disable=shown) as bar:
            yield lambda _: bar.update()

    @torch.no_grad()
    def waveforms(self, latents: Tensor) -> Tensor:
        decoder = self.pipe.pretransform
        if decoder is None:
            return latents.float().clamp(-1, 1)
        weight = next(decoder.parameters(), next(self.pipe.parameters()))
        return decoder.decode(latents.to(weight)).float().clamp(-1, 1)

    @property
    def audio_samples(self) -> int:
        """Audio samples of one sample, a whole number of latents."""
        wanted = getattr(self.pipe, "sample_size", None)
        if self.seconds is not None:
            wanted = round(self.seconds * self.sample_rate)
        if wanted is None:
            raise PipelineError("this model has no default length; give the seconds")
        unit = self.pipe.min_input_length
        return max(-(-wanted // unit), 1) * unit

    @property
    def sample_rate(self) -> int:
        return self.pipe.sample_rate

    @property
    def evaluations(self) -> int:
        return evaluations_of(self.sampler_type, self.pipe.diffusion_objective, self.steps)

    @property
    def _solver_name(self) -> str:
        """Name of the solver and of what changes its evaluations."""
        if self.sampler_type not in solvers_of("v"):
            return self.sampler_type
        return f"{self.sampler_type}(sigma_min={self.sigma_min:g}, sigma_max={self.sigma_max:g})"

    def _condition(self, condition: Any) -> dict[str, Any]:
        """Return everything that one sample is conditioned on.

        Raises:
            PipelineError: The condition is none of this model's.
        """
        conditioners: Mapping[str, nn.Module] = dict(self.pipe.conditioner.conditioners)
        given = dict(condition) if isinstance(condition, Mapping) else {}
        seconds = self.audio_samples / self.sample_rate
        given = {"seconds_start": 0.0, "seconds_total": seconds, **given}
        if not isinstance(condition, Mapping):
            kind = "IntConditioner" if isinstance(condition, int) else "T5Conditioner"
            names = [n for n, found in conditioners.items() if type(found).__name__ == kind]
            if len(names) != 1 or not isinstance(condition, int | str):
                raise PipelineError(
                    f"{condition!r} is no condition of this model, which is conditioned on "
                    f"{_described(conditioners)}; give a dictionary of them"
                )
            given[names[0]] = condition
        lacking = [name for name in conditioners if name not in given]
        if lacking:
            raise PipelineError(
                f"{lacking} is missing in the condition {condition!r}; this model is conditioned "
                f"on {_described(conditioners)}"
            )
        for name, conditioner in conditioners.items():
            _check_class(name, conditioner, given[name])
        return {name: given[name] for name in conditioners}


def _described(conditioners: Mapping[str, nn.Module]) -> str:
    return ", ".join(
        f"{name!r} ({type(conditioner).__name__.removesuffix('Conditioner')})"
        for name, conditioner in conditioners.items()
    )


def _check_class(name: str, conditioner: Any, value: Any) -> None:
    """Refuse a class that the model does not have, which it would take for its nearest."""
    if type(conditioner).__name__ != "IntConditioner":
        return
    least, most = conditioner.min_val, conditioner.max_val
    if not isinstance(value, int) or not least <= value <= most:
        raise PipelineError(f"{name!r} is a number from {least} to {most}, not {value!r}")


# ---------------------------------------------------------------------------- diffusers


@dataclass(frozen=True, kw_only=True)
class _Pipeline(PromptSampler):
    """Samples a pipeline of diffusers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        name, arguments = type(self.pipe).__name__, self._arguments
        if self.sampler_type != DEFAULT:
            raise PipelineError(
                f"{name} is sampled by the scheduler that it has, "
                f"{type(self.pipe.scheduler).__name__}; solver must be {DEFAULT!r}, not "
                f"{self.sampler_type!r}"
            )
        if "prompt" not in arguments:
            raise PipelineError(f"{name} takes no prompts, but {sorted(arguments)}")
        wrong = [c for c in self.conditions if not isinstance(c, str)]
        if wrong:
            raise PipelineError(f"{name} takes prompts, not {wrong[0]!r}")
        if self.guidance is not None and self._known.guidance_argument not in arguments:
            raise PipelineError(f"{name} takes no guidance")
        if self.seconds is not None and self._known.length_argument is None:
            raise PipelineError(f"{name} has one length of its own; omit the seconds")
        if self.seconds is not None and self.seconds > self._longest:
            raise PipelineError(
                f"{name} makes sounds of up to {self._longest:g} seconds, not of {self.seconds:g}"
            )

    def plain_sampler(self) -> Sampler:
        denoiser = denoiser_of(self.pipe)
        return Sampler(
            model=denoiser,
            adapter=chosen_adapter(denoiser, self.given_adapter, ADAPTERS) or NOT_GIVEN,
            run=self.latents,
            decode=self.waveforms,
            scheduler=self.pipe.scheduler,
            branches=self._known.passes_at(self.pipe, self.guidance),
            samples=self.samples,
            around=partial(pipeline_announcing, self.pipe),
            finer=self.finer_latents,
        )

    def finer_latents(self, seed: int, factor: int) -> Tensor:
        """Return what the solver ends with for `seed` where every step is divided.

        Args:
            seed: Seed of the run, at least 0.
            factor: Steps that are made of one, at least 2.
        """
        with steps_divided(self.pipe, factor):
            return self.latents(seed)

    def latents(self, seed: int) -> Tensor:
        with rounding_ignored():
            result = called_with_seed(
                self.pipe,
                seed,
                prompt=self.conditions_of(seed),
                num_inference_steps=self.steps,
                output_type="latent",
                **self._options,
            )
        return result.audios.float()

    @torch.no_grad()
    def waveforms(self, latents: Tensor) -> Tensor:
        vae = self.pipe.vae
        weight = next(vae.parameters())
        turned = latents.transpose(1, 2) if self._known.length_first else latents
        decoded = vae.decode(turned.to(weight)).sample.float().clamp(-1, 1)
        if self.seconds is None:
            return decoded
        return decoded[..., : round(self.seconds * self.sample_rate)]

    def show_progress(self, shown: bool) -> None:
        show_steps(self.pipe, shown)

    @property
    def sample_rate(self) -> int:
        config = self.pipe.vae.config
        if self._known.rate not in config:
            raise PipelineError(
                f"{type(self.pipe.vae).__name__} has no sample rate in its configuration"
            )
        return int(config[self._known.rate])

    @property
    def evaluations(self) -> int:
        scheduler = self.pipe.scheduler
        if getattr(scheduler, "order", 1) == 1:
            return self.steps
        tried = copy.deepcopy(scheduler)
        tried.set_timesteps(self.steps)
        return len(tried.timesteps)

    @property
    def _known(self) -> PipelineClass:
        """What is known about the class of the pipeline."""
        return known_class(self.pipe, PIPELINES)

    @property
    def _arguments(self) -> Mapping[str, object]:
        return call_arguments(self.pipe)

    @property
    def _options(self) -> dict[str, Any]:
        """Arguments of a call that are there only if they are asked for, or wanted."""
        known = self._known
        options: dict[str, Any] = {name: [""] * self.samples for name in known.texts}
        if self.seconds is not None and known.length_argument is not None:
            options[known.length_argument] = self.seconds
        return {**options, **known.with_guidance(self.guidance)}

    @property
    def _longest(self) -> float:
        """Seconds of the longest sound, infinite where the pipeline does not limit it."""
        latents = getattr(self.pipe.transformer.config, "sample_size", None)
        if not self._known.bounded or latents is None:
            return math.inf
        return latents * self.pipe.vae.hop_length / self.sample_rate
