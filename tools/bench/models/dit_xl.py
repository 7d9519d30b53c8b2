"""The model and the sampling loop of the image speed benchmark."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from smoothcache_image import DIT

from tools.bench.policies import Attached, Policy

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
        if self.is_full:
            return f"DiT-XL/2 {8 * self.sample_size}"
        width = self.num_attention_heads * self.attention_head_dim
        return f"DiT {self.num_layers} x {width}, {8 * self.sample_size} px"

    @property
    def is_full(self) -> bool:
        """Whether it is a published size: 256 or 512 pixels."""
        return self in (Size(), Size(sample_size=64))


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
        model: The denoiser; nobody else uses it.
        evaluations: Evaluations of one run.
        seed: Seed of the noise.
        images: Images of one run; each has a conditional and an unconditional row.

    Attributes:
        attached: The policy at work.
        latent: The latent now, (images, 4, H, W).
        output: The denoiser's last output.
    """

    branches: tuple[str, ...] = ()
    solver_name: str | None = None

    def __init__(self, model: Any, evaluations: int, *, seed: int, images: int = 1) -> None:
        self.model = model
        self.adapter = DIT
        self.steps = evaluations
        self.scheduler = DDIMScheduler(num_train_timesteps=1000, clip_sample=False)
        self.attached = Attached(sampler=self)
        weight = next(model.parameters())
        shape = (images, 4, model.config["sample_size"], model.config["sample_size"])
        self._noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(weight)
        labels = [CLASS_LABEL] * images + [NULL_LABEL] * images
        self._labels = torch.tensor(labels, device=weight.device)
        self.start()
        self._timesteps = self.scheduler.timesteps.to(weight.device)

    def around(self) -> AbstractContextManager[object]:
        """Return what to enter around everything that is done with the denoiser: nothing."""
        return nullcontext()

    def start(self) -> None:
        """Begin a new run from the noise."""
        self.scheduler.set_timesteps(self.steps)
        self.latent = self._noise
        self.output = self._noise

    def evaluate(self, evaluation: int) -> None:
        """Call the denoiser on both conditioning passes, (2 B, 4, H, W) to (2 B, 8, H, W)."""
        both = torch.cat([self.latent, self.latent])
        timestep = self._timesteps[evaluation].expand(len(both))
        self.output = self.model(both, timestep=timestep, class_labels=self._labels).sample

    def advance(self, evaluation: int) -> None:
        """Guide, and make the solver's step.

        Raises:
            ValueError: The denoiser's output has the wrong shape.
        """
        images, _, *size = self._noise.shape
        expected = (2 * images, 8, *size)
        if self.output.shape != expected:
            raise ValueError(f"returned {tuple(self.output.shape)} instead of {expected}")
        given, null = self.output[:, :4].chunk(2)
        noise = null + GUIDANCE * (given - null)
        timestep: Any = self.scheduler.timesteps[evaluation]
        (self.latent, *_) = self.scheduler.step(noise, timestep, self.latent, return_dict=False)


@contextmanager
def sampling(
    model: Any, policy: Policy, evaluations: int, *, seed: int, images: int = 1
) -> Generator[Sampler]:
    """Run `model`, a copy that nobody else uses, under `policy`."""
    sampler = Sampler(model, evaluations, seed=seed, images=images)
    with policy.attach(sampler) as sampler.attached:
        yield sampler
