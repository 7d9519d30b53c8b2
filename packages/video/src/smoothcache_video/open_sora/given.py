"""Frames that a run is given: those that stay, and those of which a part is made anew."""

from dataclasses import dataclass

import torch
from smoothcache_core.errors import PipelineError
from torch import Tensor

from smoothcache_video.open_sora.scheduler import RectifiedFlowScheduler


@dataclass(frozen=True)
class GivenFrames:
    """Known frames and how much of each is made anew.

    Attributes:
        frames: Their latents, (batch, channels, frames, height, width).
        share: 1 where a frame is made anew, 0 where it is kept, (batch, frames).
    """

    frames: Tensor
    share: Tensor

    @staticmethod
    def of(frames: Tensor | None, share: Tensor | None, like: Tensor) -> "GivenFrames | None":
        """Return the frames that a pipeline was given; None if it was given none.

        Args:
            frames: Their latents, of the shape of the noise.
            share: How much of each is made anew, (batch, frames).
            like: The noise of the run, which gives shape, device and data type.

        Raises:
            PipelineError: They have another shape.
        """
        if frames is None or share is None:
            return None
        if frames.shape != like.shape or share.shape != (like.shape[0], like.shape[2]):
            raise PipelineError(
                f"`frames` must be {tuple(like.shape)} and `frame_mask` "
                f"{(like.shape[0], like.shape[2])}, got {tuple(frames.shape)} and "
                f"{tuple(share.shape)}"
            )
        return GivenFrames(frames.to(like), share.to(like))

    def begin(self, noise: Tensor) -> Tensor:
        """Return what a run begins with: noise where all of a frame is made anew."""
        anew = (self.share >= 1.0)[:, None, :, None, None]
        return torch.where(anew, noise, self.frames)

    def before(
        self, step: int, latents: Tensor, noise: Tensor, scheduler: RectifiedFlowScheduler
    ) -> tuple[Tensor, Tensor]:
        """Return the latents of a step, and which frames are noisy in it, (batch, frames).

        A frame of which a part is made anew gets its noise when the run comes to that timestep.

        Args:
            step: Number of the step, from 0.
            latents: What the step before made, or what the run begins with.
            noise: The noise of the run, of the same shape.
            scheduler: Has the timesteps of the run.
        """
        reached = self.share * len(scheduler)
        t = scheduler.timesteps[step]
        noisy = reached >= t
        joins = noisy & (self.share < 1.0)
        if step:
            joins &= reached < scheduler.timesteps[step - 1]
        entering = scheduler.add_noise(latents, noise, t.expand(len(latents)))
        return torch.where(joins[:, None, :, None, None], entering, latents), noisy
