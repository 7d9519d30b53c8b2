"""Where the sites of known image models are: one value per family, and the search among them.

Components are cached before their gate and residual, under the names the models give them. Where
one name occurs in two block lists, the kind carries the name of the list, so that `attn-3` means
one module. Where guidance is batched, `guidance` says which half diffusers' pipelines make the
conditional one.
"""

from smoothcache_core import PatternAdapter, SitePattern
from smoothcache_core.pipelines import PipelineClass, adapter_or_whole
from torch import nn

DIT = PatternAdapter(
    name="diffusers-dit",
    classes=("DiTTransformer2DModel",),
    patterns=(
        SitePattern("transformer_blocks.*.attn1", "attn1"),
        SitePattern("transformer_blocks.*.ff", "ff"),
    ),
    guidance="cond-first",
)
"""DiT as in diffusers. Guidance is batched; its blocks have no cross-attention."""

FACEBOOK_DIT = PatternAdapter(
    name="facebook-dit",
    classes=("DiT",),
    patterns=(SitePattern("blocks.*.attn", "attn"), SitePattern("blocks.*.mlp", "mlp")),
    latent="x",
    timestep="t",
    guidance="cond-first",
)
"""DiT as in facebookresearch/DiT. `forward_with_cfg` batches guidance and calls `forward`."""

PIXART = PatternAdapter(
    name="pixart",
    classes=("PixArtTransformer2DModel",),
    patterns=(
        SitePattern("transformer_blocks.*.attn1", "attn1"),
        SitePattern("transformer_blocks.*.attn2", "attn2"),
        SitePattern("transformer_blocks.*.ff", "ff"),
    ),
    guidance="uncond-first",
)
"""PixArt-alpha and PixArt-Sigma. Guidance is batched."""

SD3 = PatternAdapter(
    name="sd3",
    classes=("SD3Transformer2DModel",),
    patterns=(
        SitePattern("transformer_blocks.*.attn", "attn"),
        SitePattern("transformer_blocks.*.attn2", "attn2"),
        SitePattern("transformer_blocks.*.ff", "ff"),
        SitePattern("transformer_blocks.*.ff_context", "ff_context"),
    ),
    guidance="uncond-first",
)
"""Stable Diffusion 3 and 3.5. Guidance is batched.

`attn` gives (image, text); `attn2` exists in some blocks of 3.5 only; the last block has no
`ff_context`. Skip-layer guidance leaves blocks out of an extra call and cannot be cached.
"""

FLUX = PatternAdapter(
    name="flux",
    classes=("FluxTransformer2DModel",),
    patterns=(
        SitePattern("transformer_blocks.*.attn", "attn"),
        SitePattern("transformer_blocks.*.ff", "ff"),
        SitePattern("transformer_blocks.*.ff_context", "ff_context"),
        SitePattern(
            "single_transformer_blocks.*",
            "single",
            target="delta",
            inputs=("encoder_hidden_states", "hidden_states"),
        ),
    ),
)
"""FLUX.1. With true guidance the pipeline announces its two calls per step.

A single-stream block runs attention and feed-forward through one output projection, so the whole
block is a site and what it adds to (text, image) is cached.
"""

SANA = PatternAdapter(
    name="sana",
    classes=("SanaTransformer2DModel",),
    patterns=(
        SitePattern("transformer_blocks.*.attn1", "attn1"),
        SitePattern("transformer_blocks.*.attn2", "attn2"),
        SitePattern("transformer_blocks.*.ff", "ff"),
    ),
    guidance="uncond-first",
)
"""Sana. Guidance is batched; `ff` is convolutional and gives (B, C, H, W)."""

HUNYUAN_DIT = PatternAdapter(
    name="hunyuan-dit",
    classes=("HunyuanDiT2DModel",),
    patterns=(
        SitePattern("blocks.*.attn1", "attn1"),
        SitePattern("blocks.*.attn2", "attn2"),
        SitePattern("blocks.*.ff", "ff"),
    ),
    guidance="uncond-first",
)
"""Hunyuan-DiT. Guidance is batched; the long skip connections stay outside the sites."""

LUMINA2 = PatternAdapter(
    name="lumina2",
    classes=("Lumina2Transformer2DModel",),
    patterns=(
        SitePattern("noise_refiner.*.attn", "noise_refiner_attn"),
        SitePattern("noise_refiner.*.feed_forward", "noise_refiner_feed_forward"),
        SitePattern("layers.*.attn", "attn"),
        SitePattern("layers.*.feed_forward", "feed_forward"),
    ),
)
"""Lumina-Image 2.0. Its pipeline makes two calls per step and does not announce them: pass
`branches=("cond", "uncond")`.

The noise refiner sees the latent and the timestep like the layers do. The context refiner sees the
text alone and is left out: two more kinds to plan for under 1 % of the MACs at 1024 x 1024 pixels.
"""

QWEN_IMAGE = PatternAdapter(
    name="qwen-image",
    classes=("QwenImageTransformer2DModel",),
    patterns=(
        SitePattern("transformer_blocks.*.attn", "attn"),
        SitePattern("transformer_blocks.*.img_mlp", "img_mlp"),
        SitePattern("transformer_blocks.*.txt_mlp", "txt_mlp"),
    ),
)
"""Qwen-Image. The pipeline announces its two calls per step; `attn` gives (image, text)."""

Z_IMAGE = PatternAdapter(
    name="z-image",
    classes=("ZImageTransformer2DModel",),
    patterns=(
        SitePattern("noise_refiner.*.attention", "noise_refiner_attention"),
        SitePattern("noise_refiner.*.feed_forward", "noise_refiner_feed_forward"),
        SitePattern("layers.*.attention", "attention"),
        SitePattern("layers.*.feed_forward", "feed_forward"),
    ),
    latent="x",
    timestep="t",
    guidance="cond-first",
)
"""Z-Image. The latent is a list of one tensor per row; guidance is batched. For its refiners see
`LUMINA2`.
"""

ADAPTERS: tuple[PatternAdapter, ...] = tuple(
    value for value in tuple(globals().values()) if isinstance(value, PatternAdapter)
)
"""Every adapter of this package: the values above, in their order."""

PIPELINES = (
    PipelineClass(name="Lumina2Pipeline", passes=("cond", "uncond")),
    # its `guidance_scale` is for distilled models; guidance is off without a negative prompt
    PipelineClass(
        name="QwenImagePipeline",
        guidance_argument="true_cfg_scale",
        guidance_needs={"negative_prompt": " "},
    ),
)
"""What is known about classes of pipelines; of others, what `PipelineClass` has by default."""


def adapter_for(model: nn.Module) -> PatternAdapter:
    """Return the adapter of a denoiser, found by the name of its class or of a base class.

    Of a class that is not known nothing is found without a run, so it is the adapter for whole
    evaluations; `sampler_of` and `find_by_structure` find more.

    Example:
        >>> with cached(pipe.transformer, adapter_for(pipe.transformer), schedule):
        ...     images = pipe(prompt).images

    Args:
        model: The denoiser, compiled or not.

    Raises:
        AdapterError: No adapter is meant for a class of this name, and the arguments of `forward`
            do not say what latent and timestep are; or it is around a denoiser that is known.
    """
    return adapter_or_whole(model, ADAPTERS)
