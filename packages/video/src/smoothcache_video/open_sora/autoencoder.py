"""The video autoencoder of Open-Sora v1.2: every frame, then groups of frames, to latents."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from smoothcache_core.errors import PipelineError
from torch import Tensor, nn
from torch.nn import functional

from smoothcache_video.open_sora.causal import CausalConv3d, TemporalDecoder, TemporalEncoder

_SPATIAL_SCALE = 0.18215
"""What latents of frames are multiplied by before frames are joined: Stable Diffusion's number,
which upstream uses although its spatial autoencoder is that of SDXL, whose own is 0.13025."""


class _Spatial(nn.Module):
    """Encodes and decodes every frame by itself.

    Args:
        channels: Channels of the latent.
        levels: Channels of every level; each but the first halves the sides.
        blocks: Residual blocks of a level.
        groups: Groups of all norms.
    """

    def __init__(self, channels: int, levels: Sequence[int], blocks: int, groups: int) -> None:
        super().__init__()
        sizes: dict[str, Any] = {
            "block_out_channels": tuple(levels),
            "down_block_types": ("DownEncoderBlock2D",) * len(levels),
            "up_block_types": ("UpDecoderBlock2D",) * len(levels),
        }
        self.module = AutoencoderKL(
            latent_channels=channels, layers_per_block=blocks, norm_num_groups=groups, **sizes
        )

    def encode(self, x: Tensor, batch: int, generator: torch.Generator | None) -> Tensor:
        """Encode (batch, 3, frames, height, width), drawing from every frame's posterior."""

        def encoded(frames: Tensor) -> Tensor:
            posterior: Any = self.module.encode(frames)
            return posterior.latent_dist.sample(generator) * _SPATIAL_SCALE

        return _by_frames(encoded, x, batch)

    def decode(self, x: Tensor, batch: int) -> Tensor:
        """Decode (batch, channels, frames, height, width)."""

        def decoded(latents: Tensor) -> Tensor:
            module: Any = self.module  # its annotations are narrower than it is
            return module.decode(latents / _SPATIAL_SCALE).sample

        return _by_frames(decoded, x, batch)


def _by_frames(apply: Callable[[Tensor], Tensor], x: Tensor, batch: int) -> Tensor:
    """Apply to (n, channels, height, width), at most `batch` at once, for all frames."""
    frames = x.transpose(1, 2).flatten(0, 1)
    done = torch.cat([apply(part) for part in frames.split(batch)])
    return done.unflatten(0, (len(x), -1)).transpose(1, 2)


class _Temporal(nn.Module):
    """Joins frames of latents, four to one with the published sizes.

    Args:
        channels: Channels of the latent.
        filters: Channels of the first level.
        multipliers: Channels of every level over those of the first.
        halves: Whether frames are halved after a level; one for every level but the last.
        blocks: Residual blocks of a level.
        groups: Groups of all norms.
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        multipliers: Sequence[int],
        halves: Sequence[bool],
        blocks: int,
        groups: int,
    ) -> None:
        super().__init__()
        self.factor = 2 ** sum(halves)
        sizes: Any = (filters, multipliers, halves)
        counts: Any = {"blocks": blocks, "groups": groups}
        self.encoder = TemporalEncoder(channels, 2 * channels, *sizes, **counts)
        self.quant_conv = CausalConv3d(2 * channels, 2 * channels, 1)
        self.post_quant_conv = CausalConv3d(channels, channels, 1)
        self.decoder = TemporalDecoder(channels, channels, *sizes, **counts)

    def encode(self, x: Tensor) -> Tensor:
        """Return moments of (batch, channels, frames, ...); frames of zeros come before it."""
        lacking = -x.shape[2] % self.factor
        return self.quant_conv(self.encoder(functional.pad(x, (0, 0, 0, 0, lacking, 0))))

    def decode(self, z: Tensor, frames: int) -> Tensor:
        """Decode latents, without the frames that came before when they were encoded."""
        return self.decoder(self.post_quant_conv(z))[:, :, -frames % self.factor :]


class AutoencoderKLOpenSora(ModelMixin, ConfigMixin):
    """The video autoencoder of Open-Sora v1.2, with the names of its published parameters.

    Frames are encoded one by one, and then groups of 17 frames of latents to 5: a group is a clip
    of its own. Latents are normed, so they are what the denoiser sees.

    Example:
        >>> vae = AutoencoderKLOpenSora(block_out_channels=(32, 32), filters=32)
        >>> latents = vae.encode(torch.zeros(1, 3, 18, 8, 8)).latent_dist.mode()
        >>> latents.shape, vae.decode(latents, num_frames=18).sample.shape
        (torch.Size([1, 4, 6, 4, 4]), torch.Size([1, 3, 18, 8, 8]))

    Args:
        latent_channels: Channels of the latent.
        block_out_channels: Channels of the levels of the spatial part, multiples of 32; each level
            but the first halves height and width.
        layers_per_block: Residual blocks of each of them.
        filters: Channels of the first level of the temporal part, a multiple of 32.
        channel_multipliers: Channels of its levels over those of the first.
        temporal_downsample: Whether frames are halved after a level, for each but the last.
        num_res_blocks: Residual blocks of each of them.
        norm_num_groups: Groups of all norms, a divisor of all channels but the latent's.
        micro_frame_size: Frames of a group; None makes one of the whole video.
        micro_batch_size: Frames that the spatial part takes at once, at least 1.
        latents_mean: What is taken from each channel of the latent.
        latents_std: What each is divided by then.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 4,
        block_out_channels: tuple[int, ...] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        filters: int = 128,
        channel_multipliers: tuple[int, ...] = (1, 2, 2, 4),
        temporal_downsample: tuple[bool, ...] = (False, True, True),
        num_res_blocks: int = 4,
        norm_num_groups: int = 32,
        micro_frame_size: int | None = 17,
        micro_batch_size: int = 4,
        latents_mean: tuple[float, ...] = (-0.10, 0.34, 0.27, 0.98),
        latents_std: tuple[float, ...] = (3.85, 2.32, 2.33, 3.06),
    ) -> None:
        super().__init__()
        self.spatial_vae = _Spatial(
            latent_channels, block_out_channels, layers_per_block, norm_num_groups
        )
        self.temporal_vae = _Temporal(
            latent_channels,
            filters,
            channel_multipliers,
            temporal_downsample,
            num_res_blocks,
            norm_num_groups,
        )
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", torch.tensor(latents_std)[None, :, None, None, None])
        self.register_buffer("shift", torch.tensor(latents_mean)[None, :, None, None, None])

    def latent_frames(self, frames: int) -> int:
        """Return how many frames of the latent a video of so many frames has."""
        return sum(-(-part // self.temporal_vae.factor) for part in self._groups(frames))

    def frames(self, latent_frames: int) -> int:
        """Return how many frames a latent of so many frames has at most."""
        group = self._frames_of_group
        if group is None:
            return latent_frames * self.temporal_vae.factor
        whole, rest = divmod(latent_frames, self.latent_frames(group))
        return whole * group + rest * self.temporal_vae.factor

    @apply_forward_hook
    def encode(
        self, x: Tensor, generator: torch.Generator | None = None, *, return_dict: bool = True
    ) -> Any:
        """Encode videos.

        Args:
            x: Pixels from -1 to 1, (batch, 3, frames, height, width).
            generator: Where the noise of every frame's own posterior is drawn from; torch's global
                generator if not given.
            return_dict: Whether to give an `AutoencoderKLOutput` or a tuple.

        Returns:
            The distribution of the latents, `latent_dist`, packed so.
        """
        frames = self.spatial_vae.encode(x, self._batch, generator)
        groups = frames.split(self._groups(frames.shape[2]), dim=2)
        mean, spread = torch.cat([self.temporal_vae.encode(g) for g in groups], dim=2).chunk(2, 1)
        normed = ((mean - self.shift) / self.scale, spread - 2 * self.scale.log())
        found = DiagonalGaussianDistribution(torch.cat(normed, dim=1))
        return AutoencoderKLOutput(latent_dist=found) if return_dict else (found,)

    @apply_forward_hook
    def decode(self, z: Tensor, num_frames: int | None = None, *, return_dict: bool = True) -> Any:
        """Decode latents.

        Args:
            z: Latents, (batch, latent_channels, frames, height, width).
            num_frames: Frames of the video; the most that the latents have if not given.
            return_dict: Whether to give a `DecoderOutput` or a tuple.

        Returns:
            Pixels from -1 to 1, (batch, 3, num_frames, height, width), packed so.

        Raises:
            PipelineError: The latents are not of a video of so many frames.
        """
        frames = self.frames(z.shape[2]) if num_frames is None else num_frames
        if self.latent_frames(frames) != z.shape[2]:
            raise PipelineError(
                f"a video of {frames} frames has {self.latent_frames(frames)} frames of the "
                f"latent, got {z.shape[2]}"
            )
        z = z * self.scale.to(z.dtype) + self.shift.to(z.dtype)
        groups = self._groups(frames)
        parts = z.split([self.latent_frames(group) for group in groups], dim=2)
        joined = [
            self.temporal_vae.decode(part, group) for part, group in zip(parts, groups, strict=True)
        ]
        pixels = self.spatial_vae.decode(torch.cat(joined, dim=2), self._batch)
        return DecoderOutput(sample=pixels) if return_dict else (pixels,)

    @property
    def _frames_of_group(self) -> int | None:
        config: Any = self.config
        return config.micro_frame_size

    @property
    def _batch(self) -> int:
        config: Any = self.config
        return config.micro_batch_size

    def _groups(self, frames: int) -> list[int]:
        """Return the frames of every group that a video of so many frames is made of."""
        group = self._frames_of_group or frames
        whole, rest = divmod(frames, group)
        return [group] * whole + [rest] * bool(rest)
