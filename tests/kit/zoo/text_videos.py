"""Pipelines that make videos of a text alone, each with the guidance that it has."""

from typing import Any

import torch
from kit.zoo.entry import Entry, assembled, ddim, flow, of, words
from kit.zoo.pictures import LATENT, masked, sd_words
from kit.zoo.videos import VIDEO, wan_model, wan_vae

UNANNOUNCED = ("cond", "uncond")


def hunyuan_model(kind: str = "HunyuanVideoTransformer3DModel", **changes: Any) -> Any:
    settings = {
        "in_channels": 4,
        "out_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 10,
        "num_layers": 2,
        "num_single_layers": 2,
        "num_refiner_layers": 1,
        "patch_size": 1,
        "patch_size_t": 1,
        "guidance_embeds": False,
        "text_embed_dim": 16,
        "pooled_projection_dim": 8,
        "rope_axes_dim": (2, 4, 4),
    }
    return of(kind, **(settings | changes))


def hunyuan_vae(channels: int = 4, **changes: Any) -> Any:
    blocks = len(changes.get("block_out_channels", (8, 8, 8, 8)))
    settings = {
        "latent_channels": channels,
        "down_block_types": ("HunyuanVideoDownBlock3D",) * blocks,
        "up_block_types": ("HunyuanVideoUpBlock3D",) * blocks,
        "block_out_channels": (8, 8, 8, 8),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "spatial_compression_ratio": 8,
        "temporal_compression_ratio": 4,
        "mid_block_add_attention": False,
    }
    return of("AutoencoderKLHunyuanVideo", **(settings | changes))


def hunyuan_words(*, negative: bool = True) -> dict[str, Any]:
    given = {
        "prompt_embeds": words(1, 6, 16),
        "pooled_prompt_embeds": words(1, 8, seed=3),
        "prompt_attention_mask": torch.ones(1, 6),
    }
    if not negative:
        return given
    return given | {
        "negative_prompt_embeds": words(1, 6, 16, seed=4),
        "negative_pooled_prompt_embeds": words(1, 8, seed=5),
        "negative_prompt_attention_mask": torch.ones(1, 6),
        "true_cfg_scale": 4.0,
        "guidance_scale": 1.0,
    }


def hunyuan15(name: str = "HunyuanVideo15Pipeline", *, task: str = "t2v", **parts: Any) -> Any:
    from diffusers.guiders.classifier_free_guidance import ClassifierFreeGuidance
    from diffusers.models.transformers.transformer_hunyuan_video15 import (
        HunyuanVideo15ByT5TextProjection,
    )

    known = {
        "transformer": of(
            "HunyuanVideo15Transformer3DModel",
            in_channels=9,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            num_refiner_layers=1,
            text_embed_dim=16,
            text_embed_2_dim=8,
            image_embed_dim=12,
            rope_axes_dim=(2, 2, 4),
            target_size=16,
            task_type=task,
        ),
        "vae": of(
            "AutoencoderKLHunyuanVideo15",
            latent_channels=4,
            block_out_channels=(8, 8),
            layers_per_block=1,
            spatial_compression_ratio=4,
            temporal_compression_ratio=2,
            downsample_match_channel=False,
            upsample_match_channel=False,
        ),
        "scheduler": flow(shift=7.0),
        "guider": ClassifierFreeGuidance(guidance_scale=4.0),
    }
    # of the real width it would do nine tenths of a tiny model's work
    projection = HunyuanVideo15ByT5TextProjection(8, 16, 16)
    known["transformer"].context_embedder_2 = projection
    return assembled(name, **(known | parts))


def hunyuan15_words() -> dict[str, Any]:
    named = {
        "prompt_embeds": words(1, 6, 16),
        "prompt_embeds_2": words(1, 4, 8, seed=3),
        "negative_prompt_embeds": words(1, 6, 16, seed=4),
        "negative_prompt_embeds_2": words(1, 4, 8, seed=5),
    }
    masks = {
        name.replace("embeds", "embeds_mask"): torch.ones(each.shape[:2])
        for name, each in named.items()
    }
    return {**named, **masks, **LATENT}


def allegro() -> Any:
    return assembled(
        "AllegroPipeline",
        transformer=of(
            "AllegroTransformer3DModel",
            num_attention_heads=2,
            attention_head_dim=12,
            num_layers=2,
            cross_attention_dim=24,
            sample_width=8,
            sample_height=8,
            sample_frames=2,
            caption_channels=16,
            interpolation_scale_h=1.0,
            interpolation_scale_t=1.0,
            interpolation_scale_w=1.0,
        ),
        vae=of(
            "AutoencoderKLAllegro",
            down_block_types=("AllegroDownBlock3D",) * 4,
            up_block_types=("AllegroUpBlock3D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
            temporal_compression_ratio=4,
        ),
        scheduler=ddim(),
    )


def easy_animate(name: str = "EasyAnimatePipeline", **changes: Any) -> Any:
    return assembled(
        name,
        transformer=of(
            "EasyAnimateTransformer3DModel",
            **{
                "num_attention_heads": 2,
                "attention_head_dim": 16,
                "in_channels": 4,
                "out_channels": 4,
                "time_embed_dim": 4,
                "text_embed_dim": 16,
                "num_layers": 2,
                "mmdit_layers": 2,
                "sample_width": 16,
                "sample_height": 16,
                "patch_size": 2,
                "time_position_encoding_type": "3d_rope",
                **changes,
            },
        ),
        vae=magvit(),
        scheduler=flow(),
    )


def magvit() -> Any:
    return of(
        "AutoencoderKLMagvit",
        down_block_types=("SpatialDownBlock3D",) + ("SpatialTemporalDownBlock3D",) * 3,
        up_block_types=("SpatialUpBlock3D",) + ("SpatialTemporalUpBlock3D",) * 3,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        spatial_group_norm=False,
    )


class Unguarded(torch.nn.Module):
    """Stands for the guardrail of Cosmos, which is far too large."""

    device = torch.device("cpu")
    dtype = torch.float32

    def check_text_safety(self, text: str) -> bool:
        return bool(text)

    def check_video_safety(self, frames: Any) -> Any:
        return frames


def cosmos_model(channels: int = 4, condition: int = 0, **changes: Any) -> Any:
    settings = {
        "in_channels": channels + condition,
        "out_channels": channels,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_layers": 2,
        "mlp_ratio": 2,
        "text_embed_dim": 16,
        "adaln_lora_dim": 4,
        "max_size": (4, 32, 32),
        "patch_size": (1, 2, 2),
        "rope_scale": (2.0, 1.0, 1.0),
        "concat_padding_mask": True,
        "extra_pos_embed_type": "learnable",
    }
    return of("CosmosTransformer3DModel", **(settings | changes))


def cosmos(name: str = "CosmosTextToWorldPipeline", **parts: Any) -> Any:
    known = {
        "transformer": cosmos_model(),
        "vae": of(
            "AutoencoderKLCosmos",
            latent_channels=4,
            encoder_block_out_channels=(8, 8, 8, 8),
            decode_block_out_channels=(8, 8, 8, 8),
            attention_resolutions=(8,),
            resolution=64,
            num_layers=1,
            patch_size=4,
            patch_type="haar",
            scaling_factor=1.0,
            spatial_compression_ratio=4,
            temporal_compression_ratio=4,
        ),
        "scheduler": of(
            "EDMEulerScheduler",
            sigma_min=0.002,
            sigma_max=80,
            sigma_data=0.5,
            sigma_schedule="karras",
            prediction_type="epsilon",
            rho=7.0,
            final_sigmas_type="sigma_min",
        ),
        "safety_checker": Unguarded(),
    }
    return assembled(name, **(known | parts))


def cosmos2(name: str, scheduler: Any) -> Any:
    model = cosmos_model(16, 1)
    return cosmos(name, transformer=model, vae=wan_vae(), scheduler=scheduler)


def unipc(**settings: Any) -> Any:
    return of(
        "UniPCMultistepScheduler",
        **({"use_flow_sigmas": True, "prediction_type": "flow_prediction"} | settings),
    )


def kandinsky5(name: str = "Kandinsky5T2VPipeline", *, image: bool = False) -> Any:
    return assembled(
        name,
        transformer=of(
            "Kandinsky5Transformer3DModel",
            in_visual_dim=16,
            in_text_dim=16,
            in_text_dim2=8,
            time_dim=16,
            out_visual_dim=16,
            patch_size=(1, 2, 2),
            model_dim=16,
            ff_dim=32,
            num_text_blocks=1,
            num_visual_blocks=2,
            axes_dims=(4, 2, 2),
            visual_cond=image,
            attention_type="regular",
        ),
        vae=hunyuan_vae(16, block_out_channels=(8, 8, 8)),
        scheduler=flow(shift=7.0),
    )


def kandinsky_words() -> dict[str, Any]:
    seqlens = torch.tensor([0, 6], dtype=torch.int32)
    return {
        "prompt_embeds_qwen": words(1, 6, 16),
        "prompt_embeds_clip": words(1, 8, seed=3),
        "prompt_cu_seqlens": seqlens,
        "negative_prompt_embeds_qwen": words(1, 6, 16, seed=4),
        "negative_prompt_embeds_clip": words(1, 8, seed=5),
        "negative_prompt_cu_seqlens": seqlens,
        **LATENT,
    }


def sana_video(name: str = "SanaVideoPipeline") -> Any:
    return assembled(
        name,
        transformer=of(
            "SanaVideoTransformer3DModel",
            in_channels=16,
            out_channels=16,
            num_attention_heads=2,
            attention_head_dim=12,
            num_layers=2,
            num_cross_attention_heads=2,
            cross_attention_head_dim=12,
            cross_attention_dim=24,
            caption_channels=16,
            sample_size=8,
            patch_size=(1, 2, 2),
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=32,
        ),
        vae=wan_vae(),
        scheduler=flow(),
    )


def skyreels(name: str, scheduler: Any = None, *, parts: Any = None, **changes: Any) -> Any:
    return assembled(
        name,
        **(parts or {}),
        transformer=wan_model("SkyReelsV2Transformer3DModel", **changes),
        vae=wan_vae(),
        scheduler=scheduler or unipc(flow_shift=8.0),
    )


ENTRIES = (
    Entry(
        name="SkyReelsV2, diffusion forcing",
        build=lambda: skyreels("SkyReelsV2DiffusionForcingPipeline"),
        arguments=lambda: {**sd_words(), **VIDEO, "prompt": None},
        output="frames",
        others=lambda: ({"num_frames": 5}, {"height": 32}),
    ),
    Entry(
        name="SkyReelsV2, diffusion forcing, frames one after the other",
        build=lambda: skyreels("SkyReelsV2DiffusionForcingPipeline"),
        arguments=lambda: {
            **sd_words(),
            **VIDEO,
            "prompt": None,
            "ar_step": 2,
            "causal_block_size": 1,
        },
        output="frames",
        others=lambda: ({"height": 32},),
    ),
    Entry(
        name="HunyuanVideo, true CFG",
        build=lambda: assembled(
            "HunyuanVideoPipeline", transformer=hunyuan_model(), scheduler=flow(shift=7.0)
        ),
        arguments=lambda: {**hunyuan_words(), **LATENT, **VIDEO},
        output="frames",
        others=lambda: ({"num_frames": 5}, {"height": 32}),
    ),
    Entry(
        name="HunyuanVideo 1.5",
        build=hunyuan15,
        arguments=lambda: {**hunyuan15_words(), **VIDEO},
        output="frames",
        others=lambda: ({"num_frames": 5}, {"height": 32}),
    ),
    Entry(
        name="Allegro",
        build=allegro,
        arguments=lambda: {
            **masked((1, 6, 16)),
            **LATENT,
            "negative_prompt": None,
            "height": 16,
            "width": 16,
            "num_frames": 8,
        },
        output="frames",
        others=lambda: ({"num_frames": 12}, {"height": 32}),
    ),
    Entry(
        name="EasyAnimate",
        build=easy_animate,
        arguments=lambda: {
            **masked((1, 6, 16)),
            **LATENT,
            "height": 16,
            "width": 16,
            "num_frames": 5,
        },
        output="frames",
        others=lambda: ({"num_frames": 9}, {"height": 32}),
    ),
    Entry(
        name="Cosmos 1",
        build=cosmos,
        arguments=lambda: {**sd_words(), "height": 32, "width": 32, "num_frames": 9},
        output="frames",
        others=lambda: ({"num_frames": 5}, {"height": 64}),
        passes=UNANNOUNCED,
    ),
    Entry(
        name="Cosmos Predict 2.5",
        build=lambda: cosmos2("Cosmos2_5_PredictBasePipeline", unipc(flow_shift=5.0)),
        arguments=lambda: {**sd_words(), "height": 32, "width": 32, "num_frames": 9},
        output="frames",
        others=lambda: ({"num_frames": 5}, {"height": 64}),
        passes=UNANNOUNCED,
    ),
    Entry(
        name="Kandinsky 5",
        build=kandinsky5,
        arguments=lambda: {**kandinsky_words(), "height": 32, "width": 32, "num_frames": 5},
        output="frames",
        others=lambda: ({"num_frames": 9}, {"height": 64}),
        passes=UNANNOUNCED,
    ),
    Entry(
        name="SanaVideo",
        build=sana_video,
        arguments=lambda: {
            **masked((1, 6, 16)),
            **LATENT,
            "height": 32,
            "width": 32,
            "frames": 9,
            "use_resolution_binning": False,
            "negative_prompt": None,
        },
        output="frames",
        others=lambda: ({"frames": 5}, {"height": 64}),
    ),
)
