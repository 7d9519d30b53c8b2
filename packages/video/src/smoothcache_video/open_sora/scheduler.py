"""Rectified flow as Open-Sora v1.2 samples it: Euler's method on moved timesteps."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.outputs import BaseOutput
from smoothcache_core.errors import PipelineError
from torch import Tensor

_CLIP, _CLIP_LATENTS = 17, 5
"""Frames that upstream's autoencoder encodes at once, and the latent frames that it makes of them;
timesteps are moved by that number, whatever the autoencoder is."""


@dataclass
class RectifiedFlowOutput(BaseOutput):
    """What a step gives.

    Attributes:
        prev_sample: The latent at the next timestep.
    """

    prev_sample: Tensor


class RectifiedFlowScheduler(SchedulerMixin, ConfigMixin):
    """Euler's method from noise, timestep 1000, to data, timestep 0.

    The latent at timestep t is (1 - t / 1000) data + t / 1000 noise (rectified flow, arXiv
    2209.03003), and the model gives data minus noise. Videos of many pixels or frames spend more
    steps near the noise: t' = r t / (1 + (r - 1) t), with t from 0 to 1 and r the root of pixels
    over `base_resolution`, times the root of the latent frames, times `transform_scale`.

    Example:
        >>> scheduler = RectifiedFlowScheduler()
        >>> scheduler.set_timesteps(30, height=144, width=256, num_frames=51)
        >>> scheduler.timesteps[:2].round()
        tensor([1000.,  977.])

    Args:
        num_train_timesteps: The timestep of noise.
        use_timestep_transform: Whether timesteps are moved by size and frames.
        base_resolution: Pixels of a video of one frame whose timesteps are not moved.
        transform_scale: Further factor of r.
        use_discrete_timesteps: Whether timesteps are rounded to whole ones before they are moved.
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        use_timestep_transform: bool = True,
        base_resolution: int = 512 * 512,
        transform_scale: float = 1.0,
        use_discrete_timesteps: bool = False,
    ) -> None:
        self.timesteps = torch.arange(num_train_timesteps, 0, -1).float()
        self.sigmas = torch.cat((self.timesteps / num_train_timesteps, torch.zeros(1)))
        self.num_inference_steps: int | None = None
        self._step_index: int | None = None
        self._begin_index: int | None = None

    @property
    def step_index(self) -> int | None:
        """The step that comes next; None before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """The first step of the run, where the pipeline has set it."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Say with which step a run begins, for runs from a latent that is not all noise."""
        self._begin_index = begin_index

    def set_timesteps(
        self,
        num_inference_steps: int,
        device: str | torch.device | None = None,
        *,
        height: int = 512,
        width: int = 512,
        num_frames: int = 1,
    ) -> None:
        """Begin a run.

        Args:
            num_inference_steps: Steps, at least 1; each is one evaluation.
            device: Where timesteps are put.
            height: Height of the video in pixels.
            width: Width of the video in pixels.
            num_frames: Frames of the video, not of the latent.

        Raises:
            PipelineError: There are no steps, frames or pixels.
        """
        if min(num_inference_steps, height, width, num_frames) < 1:
            raise PipelineError(
                "steps, height, width and frames are at least 1, got "
                f"{num_inference_steps} steps of {num_frames} frames of {height} x {width}"
            )
        config: Any = self.config
        shares = 1.0 - torch.arange(num_inference_steps).float() / num_inference_steps
        if config.use_discrete_timesteps:
            shares = (shares * config.num_train_timesteps).round() / config.num_train_timesteps
        if config.use_timestep_transform:
            shares = self._moved(shares, height * width, num_frames)
        self.timesteps = (shares * config.num_train_timesteps).to(device)
        self.sigmas = torch.cat((shares, torch.zeros(1))).to(device)
        self.num_inference_steps = num_inference_steps
        self._step_index = self._begin_index = None

    def _moved(self, shares: Tensor, pixels: int, frames: int) -> Tensor:
        config: Any = self.config
        latents = 1 if frames == 1 else frames // _CLIP * _CLIP_LATENTS
        ratio = (pixels / config.base_resolution) ** 0.5 * max(latents, 1) ** 0.5
        ratio *= config.transform_scale
        # in this form noise stays at exactly 1, whatever the ratio: frames are noisy from there on
        return ratio * shares / (ratio * shares + (1 - shares))

    def scale_model_input(self, sample: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the latent as it is: the model takes it unscaled."""
        del args, kwargs
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | float,
        sample: Tensor,
        *,
        return_dict: bool = True,
    ) -> Any:
        """Take the step that comes next.

        Args:
            model_output: Data minus noise, of the shape of the latent.
            timestep: The latent's timestep.
            sample: The latent at that timestep.
            return_dict: Whether to give a `RectifiedFlowOutput` or a tuple.

        Returns:
            The latent at the next timestep, packed so.
        """
        if self._step_index is None:
            self._step_index = self._index(timestep)
        here, there = self.sigmas[self._step_index], self.sigmas[self._step_index + 1]
        moved = sample + (here - there).to(sample.dtype) * model_output.to(sample.dtype)
        self._step_index += 1
        return RectifiedFlowOutput(prev_sample=moved) if return_dict else (moved,)

    def _index(self, timestep: Tensor | float) -> int:
        if self._begin_index is not None:
            return self._begin_index
        number = timestep.reshape(-1)[0] if isinstance(timestep, Tensor) else timestep
        return int((self.timesteps - torch.as_tensor(number).to(self.timesteps)).abs().argmin())

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return latents on the straight line from data to noise.

        Args:
            original_samples: Data, (batch, ...).
            noise: Noise of the same shape.
            timesteps: Where on the line, (batch,).
        """
        config: Any = self.config
        shares = timesteps.to(original_samples) / config.num_train_timesteps
        shares = shares.reshape(-1, *(1,) * (original_samples.ndim - 1))
        return (1 - shares) * original_samples + shares * noise

    def __len__(self) -> int:
        """Return the number of timesteps of training."""
        config: Any = self.config
        return config.num_train_timesteps
