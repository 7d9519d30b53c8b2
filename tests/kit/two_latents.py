"""A small denoiser that is given a video and its sound, and a run that steps through both."""

from dataclasses import dataclass, field
from typing import Any

import torch
from smoothcache_core import PatternAdapter, Sampler, SitePattern
from smoothcache_core.adapters import Adapter
from smoothcache_core.outputs.latents import joined
from torch import Tensor, nn

TWO = PatternAdapter(
    name="two",
    patterns=(SitePattern("blocks.*.own", "own"), SitePattern("blocks.*.other", "other")),
    latent=("hidden_states", "audio_hidden_states"),
    guidance="uncond-first",
)
SAMPLES, EVALUATIONS = 2, 10
FRAMES, TONES, CHANNELS = 3, 4, 6


class Block(nn.Module):
    """Looks at its own latent, and unless they are isolated at the other one."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.other = (
            nn.Sequential(nn.Linear(CHANNELS, CHANNELS), nn.Tanh()) for _ in range(2)
        )

    def forward(self, video: Tensor, sound: Tensor, isolated: bool) -> Tensor:
        video = video + 0.2 * self.own(video)
        if isolated:
            return video
        return video + 0.2 * self.other(sound).mean(dim=1, keepdim=True)


class TwoLatents(nn.Module):
    """Denoises video (rows, frames, channels) and sound (rows, tones, channels) at once."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.calls = 0

    def forward(
        self,
        hidden_states: Tensor,
        audio_hidden_states: Tensor,
        timestep: Tensor,
        condition: Tensor,
        isolated: bool = False,
    ) -> tuple[Tensor, Tensor]:
        self.calls += 1
        video, sound = hidden_states, audio_hidden_states
        for block in self.blocks:
            video = block(video, sound, isolated)
        share = 1 + 0.2 * timestep.reshape(-1, 1, 1)
        return share * (video + condition[:, None]), share * (sound + 0.1 * video.sum(1)[:, None])


@dataclass
class TwoRun:
    """A run of Euler's method through both latents.

    Attributes:
        strength: Strength of guidance, of two passes in one batch; None for one pass.
        strengths: Strength of guidance for the sound, if it is another one.
        moved: Whether the final latent is given with its dimensions in another order.
        isolating: Whether a further pass is made in which each sees itself only.
        tones: Length of the sound.
    """

    model: TwoLatents = field(default_factory=TwoLatents)
    strength: float | None = 3.0
    sound_strength: float | None = None
    moved: bool = False
    isolating: bool = False
    tones: int = TONES

    def sampler(self, adapter: Adapter = TWO, **changes: Any) -> Sampler:
        branches = ("both", "uncond_isolated") if self.isolating else ()
        given = {"model": self.model, "run": self.run, "solver": "euler", "samples": SAMPLES}
        return Sampler(adapter=adapter, branches=branches, **(given | changes))

    @torch.no_grad()
    def run(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        lengths = FRAMES, self.tones
        latents = [torch.randn(SAMPLES, n, CHANNELS, generator=generator) for n in lengths]
        for step in range(EVALUATIONS):
            outputs = self._guided(latents, 1 - step / EVALUATIONS)
            latents = [x - y / EVALUATIONS for x, y in zip(latents, outputs, strict=True)]
        if self.moved:
            latents = [2.0 * each.transpose(1, 2) for each in latents]
        return joined(latents)

    def _guided(self, latents: list[Tensor], time: float) -> list[Tensor]:
        passes = 1 if self.strength is None else 2
        rows = [torch.cat([each] * passes) for each in latents]
        condition = torch.linspace(-1, 1, passes * SAMPLES)[:, None].expand(-1, CHANNELS)
        timestep = torch.full((len(condition),), time)
        outputs = self.model(*rows, timestep, condition=condition)
        if self.isolating:
            again = self.model(*latents, timestep[:SAMPLES], condition[:SAMPLES], isolated=True)
            outputs = tuple(torch.cat((a[:SAMPLES], a[SAMPLES:] + 0.1 * b))
                            for a, b in zip(outputs, again, strict=True))  # fmt: skip
        if self.strength is None:
            return list(outputs)
        strengths = self.strength, self.sound_strength or self.strength
        halves = [each.chunk(2) for each in outputs]
        return [u + w * (c - u) for w, (u, c) in zip(strengths, halves, strict=True)]
