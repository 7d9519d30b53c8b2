"""Small random models of the real classes, one per adapter of `smoothcache_video`."""

from typing import Any

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.models.transformers.latte_transformer_3d import LatteTransformer3DModel
from diffusers.models.transformers.transformer_allegro import AllegroTransformer3DModel
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from diffusers.models.transformers.transformer_easyanimate import EasyAnimateTransformer3DModel
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from diffusers.models.transformers.transformer_hunyuan_video15 import (
    HunyuanVideo15Transformer3DModel,
)
from diffusers.models.transformers.transformer_kandinsky import Kandinsky5Transformer3DModel
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from diffusers.models.transformers.transformer_mochi import MochiTransformer3DModel
from diffusers.models.transformers.transformer_sana_video import SanaVideoTransformer3DModel
from diffusers.models.transformers.transformer_skyreels_v2 import SkyReelsV2Transformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from kit.adapter_contract import BATCH, Case
from kit.open_sora_upstream import MMDiTModel
from smoothcache_video import (
    ALLEGRO,
    COGVIDEOX,
    COSMOS,
    EASY_ANIMATE,
    HUNYUAN_VIDEO,
    HUNYUAN_VIDEO15,
    KANDINSKY5,
    LATTE,
    LTX2,
    LTX_VIDEO,
    MOCHI,
    OPEN_SORA,
    OPEN_SORA2,
    SANA_VIDEO,
    SKYREELS_V2,
    WAN,
)
from smoothcache_video.open_sora import STDiT3
from torch import Tensor

FRAMES, SIDE, WORDS = 2, 8, 5
LATENT = (4, FRAMES, SIDE, SIDE)
NOISE_TO_VIDEO = (999.0, 666.0, 333.0, 1.0)


def text(channels: int, words: int = WORDS) -> Tensor:
    return torch.randn(BATCH, words, channels)


def open_sora() -> STDiT3:
    return STDiT3(hidden_size=16, depth=2, num_heads=2, caption_channels=12, model_max_length=WORDS)


WAN_SIZE: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 12,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 32,
}


def wan() -> WanTransformer3DModel:
    return WanTransformer3DModel(**WAN_SIZE)


def skyreels_v2() -> SkyReelsV2Transformer3DModel:
    return SkyReelsV2Transformer3DModel(**WAN_SIZE)


def hunyuan_video() -> HunyuanVideoTransformer3DModel:
    return HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        guidance_embeds=False,
        text_embed_dim=12,
        pooled_projection_dim=10,
        rope_axes_dim=(2, 4, 4),
    )


def hunyuan_video15() -> HunyuanVideo15Transformer3DModel:
    return HunyuanVideo15Transformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_refiner_layers=1,
        text_embed_dim=12,
        text_embed_2_dim=8,
        image_embed_dim=12,
        rope_axes_dim=(2, 2, 4),
        target_size=16,
        task_type="t2v",
    )


def ltx_video() -> LTXVideoTransformer3DModel:
    return LTXVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=2,
        caption_channels=12,
    )


LTX2_SIZE: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 16,
    "audio_in_channels": 4,
    "audio_out_channels": 4,
    "audio_num_attention_heads": 2,
    "audio_attention_head_dim": 4,
    "audio_cross_attention_dim": 8,
    "num_layers": 2,
    "caption_channels": 12,
    "rope_double_precision": False,
    "rope_type": "split",
}


def ltx2() -> LTX2VideoTransformer3DModel:
    return LTX2VideoTransformer3DModel(**LTX2_SIZE)


def cogvideox() -> CogVideoXTransformer3DModel:
    return CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        time_embed_dim=4,
        text_embed_dim=12,
        num_layers=2,
        sample_width=SIDE,
        sample_height=SIDE,
        sample_frames=5,
        max_text_seq_length=WORDS,
    )


def mochi() -> MochiTransformer3DModel:
    return MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=4,
        text_embed_dim=16,  # its pooling has eight heads
        time_embed_dim=4,
        max_sequence_length=WORDS,
    )


def latte() -> LatteTransformer3DModel:
    return LatteTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=16,
        attention_bias=True,
        sample_size=SIDE,
        patch_size=2,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        caption_channels=12,
        video_length=FRAMES,
    )


def allegro() -> AllegroTransformer3DModel:
    return AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        cross_attention_dim=24,
        sample_height=SIDE,
        sample_width=SIDE,
        sample_frames=FRAMES,
        caption_channels=12,
    )


def easy_animate() -> EasyAnimateTransformer3DModel:
    return EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        patch_size=2,
        sample_width=SIDE,
        sample_height=SIDE,
        num_layers=2,
        mmdit_layers=2,  # in others the feed-forward is called twice
        time_embed_dim=4,
        text_embed_dim=12,
        time_position_encoding_type="3d_rope",
    )


def cosmos() -> CosmosTransformer3DModel:
    return CosmosTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        text_embed_dim=12,
        adaln_lora_dim=4,
        max_size=(4, 32, 32),
        concat_padding_mask=False,
    )


def kandinsky5() -> Kandinsky5Transformer3DModel:
    return Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        in_text_dim=12,
        in_text_dim2=10,
        time_dim=16,
        out_visual_dim=4,
        model_dim=24,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=2,
        axes_dims=(4, 4, 4),
    )


def sana_video() -> SanaVideoTransformer3DModel:
    return SanaVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=12,
        sample_size=SIDE,
        rope_max_seq_len=32,
    )


def words_of(channels: int = 12) -> dict[str, Any]:
    return {"encoder_hidden_states": text(channels)}


def masked_words(channels: int = 12) -> dict[str, Any]:
    return words_of(channels) | {"encoder_attention_mask": torch.ones(BATCH, WORDS)}


CASES = (
    Case(
        adapter=OPEN_SORA,
        build=open_sora,
        latent=LATENT,
        timesteps=NOISE_TO_VIDEO,
        conditions=lambda: {"y": text(12)[:, None], "fps": 8.0},
    ),
    Case(
        adapter=OPEN_SORA2,
        build=MMDiTModel,
        latent=(12, 16),
        timesteps=(1.0, 0.67, 0.33, 0.01),
        conditions=lambda: {
            "img_ids": torch.zeros(BATCH, 12, 3),
            "txt": text(12),
            "txt_ids": torch.zeros(BATCH, WORDS, 3),
            "y_vec": torch.randn(BATCH, 10),
            "cond": torch.randn(BATCH, 12, 20),
        },
    ),
    Case(adapter=WAN, build=wan, latent=LATENT, timesteps=NOISE_TO_VIDEO, conditions=words_of),
    Case(
        adapter=SKYREELS_V2,
        build=skyreels_v2,
        latent=LATENT,
        timesteps=NOISE_TO_VIDEO,
        conditions=words_of,
    ),
    Case(
        adapter=HUNYUAN_VIDEO,
        build=hunyuan_video,
        latent=LATENT,
        timesteps=NOISE_TO_VIDEO,
        conditions=lambda: masked_words() | {"pooled_projections": torch.randn(BATCH, 10)},
    ),
    Case(
        adapter=HUNYUAN_VIDEO15,
        build=hunyuan_video15,
        latent=LATENT,
        timesteps=NOISE_TO_VIDEO,
        conditions=lambda: (
            masked_words()
            | {
                "encoder_hidden_states_2": text(8, 4),
                "encoder_attention_mask_2": torch.ones(BATCH, 4),
                "image_embeds": torch.zeros(BATCH, 3, 12),
            }
        ),
    ),
    Case(
        adapter=LTX_VIDEO,
        build=ltx_video,
        latent=(FRAMES * 16, 4),
        timesteps=NOISE_TO_VIDEO,
        conditions=lambda: masked_words() | {"num_frames": FRAMES, "height": 4, "width": 4},
    ),
    Case(
        adapter=LTX2,
        build=ltx2,
        latent=(FRAMES * 16, 4),
        further=((6, 4),),
        timesteps=NOISE_TO_VIDEO,
        conditions=lambda: (
            masked_words()
            | {
                "audio_encoder_hidden_states": text(12),
                "audio_encoder_attention_mask": torch.ones(BATCH, WORDS),
                "num_frames": FRAMES,
                "height": 4,
                "width": 4,
                "audio_num_frames": 6,
                "return_dict": False,
            }
        ),
    ),
    Case(
        adapter=COGVIDEOX,
        build=cogvideox,
        latent=(FRAMES, 4, SIDE, SIDE),
        timesteps=NOISE_TO_VIDEO,
        conditions=words_of,
    ),
    Case(
        adapter=MOCHI,
        build=mochi,
        latent=LATENT,
        timesteps=NOISE_TO_VIDEO,
        conditions=lambda: (
            words_of(16) | {"encoder_attention_mask": torch.ones(BATCH, WORDS, dtype=torch.bool)}
        ),
    ),
    Case(adapter=LATTE, build=latte, latent=LATENT, timesteps=NOISE_TO_VIDEO, conditions=words_of),
    Case(
        adapter=ALLEGRO,
        build=allegro,
        latent=LATENT,
        timesteps=NOISE_TO_VIDEO,
        conditions=masked_words,
    ),
    Case(
        adapter=EASY_ANIMATE,
        build=easy_animate,
        latent=LATENT,
        timesteps=NOISE_TO_VIDEO,
        conditions=words_of,
    ),
    Case(
        adapter=COSMOS, build=cosmos, latent=LATENT, timesteps=NOISE_TO_VIDEO, conditions=words_of
    ),
    Case(
        adapter=KANDINSKY5,
        build=kandinsky5,
        latent=(FRAMES, SIDE, SIDE, 4),
        timesteps=NOISE_TO_VIDEO,
        conditions=lambda: (
            words_of()
            | {
                "pooled_projections": torch.randn(BATCH, 10),
                "visual_rope_pos": [torch.arange(FRAMES), torch.arange(4), torch.arange(4)],
                "text_rope_pos": torch.arange(WORDS),
            }
        ),
    ),
    Case(
        adapter=SANA_VIDEO,
        build=sana_video,
        latent=LATENT,
        timesteps=NOISE_TO_VIDEO,
        conditions=words_of,
    ),
)
