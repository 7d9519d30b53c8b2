"""Layers of STDiT3: attention, cross-attention to text, embeddings, the last layer.

Names of parameters are those of the published checkpoints of Open-Sora v1.2.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_MAX_PERIOD = 10000.0  # the longest period of sinusoidal embeddings, as in transformers everywhere
_FREQUENCIES = 256  # channels of the sinusoids that timesteps and frame rates become
_EPS = 1e-6  # of all norms


class Rope(nn.Module):
    """Rotary position embedding (arXiv 2104.09864) of adjacent pairs of channels.

    Args:
        channels: Channels of a head, an even number.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        powers = torch.arange(0, channels, 2).float() / channels
        self.freqs = nn.Parameter(1.0 / _MAX_PERIOD**powers, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Rotate queries or keys, (batch, heads, length, channels), by their places."""
        places = torch.arange(x.shape[-2], device=x.device, dtype=self.freqs.dtype)
        angles = torch.outer(places, self.freqs).repeat_interleave(2, dim=-1)
        even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack((-odd, even), dim=-1).flatten(-2)
        return (x * angles.cos() + turned * angles.sin()).to(x.dtype)


class RMSNorm(nn.Module):
    """Root mean square norm (arXiv 1910.07467), computed in float32.

    Args:
        channels: Size of the last dimension.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Divide (..., channels) by the root of their mean square."""
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, True) + _EPS)).to(x.dtype)


class Attention(nn.Module):
    """Self-attention over one sequence: the patches of a frame, or a patch through the frames.

    Args:
        channels: Channels of a token.
        heads: Number of attention heads, a divisor of `channels`.
        rope: Rotates queries and keys; None where places are known otherwise.
        qk_norm: Whether queries and keys are normed.
    """

    def __init__(
        self, channels: int, heads: int, *, rope: Rope | None = None, qk_norm: bool = True
    ) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.q_norm = RMSNorm(channels // heads) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(channels // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(channels, channels)
        self._rope = (rope,)  # a tuple: the one module of the model is not a child of every block

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each sequence of (batch, length, channels); returns the same shape."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        (rope,) = self._rope
        if rope is not None:
            q, k = rope(q), rope(k)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Attention of all tokens of a video to its text.

    Args:
        channels: Channels of a token.
        heads: Number of attention heads, a divisor of `channels`.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_linear = nn.Linear(channels, channels)
        self.kv_linear = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, text: Tensor, mask: Tensor | None) -> Tensor:
        """Attend to the text.

        Args:
            x: Tokens of the video, (batch, length, channels).
            text: Tokens of the text, (batch, words, channels).
            mask: Which words are attended to, bool (batch, words); None is all.

        Returns:
            (batch, length, channels).
        """
        q = self.q_linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv_linear(text).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = None if mask is None else mask[:, None, None, :]
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with a GELU between.

    Args:
        channels: Channels that come in.
        hidden: Channels in between.
        out: Channels that go out; as many as come in if not given.
    """

    def __init__(self, channels: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, out or channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., channels) to (..., out)."""
        return self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))


class PatchEmbedding(nn.Module):
    """Patches of a video as tokens; sides that are no multiple of a patch are padded with zeros.

    Args:
        patch: Frames, height and width of a patch.
        in_channels: Channels of the video.
        channels: Channels of a token.
    """

    def __init__(self, patch: tuple[int, int, int], in_channels: int, channels: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv3d(in_channels, channels, kernel_size=patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """Embed (batch, channels, frames, height, width) as (batch, frames, patches, channels)."""
        lacking = [-size % side for size, side in zip(x.shape[2:], self.patch, strict=True)]
        padded = functional.pad(x, [each for n in reversed(lacking) for each in (0, n)])
        return self.proj(padded).flatten(3).permute(0, 2, 3, 1)


class ScalarEmbedding(nn.Module):
    """A number for each sample, such as a timestep or a frame rate, as channels.

    Args:
        channels: Channels of a token.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(_FREQUENCIES, channels), nn.SiLU(), nn.Linear(channels, channels)
        )

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return next(self.parameters()).dtype

    def forward(self, values: Tensor) -> Tensor:
        """Embed (batch,) as (batch, channels), in the data type of the weights."""
        half = _FREQUENCIES // 2
        powers = torch.arange(half, dtype=torch.float32, device=values.device) / half
        angles = values.float()[:, None] * torch.exp(-math.log(_MAX_PERIOD) * powers)
        waves = torch.cat((angles.cos(), angles.sin()), dim=-1)
        return self.mlp(waves.to(self.dtype))


class CaptionEmbedding(nn.Module):
    """Outputs of the text encoder as channels of tokens, with an embedding that means no text.

    Args:
        text_channels: Channels of the text encoder.
        channels: Channels of a token.
        words: The most words of a text.
    """

    def __init__(self, text_channels: int, channels: int, words: int) -> None:
        super().__init__()
        self.y_proj = Mlp(text_channels, channels, channels)
        self.y_embedding: Tensor
        self.register_buffer("y_embedding", torch.randn(words, text_channels) / text_channels**0.5)

    def forward(self, text: Tensor) -> Tensor:
        """Embed (batch, words, text channels) as (batch, words, channels)."""
        return self.y_proj(text)


def positions(height: int, width: int, channels: int, scale: float, like: Tensor) -> Tensor:
    """Return the sinusoidal position embedding of the patches of a frame.

    Args:
        height: Patches in a column.
        width: Patches in a row.
        channels: Channels of a token, a multiple of 4.
        scale: Side of the video over that which the model was made for: a larger one has finer
            places.
        like: Gives device and data type.

    Returns:
        (height * width, channels): first half of columns, second half of rows.
    """
    base = round((height * width) ** 0.5)
    powers = torch.arange(0, channels // 2, 2, device=like.device).float() / (channels // 2)
    frequencies = 1.0 / _MAX_PERIOD**powers

    def waves(count: int) -> Tensor:
        places = torch.arange(count, device=like.device) / scale * (base / count)
        angles = torch.outer(places, frequencies)
        return torch.cat((angles.sin(), angles.cos()), dim=-1)

    columns = waves(width)[None].expand(height, -1, -1)
    rows = waves(height)[:, None].expand(-1, width, -1)
    return torch.cat((columns, rows), dim=-1).flatten(0, 1).to(like.dtype)


class FinalLayer(nn.Module):
    """The last norm, modulated by the timestep, and the layer that makes patches of tokens.

    Args:
        channels: Channels of a token.
        out: Numbers of a patch.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(channels, elementwise_affine=False, eps=_EPS)
        self.linear = nn.Linear(channels, out)
        self.scale_shift_table = nn.Parameter(torch.randn(2, channels) / channels**0.5)

    def forward(
        self, x: Tensor, t: Tensor, given: Tensor | None = None, t0: Tensor | None = None
    ) -> Tensor:
        """Make patches of tokens.

        Args:
            x: Tokens, (batch, frames, patches, channels).
            t: Embedding of the timestep, (batch, channels).
            given: Which frames are noisy, bool (batch, frames); None is all.
            t0: Embedding of timestep 0, for frames that are not.

        Returns:
            (batch, frames, patches, out).
        """
        noisy = modulated(self.norm_final(x), *self._shift_and_scale(t))
        if given is not None and t0 is not None:
            # upstream norms the modulated tokens once more here; checkpoints were trained so
            clean = modulated(self.norm_final(noisy), *self._shift_and_scale(t0))
            noisy = torch.where(given[:, :, None, None], noisy, clean)
        return self.linear(noisy)

    def _shift_and_scale(self, t: Tensor) -> tuple[Tensor, Tensor]:
        shift, scale = (self.scale_shift_table[None] + t[:, None]).chunk(2, dim=1)
        return shift[:, None], scale[:, None]


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Scale and shift normed tokens."""
    return x * (1 + scale) + shift
