"""Pipelines that make videos and sounds."""

import importlib
from typing import Any

import torch
from kit.zoo.entry import Entry, assembled, ddim, flow, of, words
from kit.zoo.pictures import LATENT, SIZE, dit_sized, kl, masked, picture, sd_words, unet

VIDEO = {"height": 16, "width": 16, "num_frames": 9}


def wan_vae() -> Any:
    return of(
        "AutoencoderKLWan",
        base_dim=3,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )


def wan_model(kind: str = "WanTransformer3DModel", **changes: Any) -> Any:
    settings = {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 16,
        "out_channels": 16,
        "text_dim": 16,
        "ffn_dim": 32,
        "num_layers": 2,
        "rope_max_seq_len": 32,
    }
    return of(kind, **(settings | changes))


def wan(name: str = "WanPipeline", **parts: Any) -> Any:
    known = {"transformer": wan_model(), "vae": wan_vae(), "scheduler": flow(shift=3.0)}
    return assembled(name, **(known | parts))


def embeds() -> dict[str, Any]:
    both = words(2, 1, 7, 16)
    return {"prompt_embeds": both[0], "negative_prompt_embeds": both[1]}


def modular_wan(blocks: str, **parts: Any) -> Any:
    """Return a modular pipeline that begins with embeddings and ends with a latent."""
    made = getattr(importlib.import_module("diffusers.modular_pipelines.wan"), blocks)()
    made.sub_blocks.pop("text_encoder")
    made.sub_blocks.pop("decode")
    pipe = made.init_pipeline()
    pipe.update_components(scheduler=flow(shift=3.0), **parts)
    return pipe


def ltx_vae() -> Any:
    return of(
        "AutoencoderKLLTXVideo",
        in_channels=3,
        out_channels=3,
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False, False, False, False, False),
        upsample_residual=(False, False, False, False),
        upsample_factor=(1, 1, 1, 1),
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )


def ltx(name: str = "LTXPipeline") -> Any:
    return assembled(
        name,
        transformer=of(
            "LTXVideoTransformer3DModel",
            **dit_sized(
                in_channels=8,
                out_channels=8,
                patch_size=1,
                patch_size_t=1,
                cross_attention_dim=16,
                caption_channels=16,
            ),
        ),
        scheduler=flow(),
        vae=ltx_vae(),
    )


def cog_vae() -> Any:
    return of(
        "AutoencoderKLCogVideoX",
        in_channels=3,
        out_channels=3,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )


def svd() -> Any:
    return assembled(
        "StableVideoDiffusionPipeline",
        unet=of(
            "UNetSpatioTemporalConditionModel",
            block_out_channels=(32, 64),
            layers_per_block=1,
            sample_size=8,
            in_channels=8,
            out_channels=4,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            cross_attention_dim=8,
            num_attention_heads=2,
            projection_class_embeddings_input_dim=12,
            addition_time_embed_dim=4,
        ),
        scheduler=of(
            "EulerDiscreteScheduler",
            prediction_type="v_prediction",
            use_karras_sigmas=True,
            timestep_spacing="leading",
            timestep_type="continuous",
            sigma_max=700.0,
            sigma_min=0.002,
        ),
        vae=of(
            "AutoencoderKLTemporalDecoder",
            block_out_channels=[32, 64],
            down_block_types=["DownEncoderBlock2D"] * 2,
            latent_channels=4,
        ),
        image_encoder=image_encoder(8),
        feature_extractor=image_processor(),
    )


VIDEOS = (
    Entry(
        name="Wan 2.1",
        build=wan,
        arguments=lambda: {**sd_words(), **VIDEO},
        output="frames",
        others=lambda: ({"num_frames": 5}, {"height": 32}),
    ),
    Entry(
        name="Wan 2.2, two transformers",
        build=lambda: wan(transformer_2=wan_model(), boundary_ratio=0.875),
        arguments=lambda: {**sd_words(), **VIDEO},
        output="frames",
        others=lambda: ({"num_frames": 5}, {"height": 32}),
    ),
    Entry(
        name="Wan 2.2 image to video, two transformers",
        build=lambda: wan(
            "WanImageToVideoPipeline",
            transformer=wan_model(in_channels=36),
            transformer_2=wan_model(in_channels=36),
            boundary_ratio=0.875,
        ),
        arguments=lambda: {**sd_words(), **VIDEO, "image": picture()},
        output="frames",
        others=lambda: ({"image": picture(seed=9)}, {"num_frames": 5}),
    ),
    Entry(
        name="Wan 2.2 TI2V",
        build=lambda: wan(expand_timesteps=True),
        arguments=lambda: {**sd_words(), **VIDEO},
        output="frames",
        others=lambda: ({"num_frames": 5}, {"height": 32}),
    ),
    Entry(
        name="WanVACE",
        build=lambda: wan(
            "WanVACEPipeline",
            transformer=wan_model(
                "WanVACETransformer3DModel", num_layers=3, vace_layers=[0, 2], vace_in_channels=96
            ),
        ),
        arguments=lambda: {**sd_words(), **VIDEO},
        output="frames",
        others=lambda: ({"num_frames": 5}, {"height": 32}),
    ),
    Entry(
        name="Wan 2.1, modular",
        build=lambda: modular_wan("WanBlocks", transformer=wan_model()),
        arguments=lambda: {**embeds(), **VIDEO},
        output="latents",
        others=lambda: ({"num_frames": 5}, {"height": 32}),
    ),
    Entry(
        name="Wan 2.2, modular",
        build=lambda: modular_wan(
            "Wan22Blocks", transformer=wan_model(), transformer_2=wan_model()
        ),
        arguments=lambda: {**embeds(), **VIDEO},
        output="latents",
        others=lambda: ({"num_frames": 5}, {"height": 32}),
    ),
    Entry(
        name="SkyReelsV2",
        build=lambda: assembled(
            "SkyReelsV2Pipeline",
            transformer=wan_model("SkyReelsV2Transformer3DModel"),
            vae=wan_vae(),
            scheduler=of(
                "UniPCMultistepScheduler",
                flow_shift=8.0,
                use_flow_sigmas=True,
                prediction_type="flow_prediction",
            ),
        ),
        arguments=lambda: {**sd_words(), **VIDEO},
        output="frames",
        others=lambda: ({"num_frames": 5}, {"height": 32}),
    ),
    Entry(
        name="CogVideoX",
        build=lambda: assembled(
            "CogVideoXPipeline",
            transformer=of(
                "CogVideoXTransformer3DModel",
                **dit_sized(
                    in_channels=4,
                    out_channels=4,
                    time_embed_dim=2,
                    text_embed_dim=16,
                    sample_width=2,
                    sample_height=2,
                    sample_frames=9,
                    patch_size=2,
                    temporal_compression_ratio=4,
                    max_text_seq_length=7,
                ),
            ),
            scheduler=ddim(),
            vae=cog_vae(),
        ),
        arguments=lambda: {**sd_words(), **VIDEO, "num_frames": 8},
        output="frames",
        others=lambda: ({"num_frames": 9}, {"height": 32, "width": 32}),
    ),
    Entry(
        name="LTX",
        build=ltx,
        arguments=lambda: {
            **masked((1, 6, 16)),
            **LATENT,
            "height": 32,
            "width": 32,
            "num_frames": 9,
        },
        output="frames",
        others=lambda: ({"num_frames": 5}, {"height": 64}),
    ),
    Entry(
        name="LTX image to video",
        build=lambda: ltx("LTXImageToVideoPipeline"),
        arguments=lambda: {
            **masked((1, 6, 16)),
            **LATENT,
            "height": 32,
            "width": 32,
            "num_frames": 9,
            "image": picture(32),
        },
        output="frames",
        others=lambda: ({"image": picture(32, seed=9)}, {"num_frames": 5}),
    ),
    Entry(
        name="HunyuanVideo",
        build=lambda: assembled(
            "HunyuanVideoPipeline",
            transformer=of(
                "HunyuanVideoTransformer3DModel",
                in_channels=4,
                out_channels=4,
                num_attention_heads=2,
                attention_head_dim=10,
                num_layers=2,
                num_single_layers=2,
                num_refiner_layers=1,
                patch_size=1,
                patch_size_t=1,
                guidance_embeds=True,
                text_embed_dim=16,
                pooled_projection_dim=8,
                rope_axes_dim=(2, 4, 4),
            ),
            scheduler=flow(shift=7.0),
        ),
        arguments=lambda: {
            "prompt_embeds": words(1, 6, 16),
            "pooled_prompt_embeds": words(1, 8, seed=3),
            "prompt_attention_mask": torch.ones(1, 6),
            **LATENT,
            **VIDEO,
        },
        output="frames",
        others=lambda: ({"num_frames": 5}, {"height": 32}),
    ),
    Entry(
        name="Mochi",
        build=lambda: assembled(
            "MochiPipeline",
            transformer=of(
                "MochiTransformer3DModel",
                patch_size=2,
                num_attention_heads=2,
                attention_head_dim=8,
                num_layers=3,
                pooled_projection_dim=16,
                in_channels=12,
                text_embed_dim=16,
                time_embed_dim=4,
                max_sequence_length=16,
            ),
            scheduler=flow(),
        ),
        arguments=lambda: {
            "prompt_embeds": words(1, 6, 16),
            "negative_prompt_embeds": words(1, 6, 16, seed=4),
            "prompt_attention_mask": torch.ones(1, 6, dtype=torch.bool),
            "negative_prompt_attention_mask": torch.ones(1, 6, dtype=torch.bool),
            "height": 16,
            "width": 16,
            "num_frames": 7,
            **LATENT,
        },
        output="frames",
        others=lambda: ({"num_frames": 13}, {"height": 32}),
    ),
    Entry(
        name="Latte",
        build=lambda: assembled(
            "LattePipeline",
            transformer=of(
                "LatteTransformer3DModel",
                **dit_sized(
                    sample_size=8,
                    patch_size=2,
                    caption_channels=16,
                    in_channels=4,
                    cross_attention_dim=16,
                    out_channels=8,
                    attention_bias=True,
                    activation_fn="gelu-approximate",
                    num_embeds_ada_norm=1000,
                    norm_type="ada_norm_single",
                    norm_elementwise_affine=False,
                    norm_eps=1e-06,
                    video_length=4,
                ),
            ),
            scheduler=ddim(),
            vae=kl(),
        ),
        arguments=lambda: {**sd_words(), **SIZE, "video_length": 4, "negative_prompt": None},
        output="frames",
        others=lambda: ({"height": 32, "width": 32},),
    ),
    Entry(
        name="AnimateDiff",
        build=lambda: assembled(
            "AnimateDiffPipeline",
            unet=unet(),
            motion_adapter=of(
                "MotionAdapter",
                block_out_channels=(4, 8),
                motion_layers_per_block=1,
                motion_norm_num_groups=2,
                motion_num_attention_heads=2,
            ),
            scheduler=ddim(),
            vae=kl(),
        ),
        arguments=lambda: {**sd_words(), **SIZE, "num_frames": 3},
        output="frames",
        others=lambda: ({"num_frames": 2}, {"height": 32}),
    ),
    Entry(
        name="StableVideoDiffusion",
        build=svd,
        arguments=lambda: {"image": picture(), **SIZE, "num_frames": 2, **LATENT},
        output="frames",
    ),
    Entry(
        name="StableVideoDiffusion, one strength for all frames",
        build=svd,
        arguments=lambda: {
            "image": picture(),
            **SIZE,
            "num_frames": 2,
            **LATENT,
            "min_guidance_scale": 2.5,
            "max_guidance_scale": 2.5,
        },
        output="frames",
    ),
)


def image_encoder(width: int) -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=width,
            projection_dim=width,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=16,
            intermediate_size=16,
            patch_size=8,
        )
    )


def image_processor() -> Any:
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(crop_size=16, size=16)


SOUNDS = (
    Entry(
        name="StableAudio",
        build=lambda: assembled(
            "StableAudioPipeline",
            transformer=of(
                "StableAudioDiTModel",
                sample_size=16,
                in_channels=4,
                num_layers=2,
                attention_head_dim=4,
                num_attention_heads=2,
                num_key_value_attention_heads=2,
                out_channels=4,
                cross_attention_dim=8,
                time_proj_dim=8,
                global_states_input_dim=16,
                cross_attention_input_dim=8,
            ),
            scheduler=of("EDMDPMSolverMultistepScheduler", solver_order=2, sigma_max=80.0),
            vae=of(
                "AutoencoderOobleck",
                encoder_hidden_size=6,
                downsampling_ratios=[1, 2],
                decoder_channels=4,
                decoder_input_channels=4,
                audio_channels=2,
                channel_multiples=[2, 4],
                sampling_rate=4,
            ),
            projection_model=of(
                "StableAudioProjectionModel",
                text_encoder_dim=8,
                conditioning_dim=8,
                min_value=0,
                max_value=32,
            ),
        ),
        arguments=lambda: {
            "prompt_embeds": words(1, 5, 8),
            "negative_prompt_embeds": words(1, 5, 8, seed=4),
            "attention_mask": torch.ones(1, 5),
            "negative_attention_mask": torch.ones(1, 5),
            "audio_end_in_s": 4.0,
            **LATENT,
        },
        output="audios",
    ),
)
