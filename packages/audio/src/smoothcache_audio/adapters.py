"""Where the sites of known audio models are: one value per family, and the search among them.

Components are cached before their gate and residual, under the names the models give them. Where
guidance is batched by the pipeline, `guidance` says which half is the conditional one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from smoothcache_core import PatternAdapter, SitePattern
from smoothcache_core.pipelines import PipelineClass, adapter_or_whole
from torch import Tensor, nn

_ALWAYS = (0, 1)
"""The interval of progress in which a denoiser guides unless it is given another one: all of it."""


@dataclass(frozen=True, kw_only=True)
class GuidingAdapter(PatternAdapter):
    """An adapter of denoisers that guide inside, by doubling the batch where they are told to."""

    def variant(self, model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Return whether a call guides, as `DiffusionTransformer.forward` decides it.

        It waits for the device only as the denoiser itself does then: where guidance is limited to
        an interval of noise.
        """
        scaled = kwargs.get("cfg_scale", 1.0) != 1.0
        conditions = (kwargs.get("cross_attn_cond"), kwargs.get("prepend_cond"))
        if not scaled or all(condition is None for condition in conditions):
            return False
        least, most = kwargs.get("cfg_interval", _ALWAYS)
        if (least, most) == _ALWAYS:
            return True
        timestep: Tensor = kwargs["t"] if "t" in kwargs else args[1]
        noise = timestep[0].to(next(model.parameters()).dtype)
        if model.diffusion_objective == "v":
            noise = torch.sin(noise * math.pi / 2)
        return bool(least <= noise <= most)


STABLE_AUDIO_TOOLS = GuidingAdapter(
    name="stable-audio-tools",
    classes=("DiffusionTransformer",),
    patterns=(
        SitePattern("transformer.layers.*.self_attn", "self_attn"),
        SitePattern("transformer.layers.*.cross_attn", "cross_attn", optional=True),
        SitePattern("transformer.layers.*.conformer", "conformer", optional=True),
        SitePattern("transformer.layers.*.ff", "ff"),
    ),
    latent="x",
    timestep="t",
)
"""The transformer of stable-audio-tools: Stable Audio Open and whatever its factory builds.

The denoiser is `model.model.model`, which guides inside its own `forward`: its sites see the rows
[conditional, unconditional], its caller the guided output. So whole evaluations can be skipped,
but not unconditional passes. `cross_attn` and `conformer` are there if the configuration says so.
"""

STABLE_AUDIO = PatternAdapter(
    name="stable-audio",
    classes=("StableAudioDiTModel",),
    patterns=(
        SitePattern("transformer_blocks.*.attn1", "attn1"),
        SitePattern("transformer_blocks.*.attn2", "attn2"),
        SitePattern("transformer_blocks.*.ff", "ff"),
    ),
    guidance="uncond-first",
)
"""Stable Audio Open as in diffusers. Guidance is batched."""

STABLE_AUDIO_3 = PatternAdapter(
    name="stable-audio-3",
    classes=("StableAudio3DiTModel",),
    patterns=(
        SitePattern("transformer_blocks.*.self_attn", "self_attn"),
        SitePattern("transformer_blocks.*.cross_attn", "cross_attn"),
        SitePattern("transformer_blocks.*.ff", "ff"),
    ),
    guidance="uncond-first",
)
"""Stable Audio 3. Guidance is batched, and off by default."""

ACE_STEP = PatternAdapter(
    name="ace-step",
    classes=("AceStepTransformer1DModel",),
    patterns=(
        SitePattern("layers.*.self_attn", "self_attn"),
        SitePattern("layers.*.cross_attn", "cross_attn"),
        SitePattern("layers.*.mlp", "mlp"),
    ),
    guidance="cond-first",
)
"""ACE-Step 1.5. Guidance is batched, where the weights need any.

Its guidance is a projection with a memory of earlier steps, which no fill can be fitted through:
sites and rules are planned for it, whole evaluations are not. Covers of a strength below 1 make a
second call that is not announced: pass `branches=("cover", "text")`.
"""

LONGCAT_AUDIO = PatternAdapter(
    name="longcat-audio",
    classes=("LongCatAudioDiTTransformer",),
    patterns=(
        SitePattern("blocks.*.self_attn", "self_attn"),
        SitePattern("blocks.*.cross_attn", "cross_attn", optional=True),
        SitePattern("blocks.*.ffn", "ffn"),
    ),
)
"""LongCat-AudioDiT. Its pipeline makes two calls per step and does not announce them: pass
`branches=("cond", "uncond")`.
"""

MINIMAX_MUSIC = PatternAdapter(
    name="minimax-music",
    classes=("MiniMaxMusic3Transformer1DModel",),
    patterns=(
        SitePattern("transformer_blocks.*", "block", target="delta", inputs=("hidden_states",)),
    ),
)
"""The diffusion transformer of MiniMax Music 3. Guidance makes two calls per step that are not
announced: pass `branches=("cond", "uncond")`.

The feed-forward part of a block is no module of its own, so the whole block is a site.
"""

ADAPTERS: tuple[PatternAdapter, ...] = tuple(
    value for value in tuple(globals().values()) if isinstance(value, PatternAdapter)
)
"""Every adapter of this package: the values above, in their order."""

PIPELINES = (
    PipelineClass(name="StableAudioPipeline", length_argument="audio_end_in_s", bounded=True),
    PipelineClass(name="StableAudio3Pipeline", length_argument="duration"),
    PipelineClass(
        name="AceStepPipeline",
        length_argument="audio_duration",
        length_first=True,
        texts=("lyrics",),
    ),
    PipelineClass(
        name="LongCatAudioDiTPipeline",
        passes=("cond", "uncond"),
        length_argument="audio_duration_s",
        length_first=True,
        rate="sample_rate",
    ),
)
"""What is known about classes of pipelines; of others, what `PipelineClass` has by default."""


def adapter_for(model: nn.Module) -> PatternAdapter:
    """Return the adapter of a denoiser, found by the name of its class or of a base class.

    Of a class that is not known nothing is found without a run, so it is the adapter for whole
    evaluations; `sampler_of` and `find_by_structure` find more.

    Example:
        >>> with cached(model.model.model, adapter_for(model.model.model), schedule):
        ...     audio = generate_diffusion_cond(model, steps=100, conditioning=conditioning)

    Args:
        model: The denoiser, compiled or not: `model.model.model` of stable-audio-tools,
            `pipe.transformer` of diffusers.

    Raises:
        AdapterError: No adapter is meant for a class of this name, and the arguments of `forward`
            do not say what latent and timestep are; or it is around a denoiser that is known.
    """
    return adapter_or_whole(model, ADAPTERS)
