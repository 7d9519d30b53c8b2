"""The model and the sampling loop of the image speed benchmark."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass

import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from smoothcache_image import DIT

from tools.bench.baselines.ours import Attached, Policy, Setup
from tools.bench.models.image_policies import falling_lags

CLASS_LABEL, NULL_LABEL = 207, 1000
GUIDANCE = 4.0


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of the DiT; the defaults are those of facebook/DiT-XL-2-256."""

    num_layers: int = 28
    num_attention_heads: int = 16
    attention_head_dim: int = 72
    sample_size: int = 32

    @property
    def name(self) -> str:
        """Name of the model in records."""
        if self == Size():
            return "DiT-XL/2 256"
        width = self.num_attention_heads * self.attention_head_dim
        return f"DiT {self.num_layers} x {width}, {8 * self.sample_size} px"


def dit(
    size: Size, *, device: torch.device, dtype: torch.dtype, seed: int
) -> DiTTransformer2DModel:
    """Return a DiT with random weights; its speed does not depend on them."""
    torch.manual_seed(seed)
    model = DiTTransformer2DModel(
        in_channels=4,
        out_channels=8,
        patch_size=2,
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero",
        **asdict(size),
    )
    return model.to(device=device, dtype=dtype).eval().requires_grad_(False)  # pyright: ignore[reportCallIssue]


class Sampler:
    """DDIM with classifier-free guidance as in `DiTPipeline`, stopped between evaluations.

    Args:
        model: The denoiser, with or without a cache.
        setup: The scheduler.
        attached: The policy at work on it.
        seed: Seed of the noise.

    Attributes:
        attached: The policy at work.
        latent: The latent now, (1, 4, H, W).
        output: The denoiser's last output.
    """

    def __init__(
        self, model: DiTTransformer2DModel, setup: Setup, attached: Attached, *, seed: int
    ) -> None:
        self.attached = attached
        self._model = model
        self._setup = setup
        shape = (1, 4, model.config["sample_size"], model.config["sample_size"])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        self._noise = noise.to(device=model.device, dtype=setup.dtype)
        self._labels = torch.tensor([CLASS_LABEL, NULL_LABEL], device=model.device)
        self._timesteps = setup.scheduler.timesteps.to(model.device)
        self.start()

    def start(self) -> None:
        """Begin a new run from the noise."""
        self._setup.scheduler.set_timesteps(self._setup.evaluations)
        self.latent = self._noise
        self.output = self._noise

    def around(self, evaluation: int) -> AbstractContextManager[object]:
        """Return what the cache needs during an evaluation."""
        return self.attached.around(evaluation)

    def evaluate(self, evaluation: int) -> None:
        """Call the denoiser on both conditioning passes, (2, 4, H, W) to (2, 8, H, W)."""
        both = torch.cat([self.latent, self.latent])
        timestep = self._timesteps[evaluation].expand(2)
        self.output = self._model(both, timestep=timestep, class_labels=self._labels).sample

    def advance(self, evaluation: int) -> None:
        """Guide, and make the solver's step.

        Raises:
            ValueError: The denoiser's output has the wrong shape.
        """
        expected = (2, 8, *self._noise.shape[2:])
        if self.output.shape != expected:
            raise ValueError(f"returned {tuple(self.output.shape)} instead of {expected}")
        given, null = self.output[:, :4].chunk(2)
        noise = null + GUIDANCE * (given - null)
        scheduler = self._setup.scheduler
        timestep = scheduler.timesteps[evaluation]
        (self.latent, *_) = scheduler.step(noise, timestep, self.latent, return_dict=False)


def setup_for(evaluations: int, dtype: torch.dtype) -> Setup:
    """Return a setup with a DDIM scheduler of its own."""
    scheduler = DDIMScheduler(num_train_timesteps=1000, clip_sample=False)
    scheduler.set_timesteps(evaluations)
    return Setup(
        row=falling_lags(evaluations),
        sigmas=[int(timestep) / 1000 for timestep in scheduler.timesteps],
        adapter=DIT,
        scheduler=scheduler,
        dtype=dtype,
    )


@contextmanager
def sampling(
    model: DiTTransformer2DModel, policy: Policy, evaluations: int, *, seed: int
) -> Generator[Sampler]:
    """Run `model`, a copy that nobody else uses, under `policy`."""
    setup = setup_for(evaluations, model.dtype)
    with policy.attach(model, setup) as attached:
        yield Sampler(model, setup, attached, seed=seed)
