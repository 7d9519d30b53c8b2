"""The model and the sampling loop of the video speed benchmark."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from smoothcache_video import OPEN_SORA
from smoothcache_video.open_sora import RectifiedFlowScheduler, STDiT3
from torch import nn

from tools.bench.policies import Attached, Policy

GUIDANCE = 7.0
WORDS = 300
"""Tokens of the text; Open-Sora pads to so many."""
FPS = 24.0
SPREAD = 0.02
"""Standard deviation of the weights that begin at zero."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of the model and of a clip; the model's defaults are those of STDiT3-XL/2.

    Attributes:
        depth: Pairs of a spatial and a temporal block.
        heads: Heads of 72 channels.
        frames: Frames of the clip, of which the autoencoder makes 5 for every 17.
        height: Height in pixels, a multiple of 16.
        width: Width in pixels, a multiple of 16.

    Raises:
        ValueError: A side is none.
    """

    depth: int = 28
    heads: int = 16
    frames: int = 51
    height: int = 144
    width: int = 256

    def __post_init__(self) -> None:
        if self.height % 16 or self.width % 16 or min(self.height, self.width, self.frames) < 1:
            raise ValueError(
                f"height and width are multiples of 16, got {self.height} x {self.width}"
            )

    @property
    def name(self) -> str:
        """Name of the model in records."""
        model = "STDiT3-XL/2" if self.is_full else f"STDiT3 {self.depth} x {72 * self.heads}"
        return f"{model}, {self.frames} frames of {self.height} x {self.width}"

    @property
    def is_full(self) -> bool:
        """Whether the model is of the published size."""
        return (self.depth, self.heads) == (28, 16)

    @property
    def latent(self) -> tuple[int, int, int, int]:
        """Channels, frames, height and width of the latent."""
        groups, rest = divmod(self.frames, 17)
        return 4, 5 * groups + -(-rest // 4), self.height // 8, self.width // 8


def stdit3(size: Size, *, device: torch.device, dtype: torch.dtype, seed: int) -> STDiT3:
    """Return an STDiT3 with random weights; its speed does not depend on them."""
    torch.manual_seed(seed)
    model: Any = STDiT3(hidden_size=72 * size.heads, depth=size.depth, num_heads=size.heads)
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=SPREAD)
    return model.to(device=device, dtype=dtype).eval().requires_grad_(False)


class Sampler:
    """Rectified flow with guidance in one batch as in Open-Sora, stopped between evaluations.

    Args:
        model: The denoiser; nobody else uses it.
        size: Size of a clip.
        evaluations: Evaluations of one run.
        seed: Seed of the noise and of the text.

    Attributes:
        attached: The policy at work.
        noise: What every run begins with, (1, 4, frames, H, W).
        text: Outputs of a text encoder, of the prompt and of none, (2, 1, words, channels).
        latent: The latent now, (1, 4, frames, H, W).
        output: The denoiser's last output.
    """

    branches: tuple[str, ...] = ()
    solver_name: str | None = None

    def __init__(self, model: Any, size: Size, evaluations: int, *, seed: int) -> None:
        self.model = model
        self.adapter = OPEN_SORA
        self.steps = evaluations
        self.scheduler = RectifiedFlowScheduler()
        self.attached = Attached(sampler=self)
        self._size = size
        weight = next(model.parameters())
        generator = torch.Generator().manual_seed(seed)
        channels = model.config["caption_channels"]
        self.noise = torch.randn((1, *size.latent), generator=generator).to(weight)
        self.text = torch.randn((2, 1, WORDS, channels), generator=generator).to(weight)
        self._about = {"fps": FPS, "height": float(size.height), "width": float(size.width)}
        self.start()
        self._timesteps = self.scheduler.timesteps.to(weight.device)

    def around(self) -> AbstractContextManager[object]:
        """Return what to enter around everything that is done with the denoiser: nothing."""
        return nullcontext()

    def start(self) -> None:
        """Begin a new run from the noise."""
        size = self._size
        self.scheduler.set_timesteps(
            self.steps, height=size.height, width=size.width, num_frames=size.frames
        )
        self.latent = self.noise
        self.output = self.noise

    def evaluate(self, evaluation: int) -> None:
        """Call the denoiser on both conditioning passes, (2, 4, ...) to (2, 8, ...)."""
        both = torch.cat([self.latent, self.latent])
        timestep = self._timesteps[evaluation].expand(len(both))
        self.output = self.model(both, timestep, self.text, **self._about)

    def advance(self, evaluation: int) -> None:
        """Guide, and make the solver's step.

        Raises:
            ValueError: The denoiser's output has the wrong shape.
        """
        expected = (2, 8, *self.noise.shape[2:])
        if self.output.shape != expected:
            raise ValueError(f"returned {tuple(self.output.shape)} instead of {expected}")
        given, null = self.output[:, :4].chunk(2)
        velocity = null + GUIDANCE * (given - null)
        timestep = self.scheduler.timesteps[evaluation]
        stepped = self.scheduler.step(velocity, timestep, self.latent).prev_sample
        self.latent = stepped.to(self.noise.dtype)


@contextmanager
def sampling(
    model: Any, policy: Policy, evaluations: int, *, size: Size, seed: int
) -> Generator[Sampler]:
    """Run `model`, a copy that nobody else uses, under `policy`."""
    sampler = Sampler(model, size, evaluations, seed=seed)
    with policy.attach(sampler) as sampler.attached:
        yield sampler
