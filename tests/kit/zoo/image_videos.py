"""Pipelines that make videos of an image and a text."""

from typing import Any

import torch
from kit.zoo.entry import Entry, assembled, ddim, flow, of
from kit.zoo.pictures import LATENT, dit_sized, masked, picture, sd_words
from kit.zoo.text_videos import (
    UNANNOUNCED,
    cosmos,
    cosmos2,
    cosmos_model,
    easy_animate,
    hunyuan15,
    hunyuan15_words,
    hunyuan_model,
    hunyuan_vae,
    hunyuan_words,
    kandinsky5,
    kandinsky_words,
    sana_video,
    skyreels,
    unipc,
)
from kit.zoo.videos import VIDEO, cog_vae, image_encoder, image_processor, ltx, wan, wan_model


def drawing(size: int = 16, *, seed: int = 2) -> Any:
    """Return a picture of PIL."""
    from torchvision.transforms.functional import to_pil_image

    return to_pil_image(picture(size, seed=seed)[0])


def seeing() -> dict[str, Any]:
    return {"image_encoder": image_encoder(8), "image_processor": image_processor()}


def siglip() -> dict[str, Any]:
    from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=12, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        image_size=16, patch_size=8,
    )  # fmt: skip
    return {
        "image_encoder": SiglipVisionModel(config),
        "feature_extractor": SiglipImageProcessor(size={"height": 16, "width": 16}),
    }


def hunyuan_image(how: str) -> Any:
    joined = how == "latent_concat"
    return assembled(
        "HunyuanVideoImageToVideoPipeline",
        transformer=hunyuan_model(in_channels=9 if joined else 4, image_condition_type=how),
        vae=hunyuan_vae(),
        scheduler=flow(shift=7.0),
    )


FLAT = {"height": 32, "width": 32}

ENTRIES = (
    Entry(
        name="Wan 2.1 image to video",
        build=lambda: wan(
            "WanImageToVideoPipeline",
            transformer=wan_model(in_channels=36, image_dim=8),
            **seeing(),
        ),
        arguments=lambda: {**sd_words(), **VIDEO, "image": picture()},
        output="frames",
        others=lambda: ({"image": picture(seed=9)}, {"num_frames": 5}, {"height": 32}),
    ),
    Entry(
        name="Wan 2.2 TI2V image to video",
        build=lambda: wan("WanImageToVideoPipeline", expand_timesteps=True),
        arguments=lambda: {**sd_words(), **VIDEO, "image": picture()},
        output="frames",
        others=lambda: ({"image": picture(seed=9)}, {"num_frames": 5}),
    ),
    Entry(
        name="Wan video to video",
        build=lambda: wan("WanVideoToVideoPipeline", scheduler=unipc(flow_shift=3.0)),
        arguments=lambda: {
            **sd_words(),
            "height": 16,
            "width": 16,
            "strength": 1.0,
            "video": [drawing(seed=n) for n in range(9)],
        },
        output="frames",
        others=lambda: ({"height": 32},),
        passes=UNANNOUNCED,
    ),
    Entry(
        name="SkyReelsV2 image to video",
        build=lambda: skyreels(
            "SkyReelsV2ImageToVideoPipeline",
            unipc(flow_shift=5.0),
            in_channels=36,
            image_dim=8,
            parts=seeing(),
        ),
        arguments=lambda: {**sd_words(), **VIDEO, "image": picture()},
        output="frames",
        others=lambda: ({"image": picture(seed=9)}, {"num_frames": 5}),
    ),
    Entry(
        name="SkyReelsV2, diffusion forcing, image to video",
        build=lambda: skyreels(
            "SkyReelsV2DiffusionForcingImageToVideoPipeline", unipc(flow_shift=5.0)
        ),
        arguments=lambda: {**sd_words(), **VIDEO, "image": picture()},
        output="frames",
        others=lambda: ({"image": picture(seed=9)}, {"num_frames": 5}),
    ),
    Entry(
        name="HunyuanVideo image to video, joined channels",
        build=lambda: hunyuan_image("latent_concat"),
        arguments=lambda: {**hunyuan_words(), **VIDEO, "image": picture(), "output_type": "pt"},
        output="frames",
        others=lambda: ({"image": picture(seed=9)}, {"num_frames": 5}),
        passes=UNANNOUNCED,
    ),
    Entry(
        name="HunyuanVideo image to video, first frame replaced",
        build=lambda: hunyuan_image("token_replace"),
        arguments=lambda: {**hunyuan_words(), **VIDEO, "image": picture(), **LATENT},
        output="frames",
        others=lambda: ({"image": picture(seed=9)}, {"num_frames": 5}),
        passes=UNANNOUNCED,
    ),
    Entry(
        name="HunyuanSkyreels image to video",
        build=lambda: assembled(
            "HunyuanSkyreelsImageToVideoPipeline",
            transformer=hunyuan_model(in_channels=8),
            vae=hunyuan_vae(),
            scheduler=flow(shift=7.0),
        ),
        arguments=lambda: {**hunyuan_words(), **VIDEO, "image": picture(), **LATENT},
        output="frames",
        others=lambda: ({"image": picture(seed=9)}, {"num_frames": 5}),
        passes=UNANNOUNCED,
    ),
    Entry(
        name="HunyuanVideo 1.5 image to video",
        build=lambda: hunyuan15("HunyuanVideo15ImageToVideoPipeline", task="i2v", **siglip()),
        arguments=lambda: {**hunyuan15_words(), "num_frames": 9, "image": drawing()},
        output="frames",
        others=lambda: ({"image": drawing(seed=9)}, {"num_frames": 5}),
    ),
    Entry(
        name="LTX with conditions",
        build=lambda: ltx("LTXConditionPipeline"),
        arguments=lambda: {
            **masked((1, 6, 16)),
            **LATENT,
            **FLAT,
            "num_frames": 9,
            "image": drawing(32),
        },
        output="frames",
        others=lambda: ({"image": drawing(32, seed=9)}, {"num_frames": 17}),
    ),
    Entry(
        name="CogVideoX image to video",
        build=lambda: assembled(
            "CogVideoXImageToVideoPipeline",
            transformer=of(
                "CogVideoXTransformer3DModel",
                **dit_sized(
                    attention_head_dim=16,
                    in_channels=8,
                    out_channels=4,
                    time_embed_dim=2,
                    text_embed_dim=16,
                    sample_width=2,
                    sample_height=2,
                    sample_frames=9,
                    patch_size=2,
                    temporal_compression_ratio=4,
                    max_text_seq_length=7,
                    use_rotary_positional_embeddings=True,
                    use_learned_positional_embeddings=True,
                ),
            ),
            scheduler=ddim(),
            vae=cog_vae(),
        ),
        arguments=lambda: {**sd_words(), **VIDEO, "num_frames": 9, "image": picture()},
        output="frames",
        others=lambda: ({"image": picture(seed=9)},),
    ),
    Entry(
        name="EasyAnimate image to video",
        build=lambda: easy_animate(
            "EasyAnimateInpaintPipeline", in_channels=12, resize_inpaint_mask_directly=False
        ),
        arguments=lambda: {
            **masked((1, 6, 16)),
            **LATENT,
            "height": 16,
            "width": 16,
            "num_frames": 5,
            "video": picture()[:, :, None].repeat(1, 1, 5, 1, 1),
            "mask_video": 255
            * (torch.arange(5) > 0).float().reshape(1, 1, 5, 1, 1).expand(1, 1, 5, 16, 16),
        },
        output="frames",
        others=lambda: ({"video": picture(seed=9)[:, :, None].repeat(1, 1, 5, 1, 1)},),
    ),
    Entry(
        name="Cosmos 1 image to video",
        build=lambda: cosmos("CosmosVideoToWorldPipeline", transformer=cosmos_model(4, 1)),
        arguments=lambda: {**sd_words(), **FLAT, "num_frames": 9, "image": picture(32)},
        output="frames",
        others=lambda: ({"image": picture(32, seed=9)}, {"num_frames": 5}),
        passes=UNANNOUNCED,
    ),
    Entry(
        name="Cosmos Predict 2 image to video",
        build=lambda: cosmos2("Cosmos2VideoToWorldPipeline", flow(use_karras_sigmas=True)),
        arguments=lambda: {**sd_words(), **FLAT, "num_frames": 9, "image": picture(32)},
        output="frames",
        others=lambda: ({"image": picture(32, seed=9)}, {"num_frames": 5}),
        passes=UNANNOUNCED,
    ),
    Entry(
        name="Cosmos Predict 2.5 image to video",
        build=lambda: cosmos2("Cosmos2_5_PredictBasePipeline", unipc(flow_shift=5.0)),
        arguments=lambda: {
            **sd_words(),
            **FLAT,
            "num_frames": 9,
            "image": drawing(32),
            "num_latent_conditional_frames": 1,
        },
        output="frames",
        others=lambda: ({"image": drawing(32, seed=9)}, {"num_frames": 5}),
        passes=UNANNOUNCED,
    ),
    Entry(
        name="Kandinsky 5 image to video",
        build=lambda: kandinsky5("Kandinsky5I2VPipeline", image=True),
        arguments=lambda: {**kandinsky_words(), **FLAT, "num_frames": 17, "image": picture(32)},
        output="frames",
        others=lambda: ({"image": picture(32, seed=9)}, {"num_frames": 21}),
        passes=UNANNOUNCED,
    ),
    Entry(
        name="SanaVideo image to video",
        build=lambda: sana_video("SanaImageToVideoPipeline"),
        arguments=lambda: {
            **masked((1, 6, 16)),
            **LATENT,
            **FLAT,
            "frames": 9,
            "image": drawing(32),
            "use_resolution_binning": False,
            "negative_prompt": None,
        },
        output="frames",
        others=lambda: ({"image": drawing(32, seed=9)}, {"frames": 5}),
    ),
)
