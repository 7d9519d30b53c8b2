"""Sites of UNets as diffusers builds them: blocks, or layers of blocks, along their skips.

The residuals of a UNet's way down are given to its way up, the first of them straight from the
latent. So outputs of blocks may be reused as they are, and the prediction still depends on the
latent, as long as the last layer of the last block up is computed: none of these adapters has it.

They name paths of one model and no class, so schedules that are planned with them record them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.adapters.patterns import PatternAdapter, SitePattern
from smoothcache_core.adapters.signature import latent_and_timestep
from smoothcache_core.errors import AdapterError

if TYPE_CHECKING:
    from torch import nn

DOWN, MID, UP = "down_blocks", "mid_block", "up_blocks"
"""What diffusers calls the parts of a UNet."""

_LAYERS = {"resnets": "resnet", "attentions": "attention"}
_SAMPLERS = {"downsamplers": "downsampler", "upsamplers": "upsampler"}


class Layer(NamedTuple):
    """A layer of a block, or what changes the resolution after its layers.

    Attributes:
        path: Its path in the denoiser.
        kind: What sites of its place are called, such as `"up_attention1"`.
        number: Which layer of its block it is, from 0; of a sampler, how many layers there are.
        sampler: Whether it changes the resolution.
    """

    path: str
    kind: str
    number: int
    sampler: bool

    @property
    def pattern(self) -> SitePattern:
        """The pattern that finds it."""
        return SitePattern(self.path, self.kind)


def unet_blocks(model: nn.Module) -> PatternAdapter:
    """Return the adapter of a UNet's blocks: all but the last one up, with their residuals.

    Example:
        Blocks of Stable Diffusion::

            sampler = sampler_of(pipe, sample, adapter=unet_blocks(pipe.unet))

    Args:
        model: A UNet of diffusers, or one that is built like it, compiled or not.

    Raises:
        AdapterError: It has no blocks down and up.
    """
    unet = checked_unet(model)
    return made(unet, "unet-blocks", [*block_patterns(unet)])


def unet_layers(model: nn.Module) -> PatternAdapter:
    """Return the adapter of the layers in a UNet's blocks, all but the last one up.

    Layers are residual blocks, transformers, and what changes the resolution. They keep more than
    whole blocks do, and leave a plan more to choose from.

    Args:
        model: A UNet of diffusers, or one that is built like it, compiled or not.

    Raises:
        AdapterError: It has no blocks down and up.
    """
    unet = checked_unet(model)
    last = f"{UP}.{count(unet, UP) - 1}"
    most = max(layer.number for layer in layers_of(unet, last) if not layer.sampler)
    found = [layer for path in _paths(unet) for layer in layers_of(unet, path)]
    kept = [
        each for each in found if not (each.path.startswith(f"{last}.") and each.number >= most)
    ]
    return made(unet, "unet-layers", [layer.pattern for layer in kept])


def unet_attention(model: nn.Module) -> PatternAdapter:
    """Return the adapter of the attention in a UNet's transformers, of which T-GATE's sites are.

    Self-attention is of the kind `"attn1"`, cross-attention `"attn2"`. Guidance is taken to be one
    batch with the unconditional half first, as diffusers' pipelines of UNets have it.

    Args:
        model: A UNet of diffusers, or one that is built like it, compiled or not.

    Raises:
        AdapterError: It has no blocks down and up, or no attention in transformers.
    """
    unet = checked_unet(model)
    paths = [path for path, _ in unet.named_modules() if ".transformer_blocks." in path]
    patterns = [
        SitePattern(path, kind)
        for kind in ("attn1", "attn2")
        for path in paths
        if path.endswith(f".{kind}")
    ]
    if not patterns:
        raise AdapterError(f"{type(unet).__name__} has no transformers, so no attention to gate")
    return replace(made(unet, "unet-attention", patterns), guidance="uncond-first")


def checked_unet(model: nn.Module) -> nn.Module:
    """Return the UNet, not its compiled wrapper.

    Args:
        model: What the sampler calls.

    Raises:
        AdapterError: It has no blocks down and up.
    """
    unet = denoiser(model)
    names = [name for name, _ in unet.named_children()]
    if not {DOWN, UP} <= set(names):
        raise AdapterError(
            f"{type(unet).__name__} is no UNet of diffusers' kind: it has no {DOWN!r} and {UP!r}, "
            f"but {names}; for other denoisers there are adapter_for and find_by_structure"
        )
    return unet


def made(unet: nn.Module, name: str, patterns: list[SitePattern]) -> PatternAdapter:
    """Return an adapter of patterns for a UNet.

    Args:
        unet: Whose arguments are asked for what latent and timestep are.
        name: Name of the adapter.
        patterns: Where its sites are.
    """
    latent, timestep = latent_and_timestep(unet)
    return PatternAdapter(name=name, patterns=tuple(patterns), latent=latent, timestep=timestep)


def block_patterns(unet: nn.Module, *, down: int = 0, up: int = 1) -> Iterator[SitePattern]:
    """Yield the patterns of whole blocks, in the order in which they are called.

    Args:
        unet: The denoiser, not its compiled wrapper.
        down: Index of the first block down.
        up: How many blocks up are left out, from the last.
    """
    yield from (SitePattern(f"{DOWN}.{n}", "down") for n in range(down, count(unet, DOWN)))
    if dict(unet.named_children()).get(MID) is not None:
        yield SitePattern(MID, "mid")
    yield from (SitePattern(f"{UP}.{n}", "up") for n in range(count(unet, UP) - up))


def layers_of(unet: nn.Module, path: str) -> list[Layer]:
    """Return the layers of a block in the order in which they are called.

    Args:
        unet: The denoiser, not its compiled wrapper.
        path: Path of the block.
    """
    way = path.partition("_")[0]
    lists = dict(unet.get_submodule(path).named_children())
    found = [
        Layer(f"{path}.{name}.{n}", f"{way}_{kind}{n}", int(n), sampler=False)
        for name, kind in _LAYERS.items()
        if name in lists
        for n, module in lists[name].named_children()
        if module is not None
    ]
    found.sort(key=lambda layer: layer.number)  # residual blocks stay before transformers
    number = max((layer.number for layer in found), default=-1) + 1
    samplers = [
        Layer(f"{path}.{name}.{n}", f"{way}_{kind}{n}", number, sampler=True)
        for name, kind in _SAMPLERS.items()
        if name in lists
        for n, _ in lists[name].named_children()
    ]
    return found + samplers


def count(unet: nn.Module, name: str) -> int:
    """Return how many blocks there are on the way down or up.

    Args:
        unet: The denoiser, not its compiled wrapper.
        name: `DOWN` or `UP`.
    """
    return len(list(unet.get_submodule(name).named_children()))


def _paths(unet: nn.Module) -> list[str]:
    """Return the paths of all blocks."""
    return [pattern.path for pattern in block_patterns(unet, up=0)]
