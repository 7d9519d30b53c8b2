"""Small random models of the real classes, one per adapter of `smoothcache_image`."""

from typing import Any

import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.models.transformers.hunyuan_transformer_2d import HunyuanDiT2DModel
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from diffusers.models.transformers.sana_transformer import SanaTransformer2DModel
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_lumina2 import Lumina2Transformer2DModel
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from kit.adapter_contract import BATCH, Case
from smoothcache_image import (
    DIT,
    FACEBOOK_DIT,
    FLUX,
    HUNYUAN_DIT,
    LUMINA2,
    PIXART,
    QWEN_IMAGE,
    SANA,
    SD3,
    Z_IMAGE,
)
from timm.layers.attention import Attention
from timm.layers.mlp import Mlp
from torch import Tensor, nn

# ---------------------------------------------------------------------------- DiT without diffusers


class DiTBlock(nn.Module):
    """A transformer block whose norms are shifted, scaled and gated by the conditioning."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.attn = Attention(width, num_heads=2, qkv_bias=True)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = Mlp(width, hidden_features=2 * width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        modulation = self.adaLN_modulation(condition)[:, None].chunk(6, dim=-1)
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation
        attended = self.attn(self.norm1(tokens) * (1 + scale_attn) + shift_attn)
        tokens = tokens + gate_attn * attended
        return tokens + gate_mlp * self.mlp(self.norm2(tokens) * (1 + scale_mlp) + shift_mlp)


class DiT(nn.Module):
    """A class-conditional denoiser with the names and the call structure of facebook's DiT.

    Written for these tests; it is not that model and shares no code with it.
    """

    def __init__(self, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(4, width, kernel_size=2, stride=2)
        self.clock = nn.Sequential(nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width))
        self.labels = nn.Embedding(11, width)
        self.blocks = nn.ModuleList(DiTBlock(width) for _ in range(depth))
        self.pixels = nn.ConvTranspose2d(width, 8, kernel_size=2, stride=2)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        grid = self.patches(x)
        tokens = grid.flatten(2).transpose(1, 2)
        angle = t.float()[:, None] / 1000
        condition = self.clock(torch.cat((angle.sin(), angle.cos()), dim=1)) + self.labels(y)
        for block in self.blocks:
            tokens = block(tokens, condition)
        return self.pixels(tokens.transpose(1, 2).reshape(grid.shape))

    def forward_with_cfg(self, x: Tensor, t: Tensor, y: Tensor, cfg_scale: float) -> Tensor:
        """Guide three of the four channels; the rows are [conditional, unconditional]."""
        rows = len(x) // 2
        output = self.forward(x[:rows].repeat(2, 1, 1, 1), t, y)
        conditional, unconditional = output[:rows, :3], output[rows:, :3]
        guided = unconditional + cfg_scale * (conditional - unconditional)
        return torch.cat((guided.repeat(2, 1, 1, 1), output[:, 3:]), dim=1)


# ---------------------------------------------------------------------------- the cases


def dit() -> DiTTransformer2DModel:
    return DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
    )


def pixart() -> PixArtTransformer2DModel:
    return PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        sample_size=8,
        cross_attention_dim=16,
        caption_channels=12,
        use_additional_conditions=False,
    )


def sd3(dual_attention_layers: tuple[int, ...] = (0,)) -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        caption_projection_dim=16,
        pooled_projection_dim=10,
        pos_embed_max_size=8,
        dual_attention_layers=dual_attention_layers,
        qk_norm="rms_norm",
    )


def flux() -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=4,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=10,
        axes_dims_rope=(4, 4, 8),
    )


def sana() -> SanaTransformer2DModel:
    return SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=12,
        sample_size=8,
    )


def hunyuan_dit() -> HunyuanDiT2DModel:
    return HunyuanDiT2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        patch_size=2,
        sample_size=8,
        hidden_size=16,
        num_layers=4,
        cross_attention_dim=16,
        cross_attention_dim_t5=8,
        pooled_projection_dim=12,
        text_len=4,
        text_len_t5=5,
        use_style_cond_and_image_meta_size=False,
    )


def lumina2() -> Lumina2Transformer2DModel:
    return Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=24,
        num_layers=2,
        num_refiner_layers=2,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(32, 16, 16),
        cap_feat_dim=12,
    )


def qwen_image() -> QwenImageTransformer2DModel:
    return QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=12,
        axes_dims_rope=(4, 4, 8),
    )


def z_image() -> ZImageTransformer2DModel:
    return ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=2,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=12,
        axes_dims=[4, 4, 8],
        axes_lens=[128, 16, 16],
    )


def text(tokens: int, channels: int) -> Tensor:
    return torch.randn(BATCH, tokens, channels)


def joint_conditions() -> dict[str, Any]:
    return {"encoder_hidden_states": text(5, 12), "pooled_projections": torch.randn(BATCH, 10)}


NOISE_TO_IMAGE = (999.0, 666.0, 333.0, 1.0)
FROM_ONE = (1.0, 0.7, 0.4, 0.1)
FROM_ZERO = (0.0, 0.3, 0.6, 0.9)
LATENT = (4, 8, 8)

CASES = (
    Case(
        adapter=DIT,
        build=dit,
        latent=LATENT,
        timesteps=NOISE_TO_IMAGE,
        conditions=lambda: {"class_labels": torch.tensor([3, 1000])},
    ),
    Case(
        adapter=FACEBOOK_DIT,
        build=DiT,
        latent=LATENT,
        timesteps=NOISE_TO_IMAGE,
        conditions=lambda: {"y": torch.tensor([3, 10])},
    ),
    Case(
        adapter=PIXART,
        build=pixart,
        latent=LATENT,
        timesteps=NOISE_TO_IMAGE,
        conditions=lambda: {
            "encoder_hidden_states": text(5, 12),
            "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
        },
    ),
    Case(
        adapter=SD3,
        build=sd3,
        latent=LATENT,
        timesteps=NOISE_TO_IMAGE,
        conditions=joint_conditions,
    ),
    Case(
        adapter=FLUX,
        build=flux,
        latent=(16, 4),
        timesteps=FROM_ONE,
        conditions=lambda: {
            **joint_conditions(),
            "img_ids": torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0)),
            "txt_ids": torch.zeros(5, 3),
        },
    ),
    Case(
        adapter=SANA,
        build=sana,
        latent=LATENT,
        timesteps=NOISE_TO_IMAGE,
        conditions=lambda: {"encoder_hidden_states": text(5, 12)},
    ),
    Case(
        adapter=HUNYUAN_DIT,
        build=hunyuan_dit,
        latent=LATENT,
        timesteps=NOISE_TO_IMAGE,
        conditions=lambda: {
            "encoder_hidden_states": text(4, 16),
            "text_embedding_mask": torch.ones(BATCH, 4),
            "encoder_hidden_states_t5": text(5, 8),
            "text_embedding_mask_t5": torch.ones(BATCH, 5),
        },
    ),
    Case(
        adapter=LUMINA2,
        build=lumina2,
        latent=LATENT,
        timesteps=FROM_ZERO,
        conditions=lambda: {
            "encoder_hidden_states": text(5, 12),
            "encoder_attention_mask": torch.ones(BATCH, 5, dtype=torch.bool),
        },
    ),
    Case(
        adapter=QWEN_IMAGE,
        build=qwen_image,
        latent=(16, 16),
        timesteps=FROM_ONE,
        conditions=lambda: {
            "encoder_hidden_states": text(5, 12),
            "encoder_hidden_states_mask": torch.ones(BATCH, 5, dtype=torch.bool),
            "img_shapes": [[(1, 4, 4)]] * BATCH,
        },
    ),
    Case(
        adapter=Z_IMAGE,
        build=z_image,
        latent=(4, 1, 8, 8),
        timesteps=FROM_ZERO,
        conditions=lambda: {"cap_feats": list(text(5, 12))},
        listed=True,
    ),
)
