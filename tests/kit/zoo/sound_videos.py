"""LTX-2, which makes a video and its sound at once: two latents, two outputs."""

from typing import Any

from kit.zoo.entry import Entry, assembled, flow, of
from kit.zoo.pictures import masked, picture


def ltx2(name: str = "LTX2Pipeline") -> Any:
    return assembled(
        name,
        transformer=of(
            "LTX2VideoTransformer3DModel",
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            cross_attention_dim=16,
            audio_in_channels=4,
            audio_out_channels=4,
            audio_num_attention_heads=2,
            audio_attention_head_dim=4,
            audio_cross_attention_dim=8,
            num_layers=2,
            caption_channels=16,
            rope_double_precision=False,
            rope_type="split",
        ),
        connectors=connectors(),
        vae=video_vae(),
        audio_vae=audio_vae(),
        vocoder=vocoder(),
        scheduler=flow(),
    )


def connectors() -> Any:
    from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors

    return LTX2TextConnectors(
        caption_channels=16,
        text_proj_in_factor=1,
        video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=8,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=None,
        audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=8,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=None,
        connector_rope_base_seq_len=32,
        rope_theta=10000.0,
        rope_double_precision=False,
        causal_temporal_positioning=False,
        rope_type="split",
    )


def video_vae() -> Any:
    return of(
        "AutoencoderKLLTX2Video",
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(8,),
        decoder_block_out_channels=(8,),
        layers_per_block=(1,),
        decoder_layers_per_block=(1, 1),
        spatio_temporal_scaling=(True,),
        decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(False, False),
        downsample_type=("spatial",),
        upsample_residual=(False,),
        upsample_factor=(1,),
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )


def audio_vae() -> Any:
    return of(
        "AutoencoderKLLTX2Audio",
        base_channels=4,
        output_channels=2,
        ch_mult=(1,),
        num_res_blocks=1,
        attn_resolutions=None,
        in_channels=2,
        resolution=32,
        latent_channels=2,
        norm_type="pixel",
        causality_axis="height",
        dropout=0.0,
        mid_block_add_attention=False,
        sample_rate=16000,
        mel_hop_length=160,
        is_causal=True,
        mel_bins=8,
    )


def vocoder() -> Any:
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

    return LTX2Vocoder(
        in_channels=16,
        hidden_channels=8,
        out_channels=2,
        upsample_kernel_sizes=[4, 4],
        upsample_factors=[2, 2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3, 5]],
        leaky_relu_negative_slope=0.1,
        output_sampling_rate=16000,
    )


PLAIN = {
    "stg_scale": 0.0,
    "modality_scale": 1.0,
    "guidance_rescale": 0.0,
    "audio_guidance_scale": None,
    "audio_stg_scale": None,
    "audio_modality_scale": None,
    "audio_guidance_rescale": None,
    "spatio_temporal_guidance_blocks": None,
}
"""Without the guidance that the pipeline has by default beside the classifier-free one."""


def asked(**changes: Any) -> dict[str, Any]:
    size = {"height": 32, "width": 32, "num_frames": 5, "frame_rate": 25.0, "output_type": "pt"}
    return {**masked((1, 6, 16)), **size, **changes}


ENTRIES = (
    Entry(
        name="LTX-2, guidance off",
        build=ltx2,
        arguments=lambda: asked(**PLAIN, guidance_scale=1.0),
        output="frames",
        others=lambda: ({"num_frames": 9}, {"height": 64}),
    ),
    Entry(
        name="LTX-2",
        build=ltx2,
        arguments=lambda: asked(**PLAIN),
        output="frames",
        others=lambda: ({"num_frames": 9}, {"height": 64}),
    ),
    Entry(
        name="LTX-2, all guidance",
        build=ltx2,
        arguments=lambda: asked(spatio_temporal_guidance_blocks=[1]),
        output="frames",
        others=lambda: ({"num_frames": 9},),
    ),
    Entry(
        name="LTX-2 image to video",
        build=lambda: ltx2("LTX2ImageToVideoPipeline"),
        arguments=lambda: asked(**PLAIN, image=picture(32), image_crf=0),
        output="frames",
        others=lambda: ({"image": picture(32, seed=9)}, {"num_frames": 9}),
    ),
)
