"""Layers of Open-Sora's video autoencoder that join frames: convolutions that see no later frame.

Names of parameters are those of the published checkpoint of the autoencoder of Open-Sora v1.2,
whose temporal part has the shape of MAGVIT-v2's (arXiv 2310.05737).
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional


class CausalConv3d(nn.Module):
    """A convolution of videos whose frames see themselves and earlier ones only.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        kernel: Side of the kernel, odd, in time, height and width.
        stride: Frames from one output to the next, at least 1.
        bias: Whether there is one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        around, before = kernel // 2, kernel - stride
        self._padding = (around, around, around, around, before, 0)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride=(stride, 1, 1), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, frames, height, width); frames are divided by the stride."""
        return self.conv(functional.pad(x, self._padding))


class ResBlock(nn.Module):
    """Two convolutions, each after a norm, and the residual.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        groups: Groups of the norms, a divisor of both.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels, 3, bias=False)
        self.norm2 = nn.GroupNorm(groups, out_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels, 3, bias=False)
        self.conv3 = (
            None
            if in_channels == out_channels
            else CausalConv3d(in_channels, out_channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, frames, height, width) to out_channels."""
        inner = self.conv1(functional.silu(self.norm1(x)))
        inner = self.conv2(functional.silu(self.norm2(inner)))
        return inner + (x if self.conv3 is None else self.conv3(x))


class TemporalEncoder(nn.Module):
    """Frames of latents to fewer frames of moments.

    Args:
        channels: Channels that come in.
        out_channels: Channels of the moments.
        filters: Channels of the first level.
        multipliers: Channels of every level over those of the first.
        halves: Whether frames are halved after a level; one for every level but the last.
        blocks: Residual blocks of a level.
        groups: Groups of all norms.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        filters: int,
        multipliers: Sequence[int],
        halves: Sequence[bool],
        *,
        blocks: int,
        groups: int,
    ) -> None:
        super().__init__()
        levels = [filters * multiplier for multiplier in multipliers]
        before = [filters, *levels[:-1]]
        self.conv_in = CausalConv3d(channels, filters, 3, bias=False)
        self.block_res_blocks = nn.ModuleList(
            _blocks(first, level, blocks, groups)
            for first, level in zip(before, levels, strict=True)
        )
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(level, level, 3, stride=2) if halved else nn.Identity()
            for level, halved in zip(levels[:-1], halves, strict=True)
        )
        self.res_blocks = _blocks(levels[-1], levels[-1], blocks, groups)
        self.norm1 = nn.GroupNorm(groups, levels[-1])
        self.conv2 = CausalConv3d(levels[-1], out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, frames, height, width), where all halvings of frames are whole."""
        x = self.conv_in(x)
        for level, blocks in enumerate(self.block_res_blocks):
            x = _through(blocks, x)
            if level < len(self.conv_blocks):
                x = self.conv_blocks[level](x)
        return self.conv2(functional.silu(self.norm1(_through(self.res_blocks, x))))


class TemporalDecoder(nn.Module):
    """The way back: frames of latents to more frames; see `TemporalEncoder` for the arguments.

    Args:
        channels: Channels that come in.
        out_channels: Channels that go out.
        filters: Channels of the first level.
        multipliers: Channels of every level over those of the first.
        halves: Whether frames are doubled before a level; one for every level but the last.
        blocks: Residual blocks of a level.
        groups: Groups of all norms.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        filters: int,
        multipliers: Sequence[int],
        halves: Sequence[bool],
        *,
        blocks: int,
        groups: int,
    ) -> None:
        super().__init__()
        levels = [filters * multiplier for multiplier in multipliers]
        before = [*levels[1:], levels[-1]]
        self.conv1 = CausalConv3d(channels, levels[-1], 3)
        self.res_blocks = _blocks(levels[-1], levels[-1], blocks, groups)
        self.block_res_blocks = nn.ModuleList(
            _blocks(first, level, blocks, groups)
            for first, level in zip(before, levels, strict=True)
        )
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(level, 2 * level, 3) if doubled else nn.Identity()
            for level, doubled in zip(levels[1:], halves, strict=True)
        )
        self.norm1 = nn.GroupNorm(groups, levels[0])
        self.conv_out = CausalConv3d(levels[0], out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, frames, height, width) to twice the frames for every doubling."""
        x = _through(self.res_blocks, self.conv1(x))
        for level in reversed(range(len(self.block_res_blocks))):
            x = _through(self.block_res_blocks[level], x)
            if level:
                wide = self.conv_blocks[level - 1](x)
                x = _unfolded(wide, wide.shape[1] // x.shape[1])
        return self.conv_out(functional.silu(self.norm1(x)))


def _blocks(in_channels: int, out_channels: int, count: int, groups: int) -> nn.ModuleList:
    channels = [in_channels, *[out_channels] * count]
    return nn.ModuleList(ResBlock(first, second, groups) for first, second in pairwise(channels))


def _through(blocks: nn.Module, x: Tensor) -> Tensor:
    for block in blocks.children():
        x = block(x)
    return x


def _unfolded(x: Tensor, times: int) -> Tensor:
    """Make frames of channels: (batch, channels * times, frames, ...) to frames * times."""
    return x.unflatten(1, (-1, times)).transpose(2, 3).flatten(2, 3)
