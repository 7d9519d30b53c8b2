"""Where the sites of known video models are: one value per family, and the search among them.

Components are cached before their gate and residual, under the names the models give them. Where
one name occurs in two block lists, the kind carries the name of the list, so that `attn-3` means
one module. Where guidance is batched, `guidance` says which half the pipelines make the
conditional one; the others announce a call for each pass.
"""

from smoothcache_core import PatternAdapter, SitePattern
from smoothcache_core.adapters import find_adapter
from smoothcache_core.pipelines import PipelineClass
from torch import nn

OPEN_SORA = PatternAdapter(
    name="open-sora",
    classes=("STDiT3",),
    patterns=(
        SitePattern("spatial_blocks.*.attn", "spatial_attn"),
        SitePattern("spatial_blocks.*.cross_attn", "spatial_cross_attn"),
        SitePattern("spatial_blocks.*.mlp", "spatial_mlp"),
        SitePattern("temporal_blocks.*.attn", "temporal_attn"),
        SitePattern("temporal_blocks.*.cross_attn", "temporal_cross_attn"),
        SitePattern("temporal_blocks.*.mlp", "temporal_mlp"),
    ),
    latent="x",
    guidance="cond-first",
)
"""Open-Sora v1.2, of `smoothcache_video.open_sora` and of the first implementation alike. Guidance
is batched. Spatial attention sees (batch * frames, patches, channels), temporal attention
(batch * patches, frames, channels).
"""

OPEN_SORA2 = PatternAdapter(
    name="open-sora-2",
    classes=("MMDiTModel",),
    patterns=(
        SitePattern("double_blocks.*", "double", target="delta", inputs=("img", "txt")),
        SitePattern("single_blocks.*", "single", target="delta", inputs=("x",)),
    ),
    latent="img",
    timestep="timesteps",
)
"""Open-Sora 2.0, of its own implementation. Its blocks call the layers of their attentions, never
the attentions, so what a block adds to (video, text) is cached. Guidance is three passes in one
batch.
"""

WAN = PatternAdapter(
    name="wan",
    classes=("WanTransformer3DModel",),
    patterns=(
        SitePattern("blocks.*.attn1", "attn1"),
        SitePattern("blocks.*.attn2", "attn2"),
        SitePattern("blocks.*.ffn", "ffn"),
    ),
)
"""Wan 2.1 and 2.2. Pipelines announce their two calls per step."""

SKYREELS_V2 = PatternAdapter(
    name="skyreels-v2",
    classes=("SkyReelsV2Transformer3DModel",),
    patterns=WAN.patterns,
)
"""SkyReels V2, whose blocks are those of Wan. Pipelines announce their two calls per step."""

HUNYUAN_VIDEO = PatternAdapter(
    name="hunyuan-video",
    classes=("HunyuanVideoTransformer3DModel",),
    patterns=(
        SitePattern("transformer_blocks.*.attn", "attn"),
        SitePattern("transformer_blocks.*.ff", "ff"),
        SitePattern("transformer_blocks.*.ff_context", "ff_context"),
        SitePattern(
            "single_transformer_blocks.*",
            "single",
            target="delta",
            inputs=("hidden_states", "encoder_hidden_states"),
        ),
    ),
)
"""HunyuanVideo. With true guidance the pipeline announces its two calls per step.

`attn` gives (video, text). A single-stream block runs attention and feed-forward through one output
projection, so the whole block is a site and what it adds to (video, text) is cached.
"""

HUNYUAN_VIDEO15 = PatternAdapter(
    name="hunyuan-video-1.5",
    classes=("HunyuanVideo15Transformer3DModel",),
    patterns=(
        SitePattern("transformer_blocks.*.attn", "attn"),
        SitePattern("transformer_blocks.*.ff", "ff"),
        SitePattern("transformer_blocks.*.ff_context", "ff_context"),
    ),
)
"""HunyuanVideo 1.5. `attn` gives (video, text); each condition has an announced call of its own."""

LTX_VIDEO = PatternAdapter(
    name="ltx-video",
    classes=("LTXVideoTransformer3DModel",),
    patterns=(
        SitePattern("transformer_blocks.*.attn1", "attn1"),
        SitePattern("transformer_blocks.*.attn2", "attn2"),
        SitePattern("transformer_blocks.*.ff", "ff"),
    ),
    guidance="uncond-first",
)
"""LTX-Video. Guidance is batched."""

LTX2 = PatternAdapter(
    name="ltx-2",
    classes=("LTX2VideoTransformer3DModel",),
    patterns=(
        SitePattern("transformer_blocks.*.attn1", "attn1"),
        SitePattern("transformer_blocks.*.audio_attn1", "audio_attn1"),
        SitePattern("transformer_blocks.*.attn2", "attn2"),
        SitePattern("transformer_blocks.*.audio_attn2", "audio_attn2"),
        SitePattern("transformer_blocks.*.audio_to_video_attn", "audio_to_video_attn"),
        SitePattern("transformer_blocks.*.video_to_audio_attn", "video_to_audio_attn"),
        SitePattern("transformer_blocks.*.ff", "ff"),
        SitePattern("transformer_blocks.*.audio_ff", "audio_ff"),
    ),
    latent=("hidden_states", "audio_hidden_states"),
    guidance="uncond-first",
)
"""LTX-2, of which the video and its sound are two latents, and two outputs. Guidance is batched;
guidance by perturbed blocks and by isolated modalities are further, announced calls.
"""

COGVIDEOX = PatternAdapter(
    name="cogvideox",
    classes=("CogVideoXTransformer3DModel",),
    patterns=(
        SitePattern("transformer_blocks.*.attn1", "attn1"),
        SitePattern("transformer_blocks.*.ff", "ff"),
    ),
    guidance="uncond-first",
)
"""CogVideoX. Guidance is batched; `attn1` gives (video, text), `ff` sees both in one sequence."""

MOCHI = PatternAdapter(
    name="mochi",
    classes=("MochiTransformer3DModel",),
    patterns=(
        SitePattern("transformer_blocks.*.attn1", "attn1"),
        SitePattern("transformer_blocks.*.ff", "ff"),
        SitePattern("transformer_blocks.*.ff_context", "ff_context"),
    ),
    guidance="uncond-first",
)
"""Mochi. Guidance is batched; `attn1` gives (video, text), the last block has no `ff_context`."""

LATTE = PatternAdapter(
    name="latte",
    classes=("LatteTransformer3DModel",),
    patterns=(
        SitePattern("transformer_blocks.*.attn1", "spatial_attn1"),
        SitePattern("transformer_blocks.*.attn2", "spatial_attn2"),
        SitePattern("transformer_blocks.*.ff", "spatial_ff"),
        SitePattern("temporal_transformer_blocks.*.attn1", "temporal_attn1"),
        SitePattern("temporal_transformer_blocks.*.ff", "temporal_ff"),
    ),
    guidance="uncond-first",
)
"""Latte. Guidance is batched; temporal blocks do not look at the text."""

ALLEGRO = PatternAdapter(
    name="allegro",
    classes=("AllegroTransformer3DModel",),
    patterns=(
        SitePattern("transformer_blocks.*.attn1", "attn1"),
        SitePattern("transformer_blocks.*.attn2", "attn2"),
        SitePattern("transformer_blocks.*.ff", "ff"),
    ),
    guidance="uncond-first",
)
"""Allegro. Guidance is batched."""

EASY_ANIMATE = PatternAdapter(
    name="easy-animate",
    classes=("EasyAnimateTransformer3DModel",),
    patterns=(
        SitePattern("transformer_blocks.*.attn1", "attn1"),
        SitePattern("transformer_blocks.*.ff", "ff"),
        SitePattern("transformer_blocks.*.txt_ff", "txt_ff", optional=True),
    ),
    guidance="uncond-first",
)
"""EasyAnimate. Guidance is batched; `attn1` gives (video, text). Where a block has no `txt_ff`, it
calls `ff` twice, for video and for text.
"""

COSMOS = PatternAdapter(
    name="cosmos",
    classes=("CosmosTransformer3DModel",),
    patterns=(
        SitePattern("transformer_blocks.*.attn1", "attn1"),
        SitePattern("transformer_blocks.*.attn2", "attn2"),
        SitePattern("transformer_blocks.*.ff", "ff"),
    ),
)
"""Cosmos 1, Predict 2 and 2.5. Pipelines make two calls a step and do not announce them."""

KANDINSKY5 = PatternAdapter(
    name="kandinsky5",
    classes=("Kandinsky5Transformer3DModel",),
    patterns=(
        SitePattern("visual_transformer_blocks.*.self_attention", "self_attention"),
        SitePattern("visual_transformer_blocks.*.cross_attention", "cross_attention"),
        SitePattern("visual_transformer_blocks.*.feed_forward", "feed_forward"),
    ),
)
"""Kandinsky 5. The pipeline makes two calls a step and does not announce them. Blocks of the text
see the timestep, but hardly count: they are few and short.
"""

SANA_VIDEO = PatternAdapter(
    name="sana-video",
    classes=("SanaVideoTransformer3DModel",),
    patterns=(
        SitePattern("transformer_blocks.*.attn1", "attn1"),
        SitePattern("transformer_blocks.*.attn2", "attn2"),
        SitePattern("transformer_blocks.*.ff", "ff"),
    ),
    guidance="uncond-first",
)
"""Sana-Video. Guidance is batched; `ff` is convolutional, so its output is five-dimensional."""

ADAPTERS: tuple[PatternAdapter, ...] = tuple(
    value for value in tuple(globals().values()) if isinstance(value, PatternAdapter)
)
"""Every adapter of this package: the values above, in their order."""

_UNANNOUNCED = ("cond", "uncond")  # in the order in which these pipelines make the calls

PIPELINES = (
    PipelineClass(name="CosmosTextToWorldPipeline", passes=_UNANNOUNCED),
    PipelineClass(name="CosmosVideoToWorldPipeline", passes=_UNANNOUNCED),
    PipelineClass(name="Cosmos2TextToImagePipeline", passes=_UNANNOUNCED),
    PipelineClass(name="Cosmos2VideoToWorldPipeline", passes=_UNANNOUNCED),
    PipelineClass(name="Cosmos2_5_PredictBasePipeline", passes=_UNANNOUNCED),
    PipelineClass(name="Kandinsky5T2VPipeline", passes=_UNANNOUNCED),
    PipelineClass(name="Kandinsky5I2VPipeline", passes=_UNANNOUNCED),
    PipelineClass(name="WanVideoToVideoPipeline", passes=_UNANNOUNCED),
    # its `guidance_scale` is for distilled models; guidance is off without a negative prompt
    PipelineClass(
        name="HunyuanVideoPipeline",
        guidance_argument="true_cfg_scale",
        guidance_needs={"negative_prompt": " "},
    ),
    PipelineClass(
        name="HunyuanVideoImageToVideoPipeline",
        passes=_UNANNOUNCED,
        guidance_argument="true_cfg_scale",
        guidance_needs={"negative_prompt": " "},
    ),
    PipelineClass(
        name="HunyuanSkyreelsImageToVideoPipeline",
        passes=_UNANNOUNCED,
        guidance_argument="true_cfg_scale",
        guidance_needs={"negative_prompt": " "},
    ),
    # by default also guidance by perturbed blocks and by isolated modalities, which batch nothing
    PipelineClass(
        name="LTX2Pipeline",
        guidance_needs={
            "stg_scale": 0.0,
            "modality_scale": 1.0,
            "guidance_rescale": 0.0,
            "audio_guidance_scale": None,
            "audio_stg_scale": None,
            "audio_modality_scale": None,
            "audio_guidance_rescale": None,
            "spatio_temporal_guidance_blocks": None,
        },
    ),
)
"""What is known about classes of pipelines; of others, what `PipelineClass` has by default."""


def adapter_for(model: nn.Module) -> PatternAdapter:
    """Return the adapter of a denoiser, found by the name of its class or of a base class.

    Example:
        >>> with cached(pipe.transformer, adapter_for(pipe.transformer), schedule):
        ...     frames = pipe(prompt).frames

    Args:
        model: The denoiser, compiled or not.

    Raises:
        AdapterError: No adapter is meant for a class of this name.
    """
    return find_adapter(model, ADAPTERS)
