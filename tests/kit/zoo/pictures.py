"""Pipelines that make pictures."""

from typing import Any

import torch
from kit.zoo.entry import Entry, assembled, ddim, flow, of, words

LATENT = {"output_type": "latent"}


# ---------------------------------------------------------------------------- Stable Diffusion


def unet(**changes: Any) -> Any:
    settings = {
        "block_out_channels": (4, 8),
        "layers_per_block": 1,
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 16,
        "norm_num_groups": 2,
        "attention_head_dim": 2,
    }
    return of("UNet2DConditionModel", **(settings | changes))


def kl(channels: int = 4, **changes: Any) -> Any:
    settings = {
        "block_out_channels": [4, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "latent_channels": channels,
        "norm_num_groups": 2,
        "sample_size": 16,
    }
    return of("AutoencoderKL", **(settings | changes))


def sd_controlnet() -> Any:
    return of(
        "ControlNetModel",
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        cross_attention_dim=16,
        conditioning_embedding_out_channels=(4, 8),
        norm_num_groups=2,
        attention_head_dim=2,
    )


def sd(name: str = "StableDiffusionPipeline", **parts: Any) -> Any:
    known = {"unet": unet(), "scheduler": ddim(), "vae": kl(), "requires_safety_checker": False}
    return assembled(name, **(known | parts))


def sd_words() -> dict[str, Any]:
    embeds = words(2, 1, 7, 16)
    return {"prompt_embeds": embeds[0], "negative_prompt_embeds": embeds[1], **LATENT}


def picture(size: int = 16, channels: int = 3, *, seed: int = 2) -> Any:
    return torch.rand(1, channels, size, size, generator=torch.Generator().manual_seed(seed))


XL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + 8,
    "transformer_layers_per_block": (1, 1),
}


def xl(name: str = "StableDiffusionXLPipeline", **parts: Any) -> Any:
    known = {"unet": unet(**XL), "scheduler": of("EulerDiscreteScheduler"), "vae": kl()}
    return assembled(name, **(known | parts), add_watermarker=False)


def pooled(width: int) -> dict[str, Any]:
    both = words(2, 1, width, seed=3)
    return {"pooled_prompt_embeds": both[0], "negative_pooled_prompt_embeds": both[1]}


SIZE = {"height": 16, "width": 16}
LARGE = {"height": 32, "width": 32}

STABLE_DIFFUSION = (
    Entry(name="StableDiffusion", build=sd, arguments=lambda: {**sd_words(), **SIZE}),
    Entry(
        name="StableDiffusion, guidance off",
        build=sd,
        arguments=lambda: {**sd_words(), **SIZE, "guidance_scale": 1.0},
    ),
    Entry(
        name="StableDiffusionImg2Img",
        build=lambda: sd("StableDiffusionImg2ImgPipeline"),
        arguments=lambda: {**sd_words(), "image": picture(), "strength": 0.8},
    ),
    Entry(
        name="StableDiffusionInpaint",
        build=lambda: sd("StableDiffusionInpaintPipeline"),
        arguments=lambda: {
            **sd_words(),
            **SIZE,
            "image": picture(),
            "mask_image": picture(16, 1),
            "strength": 1.0,
        },
    ),
    Entry(
        name="StableDiffusionInpaint, 9 channels",
        build=lambda: sd("StableDiffusionInpaintPipeline", unet=unet(in_channels=9)),
        arguments=lambda: {
            **sd_words(),
            **SIZE,
            "image": picture(),
            "mask_image": picture(16, 1),
            "strength": 1.0,
        },
    ),
    Entry(
        name="StableDiffusionControlNet",
        build=lambda: sd("StableDiffusionControlNetPipeline", controlnet=sd_controlnet()),
        arguments=lambda: {**sd_words(), "image": picture()},
    ),
    Entry(
        name="StableDiffusionControlNet, guess mode",
        build=lambda: sd("StableDiffusionControlNetPipeline", controlnet=sd_controlnet()),
        arguments=lambda: {**sd_words(), "image": picture(), "guess_mode": True},
    ),
    Entry(
        name="StableDiffusionControlNetImg2Img",
        build=lambda: sd("StableDiffusionControlNetImg2ImgPipeline", controlnet=sd_controlnet()),
        arguments=lambda: {
            **sd_words(),
            "image": picture(),
            "control_image": picture(),
            "strength": 0.9,
        },
    ),
    Entry(
        name="StableDiffusionPAG",
        build=lambda: sd("StableDiffusionPAGPipeline", pag_applied_layers=["mid"]),
        arguments=lambda: {**sd_words(), **SIZE, "pag_scale": 2.0},
    ),
    Entry(
        name="LatentConsistencyModel",
        build=lambda: sd(
            "LatentConsistencyModelPipeline",
            unet=unet(time_cond_proj_dim=16),
            scheduler=of("LCMScheduler"),
        ),
        arguments=lambda: {"prompt_embeds": words(1, 7, 16), **LATENT, **SIZE},
    ),
    Entry(
        name="StableDiffusionXL",
        build=xl,
        arguments=lambda: {**sd_words(), **pooled(8), **SIZE},
    ),
    Entry(
        name="StableDiffusionXLImg2Img",
        build=lambda: xl("StableDiffusionXLImg2ImgPipeline"),
        arguments=lambda: {**sd_words(), **pooled(8), "image": picture(), "strength": 0.8},
    ),
    Entry(
        name="IF",
        build=lambda: assembled(
            "IFPipeline",
            unet=unet(in_channels=3, out_channels=6, encoder_hid_dim=16),
            scheduler=of("DDPMScheduler", variance_type="learned_range"),
            requires_safety_checker=False,
        ),
        arguments=lambda: {**sd_words(), "output_type": "pt", "height": 8, "width": 8},
    ),
    Entry(
        name="DDIM, unconditional",
        build=lambda: assembled(
            "DDIMPipeline",
            unet=of(
                "UNet2DModel",
                block_out_channels=(4, 8),
                layers_per_block=1,
                sample_size=8,
                norm_num_groups=2,
                attention_head_dim=2,
                down_block_types=("DownBlock2D", "AttnDownBlock2D"),
                up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            ),
            scheduler=of("DDIMScheduler"),
        ),
        arguments=lambda: {"output_type": "np"},
    ),
)


# ---------------------------------------------------------------------------- transformers


def dit_sized(**changes: Any) -> dict[str, Any]:
    return {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2} | changes


def sd3(name: str = "StableDiffusion3Pipeline", **parts: Any) -> Any:
    return assembled(
        name,
        **({"transformer": sd3_model(), "scheduler": flow(), "vae": kl(shift_factor=0.1)} | parts),
    )


def sd3_model(kind: str = "SD3Transformer2DModel", **changes: Any) -> Any:
    settings = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "joint_attention_dim": 16,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 8,
        "pos_embed_max_size": 16,
    }
    return of(kind, **dit_sized(**(settings | changes)))


def flux_model(kind: str = "FluxTransformer2DModel", **changes: Any) -> Any:
    settings = {
        "in_channels": 16,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 16,
        "pooled_projection_dim": 8,
        "axes_dims_rope": (4, 4, 8),
    }
    return of(kind, **(settings | changes))


def flux(name: str = "FluxPipeline", **parts: Any) -> Any:
    known = {"transformer": flux_model(), "scheduler": flow(), "vae": kl(shift_factor=0.1)}
    return assembled(name, **(known | parts))


def flux_words() -> dict[str, Any]:
    return {
        "prompt_embeds": words(1, 6, 16), "pooled_prompt_embeds": words(1, 8, seed=3),
        **LATENT, **LARGE,
    }  # fmt: skip


def true_cfg() -> dict[str, Any]:
    return {
        "negative_prompt_embeds": words(1, 6, 16, seed=4),
        "negative_pooled_prompt_embeds": words(1, 8, seed=5),
        "true_cfg_scale": 3.0,
    }


def masked(shape: tuple[int, ...], *, dtype: torch.dtype = torch.long) -> dict[str, Any]:
    both = words(2, *shape)
    mask = torch.ones(shape[:2], dtype=dtype)
    return {
        "prompt_embeds": both[0], "prompt_attention_mask": mask,
        "negative_prompt_embeds": both[1], "negative_prompt_attention_mask": mask,
    }  # fmt: skip


def qwen_model(kind: str = "QwenImageTransformer2DModel", **changes: Any) -> Any:
    settings = {
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 16,
        "axes_dims_rope": (8, 4, 4),
    }
    return of(kind, **(settings | changes))


def qwen_vae() -> Any:
    return of(
        "AutoencoderKLQwenImage",
        base_dim=24,
        z_dim=4,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )


def qwen_words() -> dict[str, Any]:
    both = words(2, 1, 6, 16)
    mask = torch.ones(1, 6, dtype=torch.long)
    return {
        "prompt_embeds": both[0], "prompt_embeds_mask": mask,
        "negative_prompt_embeds": both[1], "negative_prompt_embeds_mask": mask,
        "true_cfg_scale": 4.0, **LARGE, **LATENT,
    }  # fmt: skip


def sana_model(kind: str = "SanaTransformer2DModel", **changes: Any) -> Any:
    settings = {
        "in_channels": 4,
        "out_channels": 4,
        "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 8,
        "cross_attention_dim": 16,
        "caption_channels": 16,
        "sample_size": 8,
        "patch_size": 1,
    }
    return of(kind, **dit_sized(**(settings | changes)))


def sana_vae() -> Any:
    return of(
        "AutoencoderDC",
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=[1, 1],
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
    )


TRANSFORMERS = (
    Entry(
        name="DiT",
        build=lambda: assembled(
            "DiTPipeline",
            transformer=of(
                "DiTTransformer2DModel",
                **dit_sized(in_channels=4, out_channels=8, sample_size=8),
            ),
            scheduler=ddim(),
            vae=kl(),
        ),
        arguments=lambda: {"class_labels": [3], "output_type": "np"},
    ),
    Entry(
        name="PixArtAlpha",
        build=lambda: assembled(
            "PixArtAlphaPipeline",
            transformer=of(
                "PixArtTransformer2DModel",
                **dit_sized(
                    in_channels=4,
                    out_channels=8,
                    sample_size=8,
                    cross_attention_dim=16,
                    caption_channels=16,
                    use_additional_conditions=False,
                ),
            ),
            scheduler=ddim(),
            vae=kl(),
        ),
        arguments=lambda: {
            **masked((1, 6, 16)),
            "negative_prompt": None,
            "use_resolution_binning": False,
            **LATENT,
            **SIZE,
        },
    ),
    Entry(
        name="PixArtSigma",
        build=lambda: assembled(
            "PixArtSigmaPipeline",
            transformer=of(
                "PixArtTransformer2DModel",
                **dit_sized(
                    in_channels=4,
                    out_channels=8,
                    sample_size=8,
                    cross_attention_dim=16,
                    caption_channels=16,
                    use_additional_conditions=False,
                ),
            ),
            scheduler=of("DPMSolverMultistepScheduler"),
            vae=kl(),
        ),
        arguments=lambda: {
            **masked((1, 6, 16)),
            "negative_prompt": None,
            "use_resolution_binning": False,
            **LATENT,
            **SIZE,
        },
    ),
    Entry(
        name="StableDiffusion3",
        build=sd3,
        arguments=lambda: {**sd_words(), **pooled(8), **SIZE},
    ),
    Entry(
        name="StableDiffusion3Img2Img",
        build=lambda: sd3("StableDiffusion3Img2ImgPipeline"),
        arguments=lambda: {
            **sd_words(),
            **pooled(8),
            **SIZE,
            "image": picture(),
            "strength": 0.8,
        },
    ),
    Entry(
        name="StableDiffusion3ControlNet",
        build=lambda: sd3(
            "StableDiffusion3ControlNetPipeline",
            controlnet=sd3_model("SD3ControlNetModel", num_layers=1),
        ),
        arguments=lambda: {**sd_words(), **pooled(8), **SIZE, "control_image": picture()},
    ),
    Entry(name="Flux", build=flux, arguments=flux_words),
    Entry(name="Flux, true CFG", build=flux, arguments=lambda: {**flux_words(), **true_cfg()}),
    Entry(
        name="FluxImg2Img",
        build=lambda: flux("FluxImg2ImgPipeline"),
        arguments=lambda: {**flux_words(), "image": picture(32), "strength": 0.8},
    ),
    Entry(
        name="FluxControlNet",
        build=lambda: flux(
            "FluxControlNetPipeline",
            controlnet=flux_model("FluxControlNetModel", num_layers=1, num_single_layers=1),
        ),
        arguments=lambda: {**flux_words(), "control_image": picture(32)},
    ),
    Entry(
        name="FluxFill",
        build=lambda: flux(
            "FluxFillPipeline", transformer=flux_model(in_channels=16 + 16 + 16, out_channels=16)
        ),
        arguments=lambda: {
            **flux_words(),
            "image": picture(32),
            "mask_image": picture(32, 1),
            "strength": 1.0,
        },
    ),
    Entry(
        name="FluxKontext",
        build=lambda: flux("FluxKontextPipeline"),
        arguments=lambda: {
            **flux_words(),
            "image": picture(32),
            "_auto_resize": False,
            "max_area": 32 * 32,
        },
    ),
    Entry(
        name="Chroma",
        build=lambda: assembled(
            "ChromaPipeline",
            transformer=of(
                "ChromaTransformer2DModel",
                in_channels=16,
                num_layers=2,
                num_single_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=16,
                axes_dims_rope=[4, 4, 8],
                approximator_hidden_dim=32,
                approximator_layers=1,
                approximator_num_channels=16,
            ),
            scheduler=flow(),
            vae=kl(shift_factor=0.1),
        ),
        arguments=lambda: {
            **masked((1, 6, 16), dtype=torch.bool),
            **LATENT,
            **LARGE,
        },
        passes=("cond", "uncond"),
    ),
    Entry(
        name="QwenImage",
        build=lambda: assembled(
            "QwenImagePipeline", transformer=qwen_model(), scheduler=flow(), vae=qwen_vae()
        ),
        arguments=qwen_words,
    ),
    Entry(
        name="QwenImage, guidance off",
        build=lambda: assembled(
            "QwenImagePipeline", transformer=qwen_model(), scheduler=flow(), vae=qwen_vae()
        ),
        arguments=lambda: qwen_words() | {"true_cfg_scale": 1.0},
    ),
    Entry(
        name="QwenImageControlNet",
        build=lambda: assembled(
            "QwenImageControlNetPipeline",
            transformer=qwen_model(),
            controlnet=qwen_model("QwenImageControlNetModel", num_layers=1),
            scheduler=flow(),
            vae=qwen_vae(),
        ),
        arguments=lambda: {**qwen_words(), "control_image": picture(32)},
    ),
    Entry(
        name="Sana",
        build=lambda: assembled(
            "SanaPipeline", transformer=sana_model(), scheduler=flow(shift=7.0), vae=sana_vae()
        ),
        arguments=lambda: {
            **masked((1, 6, 16)),
            "negative_prompt": None,
            "use_resolution_binning": False,
            **LATENT,
            **LARGE,
        },
    ),
    Entry(
        name="SanaControlNet",
        build=lambda: assembled(
            "SanaControlNetPipeline",
            transformer=sana_model(),
            controlnet=sana_model("SanaControlNetModel", num_layers=1),
            scheduler=flow(shift=7.0),
            vae=sana_vae(),
        ),
        arguments=lambda: {
            **masked((1, 6, 16)),
            "negative_prompt": None,
            "use_resolution_binning": False,
            **LATENT,
            **LARGE,
            "control_image": picture(32),
        },
    ),
    Entry(
        name="HunyuanDiT",
        build=lambda: assembled(
            "HunyuanDiTPipeline",
            transformer=of(
                "HunyuanDiT2DModel",
                **dit_sized(
                    in_channels=4,
                    patch_size=2,
                    sample_size=8,
                    hidden_size=16,
                    cross_attention_dim=16,
                    cross_attention_dim_t5=16,
                    pooled_projection_dim=8,
                    text_len=4,
                    text_len_t5=6,
                    num_layers=4,
                    use_style_cond_and_image_meta_size=False,
                ),
            ),
            scheduler=of("DDPMScheduler", clip_sample=False),
            vae=kl(),
            requires_safety_checker=False,
        ),
        arguments=lambda: {
            **masked((1, 4, 16)),
            **{
                key.replace("embeds", "embeds_2").replace("mask", "mask_2"): value
                for key, value in masked((1, 6, 16)).items()
            },
            "use_resolution_binning": False,
            **LATENT,
            **SIZE,
        },
    ),
    Entry(
        name="Lumina2",
        build=lambda: assembled(
            "Lumina2Pipeline",
            transformer=of(
                "Lumina2Transformer2DModel",
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
                cap_feat_dim=16,
            ),
            scheduler=flow(),
            vae=kl(),
        ),
        arguments=lambda: {**masked((1, 6, 16)), **LATENT, **SIZE},
        passes=("cond", "uncond"),
    ),
    Entry(
        name="Lumina2, guidance not normalised",
        build=lambda: assembled(
            "Lumina2Pipeline",
            transformer=of(
                "Lumina2Transformer2DModel",
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
                cap_feat_dim=16,
            ),
            scheduler=flow(),
            vae=kl(),
        ),
        arguments=lambda: {**masked((1, 6, 16)), **LATENT, **SIZE, "cfg_normalization": False},
        passes=("cond", "uncond"),
    ),
    Entry(
        name="AuraFlow",
        build=lambda: assembled(
            "AuraFlowPipeline",
            transformer=of(
                "AuraFlowTransformer2DModel",
                sample_size=8,
                in_channels=4,
                out_channels=4,
                num_mmdit_layers=1,
                num_single_dit_layers=2,
                attention_head_dim=8,
                num_attention_heads=2,
                caption_projection_dim=16,
                joint_attention_dim=16,
                pos_embed_max_size=64,
            ),
            scheduler=flow(),
            vae=kl(),
        ),
        arguments=lambda: {**masked((1, 6, 16)), **LATENT, **SIZE},
    ),
    Entry(
        name="CogView3Plus",
        build=lambda: assembled(
            "CogView3PlusPipeline",
            transformer=of(
                "CogView3PlusTransformer2DModel",
                **dit_sized(
                    in_channels=4,
                    out_channels=4,
                    text_embed_dim=16,
                    time_embed_dim=8,
                    condition_dim=2,
                    pos_embed_max_size=8,
                    sample_size=8,
                ),
            ),
            scheduler=of("CogVideoXDDIMScheduler"),
            vae=kl(),
        ),
        arguments=lambda: {**sd_words(), **SIZE},
    ),
    Entry(
        name="CogView4",
        build=lambda: assembled(
            "CogView4Pipeline",
            transformer=of(
                "CogView4Transformer2DModel",
                **dit_sized(
                    in_channels=4,
                    out_channels=4,
                    text_embed_dim=16,
                    time_embed_dim=8,
                    condition_dim=4,
                ),
            ),
            scheduler=flow(
                base_shift=0.25,
                max_shift=0.75,
                base_image_seq_len=256,
                use_dynamic_shifting=True,
                time_shift_type="linear",
            ),
            vae=kl(),
        ),
        arguments=lambda: {**sd_words(), **SIZE},
    ),
    Entry(
        name="ZImage",
        build=lambda: assembled(
            "ZImagePipeline",
            transformer=of(
                "ZImageTransformer2DModel",
                in_channels=4,
                dim=32,
                n_layers=2,
                n_refiner_layers=1,
                n_heads=2,
                n_kv_heads=2,
                cap_feat_dim=16,
                axes_dims=[4, 4, 8],
                axes_lens=[128, 16, 16],
            ),
            scheduler=flow(),
            vae=kl(shift_factor=0.1),
        ),
        arguments=lambda: {
            "prompt_embeds": [words(6, 16)],
            "negative_prompt_embeds": [words(6, 16, seed=4)],
            "guidance_scale": 3.0,
            **LARGE,
            **LATENT,
        },
    ),
    Entry(
        name="OvisImage",
        build=lambda: assembled(
            "OvisImagePipeline",
            transformer=of(
                "OvisImageTransformer2DModel",
                in_channels=16,
                out_channels=16,
                num_layers=2,
                num_single_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=16,
                axes_dims_rope=(4, 4, 8),
            ),
            scheduler=flow(),
            vae=kl(shift_factor=0.1),
        ),
        arguments=lambda: {**sd_words(), "negative_prompt": None, **LARGE},
    ),
    Entry(
        name="Bria",
        build=lambda: assembled(
            "BriaPipeline",
            transformer=of(
                "BriaTransformer2DModel",
                in_channels=16,
                num_layers=2,
                num_single_layers=2,
                attention_head_dim=8,
                num_attention_heads=2,
                joint_attention_dim=16,
                pooled_projection_dim=None,
                axes_dims_rope=[0, 4, 4],
            ),
            scheduler=flow(),
            vae=kl(shift_factor=0.1),
        ),
        arguments=lambda: {**sd_words(), **LARGE},
    ),
    Entry(
        name="PRX",
        build=lambda: assembled(
            "PRXPipeline",
            transformer=of(
                "PRXTransformer2DModel",
                patch_size=1,
                in_channels=4,
                context_in_dim=16,
                hidden_size=8,
                mlp_ratio=2.0,
                num_heads=2,
                depth=2,
                axes_dim=[2, 2],
            ),
            scheduler=flow(),
            vae=kl(),
        ),
        arguments=lambda: {
            **masked((1, 6, 16)),
            "use_resolution_binning": False,
            **LATENT,
            **SIZE,
        },
    ),
)

PICTURES = (*STABLE_DIFFUSION, *TRANSFORMERS)
