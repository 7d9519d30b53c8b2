"""STDiT3, the denoiser of Open-Sora v1.2, in plain torch.

Written from the structure of the published model (https://github.com/hpcaitech/Open-Sora, v1.2):
pairs of a spatial block, which attends within every frame, and a temporal block, which attends
along every patch through the frames; both attend to the text. It needs none of the libraries of
its first implementation, and loads its checkpoints by their own names.
"""

from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from smoothcache_video.open_sora.layers import (
    Attention,
    CaptionEmbedding,
    CrossAttention,
    FinalLayer,
    Mlp,
    PatchEmbedding,
    Rope,
    ScalarEmbedding,
    modulated,
    positions,
)

_EPS = 1e-6


class STDiT3Block(nn.Module):
    """Attention within frames or through them, cross-attention to the text, feed-forward.

    Norms, modulation, gates and residuals are outside of the three.

    Args:
        channels: Channels of a token.
        heads: Number of attention heads, a divisor of `channels`.
        mlp_ratio: Channels inside the feed-forward over those of a token.
        qk_norm: Whether queries and keys are normed.
        rope: Rotates queries and keys of a temporal block; None makes the block spatial.
    """

    def __init__(
        self, channels: int, heads: int, mlp_ratio: float, *, qk_norm: bool, rope: Rope | None
    ) -> None:
        super().__init__()
        self.temporal = rope is not None
        self.norm1 = nn.LayerNorm(channels, eps=_EPS, elementwise_affine=False)
        self.attn = Attention(channels, heads, rope=rope, qk_norm=qk_norm)
        self.cross_attn = CrossAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, eps=_EPS, elementwise_affine=False)
        self.mlp = Mlp(channels, int(channels * mlp_ratio))
        self.scale_shift_table = nn.Parameter(torch.randn(6, channels) / channels**0.5)

    def forward(
        self,
        x: Tensor,
        text: Tensor,
        t: Tensor,
        mask: Tensor | None = None,
        given: Tensor | None = None,
        t0: Tensor | None = None,
    ) -> Tensor:
        """Apply the block.

        Args:
            x: Tokens, (batch, frames, patches, channels).
            text: Tokens of the text, (batch, words, channels).
            t: Six modulations by the timestep, (batch, 6 * channels).
            mask: Which words are attended to, bool (batch, words); None is all.
            given: Which frames are noisy, bool (batch, frames); None is all.
            t0: Modulations at timestep 0, for frames that are not noisy.

        Returns:
            (batch, frames, patches, channels).
        """
        noisy = self._modulations(t)
        clean = None if given is None or t0 is None else self._modulations(t0)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = (
            noisy if clean is None else _by_frame(given, noisy, clean)
        )
        x = x + gate * self._attended(modulated(self.norm1(x), shift, scale))
        x = x + self.cross_attn(x.flatten(1, 2), text, mask).view_as(x)
        flat = modulated(self.norm2(x), mlp_shift, mlp_scale).flatten(1, 2)
        return x + mlp_gate * self.mlp(flat).view_as(x)

    def _modulations(self, t: Tensor) -> tuple[Tensor, ...]:
        """Return six tensors, (batch, 1, 1, channels)."""
        both = self.scale_shift_table[None] + t.unflatten(-1, (6, -1))
        return tuple(each[:, None] for each in both.chunk(6, dim=1))

    def _attended(self, x: Tensor) -> Tensor:
        if not self.temporal:
            return self.attn(x.flatten(0, 1)).view_as(x)
        across = x.transpose(1, 2)
        return self.attn(across.flatten(0, 1)).view_as(across).transpose(1, 2)


def _by_frame(
    given: Tensor | None, noisy: tuple[Tensor, ...], clean: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Return for every frame its modulations, (batch, frames, 1, channels)."""
    assert given is not None
    where = given[:, :, None, None]
    return tuple(torch.where(where, one, other) for one, other in zip(noisy, clean, strict=True))


class STDiT3(ModelMixin, ConfigMixin):
    """The denoiser of Open-Sora v1.2, of any size, resolution, number of frames and frame rate.

    Example:
        >>> model = STDiT3(depth=2, hidden_size=32, num_heads=2, caption_channels=16)
        >>> latents = torch.randn(1, 4, 3, 8, 8)
        >>> model(latents, torch.tensor([900.0]), torch.randn(1, 1, 5, 16)).shape
        torch.Size([1, 8, 3, 8, 8])

    Args:
        in_channels: Channels of the latent.
        hidden_size: Channels of a token, a multiple of 4 and of `num_heads`.
        depth: Pairs of a spatial and a temporal block.
        num_heads: Number of attention heads.
        patch_size: Frames, height and width of a patch.
        mlp_ratio: Channels inside a feed-forward over those of a token.
        pred_sigma: Whether it gives a variance beside the velocity, in a second half of channels.
            Sampling does not use it.
        caption_channels: Channels of the text encoder.
        model_max_length: The most words of a text.
        qk_norm: Whether queries and keys are normed.
        input_sq_size: Side of the squares, in pixels, that position embeddings are scaled to.
        max_frames: The most frames of a latent that it was trained for, which pipelines refuse to
            exceed; None is any, for its positions in time are relative.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules: ClassVar = ["STDiT3Block"]

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        hidden_size: int = 1152,
        depth: int = 28,
        num_heads: int = 16,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        mlp_ratio: float = 4.0,
        pred_sigma: bool = True,
        caption_channels: int = 4096,
        model_max_length: int = 300,
        qk_norm: bool = True,
        input_sq_size: int = 512,
        max_frames: int | None = None,
    ) -> None:
        super().__init__()
        frames, rows, columns = patch_size
        self.patch_size = (frames, rows, columns)
        self.out_channels = 2 * in_channels if pred_sigma else in_channels
        self.gradient_checkpointing = False
        self.rope = Rope(hidden_size // num_heads)
        self.x_embedder = PatchEmbedding(self.patch_size, in_channels, hidden_size)
        self.t_embedder = ScalarEmbedding(hidden_size)
        self.fps_embedder = ScalarEmbedding(hidden_size)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 6 * hidden_size))
        self.y_embedder = CaptionEmbedding(caption_channels, hidden_size, model_max_length)
        self.spatial_blocks = self._blocks(depth, None)
        self.temporal_blocks = self._blocks(depth, self.rope)
        size = self.patch_size[0] * self.patch_size[1] * self.patch_size[2]
        self.final_layer = FinalLayer(hidden_size, size * self.out_channels)
        self._initialise()

    def _blocks(self, depth: int, rope: Rope | None) -> nn.ModuleList:
        config: Any = self.config
        return nn.ModuleList(
            STDiT3Block(
                config.hidden_size,
                config.num_heads,
                config.mlp_ratio,
                qk_norm=config.qk_norm,
                rope=rope,
            )
            for _ in range(depth)
        )

    def _initialise(self) -> None:
        """Initialise as upstream does: temporal blocks begin as the identity."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        first, *_, last = (each for each in self.fps_embedder.mlp if isinstance(each, nn.Linear))
        nn.init.normal_(first.weight, std=0.02)
        nn.init.zeros_(last.weight)
        for block in self.temporal_blocks:
            assert isinstance(block, STDiT3Block)
            for layer in (block.attn.proj, block.cross_attn.proj, block.mlp.fc2):
                nn.init.zeros_(layer.weight)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        y: Tensor,
        mask: Tensor | None = None,
        x_mask: Tensor | None = None,
        fps: Tensor | float = 24.0,
        height: Tensor | float | None = None,
        width: Tensor | float | None = None,
        num_frames: Tensor | int | None = None,
        ar: Tensor | float | None = None,
    ) -> Tensor:
        """Return the velocity, from noise to data, and the variance if there is one.

        Arguments have the names and layouts of the model's first implementation.

        Args:
            x: Latent, (batch, in_channels, frames, height, width).
            timestep: From 0, data, to 1000, noise; (batch,).
            y: Outputs of the text encoder, (batch, 1, words, caption_channels).
            mask: Words of the text that count, (batch, words) or (batch / 2, words) where guidance
                repeats the batch, 1 or 0; None is all.
            x_mask: Frames that are noisy, bool (batch, frames); others are given and taken to be
                at timestep 0. None is all.
            fps: Frames per second, a number, (batch,), or (batch / 2,) like `mask`.
            height: Height of the video in pixels, a number or (batch,); None is 8 times the
                latent's.
            width: Width of the video in pixels, likewise.
            num_frames: Not used; samplers of the first implementation hand it on.
            ar: Aspect ratio, which is not used either.

        Returns:
            (batch, in_channels, frames, height, width) in float32, with twice as many channels if
            there is `pred_sigma`.
        """
        del num_frames, ar
        kind = self.x_embedder.proj.weight.dtype
        given = None if x_mask is None else x_mask.bool()
        rates = torch.as_tensor(fps, device=x.device).reshape(-1)
        rate = rates.repeat(len(x) // len(rates))
        t, modulations = self._at(timestep.to(kind), rate)
        t0, modulations0 = (None, None) if given is None else self._at(0 * timestep.to(kind), rate)
        text, words = self._text(y.to(kind), mask)
        tokens = self.x_embedder(x.to(kind))
        tokens = tokens + self._positions(x, height, width, tokens)
        for spatial, temporal in zip(self.spatial_blocks, self.temporal_blocks, strict=True):
            for block in (spatial, temporal):
                tokens = self._run(block, tokens, text, modulations, words, given, modulations0)
        patches = self.final_layer(tokens, t, given, t0)
        return self._video(patches, x.shape[2:]).float()

    def _run(self, block: nn.Module, *arguments: Any) -> Tensor:
        checkpointed = self._gradient_checkpointing_func if self.gradient_checkpointing else None
        if torch.is_grad_enabled() and checkpointed is not None:
            return checkpointed(block, *arguments)
        return block(*arguments)

    def _at(self, timestep: Tensor, fps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embedding of a timestep, (batch, channels), and the modulations by it."""
        t = self.t_embedder(timestep) + self.fps_embedder(fps)
        return t, self.t_block(t)

    def _text(self, y: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the tokens of the text and which of them count, (batch, words)."""
        text = self.y_embedder(y.squeeze(1))
        if mask is None:
            return text, None
        words = mask.reshape(-1, text.shape[1]).bool()
        return text, words.repeat(len(text) // len(words), 1)

    def _positions(
        self, x: Tensor, height: Tensor | float | None, width: Tensor | float | None, like: Tensor
    ) -> Tensor:
        config: Any = self.config
        sides = [
            -(-size // side) for size, side in zip(x.shape[3:], self.patch_size[1:], strict=True)
        ]
        pixels = (
            _number(height, _PIXELS * x.shape[3]) * _number(width, _PIXELS * x.shape[4])
        ) ** 0.5
        scale = pixels / config.input_sq_size
        return positions(sides[0], sides[1], config.hidden_size, scale, like)

    def _video(self, patches: Tensor, sizes: torch.Size) -> Tensor:
        """Put (batch, frames, patches, n) together to (batch, channels, *sizes)."""
        sides = [-(-size // side) for size, side in zip(sizes, self.patch_size, strict=True)]
        parts = patches.reshape(len(patches), *sides, *self.patch_size, self.out_channels)
        video = parts.permute(0, 7, 1, 4, 2, 5, 3, 6)
        whole = video.flatten(6, 7).flatten(4, 5).flatten(2, 3)
        return whole[:, :, : sizes[0], : sizes[1], : sizes[2]]


_PIXELS = 8  # sides of a latent are an eighth of those of the video


def _number(value: Tensor | float | None, default: float) -> float:
    if value is None:
        return default
    return float(value.reshape(-1)[0]) if isinstance(value, Tensor) else value
