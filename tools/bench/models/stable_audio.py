"""The model and the sampling loop of the audio speed benchmark."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from smoothcache_audio import STABLE_AUDIO_TOOLS
from smoothcache_audio.stable_audio_tools import quiet_loading
from torch import Tensor, nn

from tools.bench.policies import Attached, Policy
from tools.bench.stepping import Denoise, Halted

SOLVER = "dpmpp-3m-sde"
SIGMA_MIN, SIGMA_MAX = 0.3, 500.0
GUIDANCE = 7.0
LATENTS_PER_SECOND = 44100 / 2048
TEXT_TOKENS = 130
"""128 of the prompt, one each for the start and the length."""
SPREAD = 0.02
"""Standard deviation of the weights that the factory sets to zero."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of the transformer and of a sample; the defaults are those of Stable Audio Open 1.0."""

    layers: int = 24
    heads: int = 24
    seconds: float = 10.0

    @property
    def name(self) -> str:
        """Name of the model in records."""
        if (self.layers, self.heads) == (24, 24):
            return f"Stable Audio Open 1.0, {self.seconds:g} s"
        return f"Stable Audio {self.layers} x {64 * self.heads}, {self.seconds:g} s"

    @property
    def is_full(self) -> bool:
        """Whether the transformer is of the published size."""
        return (self.layers, self.heads) == (24, 24)

    @property
    def latents(self) -> int:
        """Length of the latent."""
        return round(self.seconds * LATENTS_PER_SECOND)

    @property
    def text_channels(self) -> int:
        """Channels of a text token: half the width, 768 as published."""
        return 32 * self.heads

    def config(self) -> dict[str, Any]:
        """Return the configuration of the transformer, as published but for the size."""
        return {
            "io_channels": 64,
            "embed_dim": 64 * self.heads,
            "depth": self.layers,
            "num_heads": self.heads,
            "cond_token_dim": self.text_channels,
            "global_cond_dim": 1536,
            "project_cond_tokens": False,
            "transformer_type": "continuous_transformer",
        }


def transformer(size: Size, *, device: torch.device, dtype: torch.dtype, seed: int) -> nn.Module:
    """Return stable-audio-tools' `DiffusionTransformer` with random weights.

    The projections that it sets to zero are drawn at random: else every component gives zero.
    """
    with quiet_loading():
        from stable_audio_tools.models.dit import DiffusionTransformer

    torch.manual_seed(seed)
    model = DiffusionTransformer(diffusion_objective="v", **size.config())
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=SPREAD)
    return model.to(device=device, dtype=dtype).eval().requires_grad_(False)


class Sampler:
    """DPM-Solver++(3M) SDE with guidance as in `generate_diffusion_cond`, stopped at evaluations.

    On shapes alone, that is on the meta device, the solver does not run.

    Args:
        model: The denoiser; nobody else uses it.
        size: Size of a sample.
        evaluations: Evaluations of one run.
        seed: Seed of all noise.
        sounds: Sounds of one run; each is guided in one batch of two.

    Attributes:
        attached: The policy at work.
        noise: What every run begins with, of standard deviation 1, (sounds, 64, T).
        options: What the denoiser is given besides the latent and the timestep.
        output: The denoiser's last output, guided.
    """

    branches: tuple[str, ...] = ()
    solver_name: str | None = None
    scheduler: None = None

    def __init__(
        self, model: nn.Module, size: Size, evaluations: int, *, seed: int, sounds: int = 1
    ) -> None:
        self.model = model
        self.adapter = STABLE_AUDIO_TOOLS
        self.steps = evaluations
        self.attached = Attached(sampler=self)
        self._seed = seed
        weight = next(model.parameters())
        generator = torch.Generator().manual_seed(seed)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(weight)

        self.noise = drawn(sounds, 64, size.latents)
        self.options: dict[str, Any] = {
            "cross_attn_cond": drawn(sounds, TEXT_TOKENS, size.text_channels),
            "global_embed": drawn(sounds, 1536),
            "cfg_scale": GUIDANCE,
        }
        self._halted: Halted | None = None
        self.output = self.noise
        if weight.is_meta:
            self.options["cfg_interval"] = (_Anything(), _Anything())

    @property
    def latent(self) -> Tensor:
        """The final latent, (sounds, 64, T).

        Raises:
            ValueError: The run has not ended.
        """
        if self._halted is None or self._halted.result is None:
            raise ValueError("the run has not ended")
        return self._halted.result

    def start(self) -> None:
        """Begin a new run from the noise."""
        self.close()
        if not self.noise.is_meta:
            self._halted = Halted(self._sample)

    def close(self) -> None:
        """End the run where it is."""
        if self._halted is not None:
            self._halted.close()

    def around(self) -> AbstractContextManager[object]:
        """Return what to enter around everything that is done with the denoiser: nothing."""
        return nullcontext()

    def evaluate(self, evaluation: int) -> None:
        """Call the denoiser, (B, 64, T) to (B, 64, T); it guides in one batch of twice as many."""
        del evaluation
        if self._halted is None:
            latent, timestep = self.noise, self.noise.new_full((len(self.noise),), 0.5)
        else:
            question = self._halted.question
            if question is None:
                raise ValueError("the run has ended")
            latent, timestep = question.args
        self.output = self.model(latent, timestep, **self.options)

    def advance(self, evaluation: int) -> None:
        """Make the solver's step.

        Raises:
            ValueError: The denoiser's output has the wrong shape.
        """
        del evaluation
        if self.output.shape != self.noise.shape:
            raise ValueError(
                f"returned {tuple(self.output.shape)} instead of {tuple(self.noise.shape)}"
            )
        if self._halted is not None:
            self._halted.answer(self.output)

    @torch.no_grad()
    def _sample(self, denoise: Denoise) -> Tensor:
        """Run the solver as `sample_k` does, but without its progress bar."""
        library = _k_diffusion()
        sigmas = sigmas_of(self.steps).to(self.noise.device)
        torch.manual_seed(self._seed)  # the seed of the Brownian noise is drawn
        return library.sampling.sample_dpmpp_3m_sde(
            library.external.VDenoiser(denoise), self.noise * sigmas[0], sigmas, disable=True
        )


class _Anything:
    """Compares as if it were on the right side: on shapes alone there is no noise level."""

    def __le__(self, other: object) -> bool:
        return True

    def __ge__(self, other: object) -> bool:
        return True


def sigmas_of(evaluations: int) -> Tensor:
    """Return the noise levels of a run in the solver's terms, falling to 0, (evaluations + 1,)."""
    return _k_diffusion().sampling.get_sigmas_polyexponential(evaluations, SIGMA_MIN, SIGMA_MAX)


def _k_diffusion() -> Any:
    with quiet_loading():
        import k_diffusion
    return k_diffusion


@contextmanager
def sampling(
    model: nn.Module, policy: Policy, evaluations: int, *, size: Size, seed: int, sounds: int = 1
) -> Generator[Sampler]:
    """Run `model`, a copy that nobody else uses, under `policy`."""
    sampler = Sampler(model, size, evaluations, seed=seed, sounds=sounds)
    try:
        with policy.attach(sampler) as sampler.attached:
            yield sampler
    finally:
        sampler.close()
