"""Configurations of cachify as ordinary schedules.

A configuration names modules by wildcards or functions, and steps by functions. The first releases
of cachify asked it for layers (attentions, residual blocks), later ones for whole blocks; here
both names are asked for. A filter that knows names of layers decides layer by layer, one that only
knows names of blocks decides block by block, and a block all of whose layers are treated alike is
one site: of a transformer its delta, so that what is reused still depends on the latent; of a UNet
its output, whose skips carry the latent. The last layer of a UNet is never reused.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from torch import nn

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.adapters.patterns import PatternAdapter, SitePattern
from smoothcache_core.adapters.signature import latent_and_timestep
from smoothcache_core.adapters.unets import UP, block_patterns, count, layers_of, unet_layers
from smoothcache_core.errors import AdapterError, ScheduleError
from smoothcache_core.schedule.adapter_data import AdapterData
from smoothcache_core.schedule.content import Row
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.provenance import Provenance
from smoothcache_core.schedule.schedule import Schedule

Config = Mapping[str, Any]
"""`wildcard_or_filter_func`, a pattern of `fnmatch` or a function of a module's name, and
`select_cache_step_func`, a function of a step that says whether it is reused, from 0."""

FILTER, SELECT = "wildcard_or_filter_func", "select_cache_step_func"

_BLOCKS: Mapping[str, tuple[str, ...]] = {
    "BasicTransformerBlock": ("hidden_states",),
    "JointTransformerBlock": ("encoder_hidden_states", "hidden_states"),
    "FluxTransformerBlock": ("encoder_hidden_states", "hidden_states"),
}
"""Blocks of transformers, and the arguments that their outputs continue, in the outputs' order."""

_LAYERS = ("attn", "attn1", "attn2", "ff", "ff_context")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of a denoiser.

    Attributes:
        site: The block as a whole.
        layers: What is in it and may be reused by itself.
        whole: Whether it may be reused as a whole.
    """

    site: SitePattern
    layers: tuple[SitePattern, ...]
    whole: bool = True


def schedule_for(model: nn.Module, configs: Sequence[Config], steps: int) -> Schedule:
    """Return the schedule that configurations are for a denoiser; it records where its sites are.

    Args:
        model: The denoiser, compiled or not.
        configs: Where several name a module, the last one counts.
        steps: Evaluations of one run.

    Raises:
        AdapterError: The denoiser has no blocks that are known, or a configuration names none.
        ScheduleError: A configuration is none, or reuses at the first step.
    """
    check_configs(configs)
    inside = denoiser(model)
    chosen = dict(_chosen(blocks_of(inside), configs))
    rows = [_row(number, config, steps) for number, config in enumerate(configs)]
    latent, timestep = latent_and_timestep(inside)
    adapter = PatternAdapter(
        name="cachify", patterns=tuple(chosen), latent=latent, timestep=timestep
    )
    return Schedule(
        evaluations=steps,
        rows={pattern.path: rows[number] for pattern, number in chosen.items()},
        source=Provenance(name="cachify"),
        fingerprint=Fingerprint(
            model_class=type(inside).__name__,
            adapter=adapter.name,
            adapter_data=AdapterData.of_adapter(adapter),
        ),
    )


def check_configs(configs: object) -> None:
    """Refuse what is no list of configurations.

    Args:
        configs: What the user gave.

    Raises:
        ScheduleError: It is none, is empty, or one lacks something.
    """
    if not isinstance(configs, Sequence) or isinstance(configs, str) or not configs:
        raise ScheduleError(
            f"a configuration is a list of dictionaries with {FILTER!r} and {SELECT!r}, got "
            f"{configs!r}"
        )
    for number, config in enumerate(configs):
        right = isinstance(config, Mapping) and {FILTER, SELECT} <= config.keys()
        if not right or not callable(config[SELECT]):
            raise ScheduleError(
                f"configuration {number} is a dictionary with {FILTER!r} and {SELECT!r}, a "
                f"function of the step, got {config!r}"
            )
        if not isinstance(config[FILTER], str) and not callable(config[FILTER]):
            raise ScheduleError(
                f"{FILTER!r} of configuration {number} is a wildcard or a function of a module's "
                f"name, got {config[FILTER]!r}"
            )


def blocks_of(model: nn.Module) -> list[Block]:
    """Return the blocks of a denoiser, in the order in which they are called.

    Args:
        model: The denoiser, not its compiled wrapper.

    Raises:
        AdapterError: It has none that are known.
    """
    names = {name for name, _ in model.named_children()}
    found = list(_of_unet(model) if UP in names else _of_transformer(model))
    if not found:
        raise AdapterError(
            f"cachify knows UNets of diffusers and blocks of the classes {sorted(_BLOCKS)}, and "
            f"{type(model).__name__} has neither; calibrate and plan it, which needs no names"
        )
    return found


def _of_unet(unet: nn.Module) -> Iterator[Block]:
    known = set(unet_layers(unet).patterns)
    last = f"{UP}.{count(unet, UP) - 1}"
    for site in block_patterns(unet, up=0):
        layers = [layer.pattern for layer in layers_of(unet, site.path)]
        kept = tuple(layer for layer in layers if layer in known)
        yield Block(site=site, layers=kept, whole=site.path != last)


def _of_transformer(model: nn.Module) -> Iterator[Block]:
    for path, module in model.named_modules():
        inputs = next(
            (_BLOCKS[b.__name__] for b in type(module).__mro__ if b.__name__ in _BLOCKS), None
        )
        if inputs is None:
            continue
        if getattr(module, "context_pre_only", False):  # it gives no text
            inputs = inputs[1:]
        children = dict(module.named_children())
        kind = path.rpartition(".")[0].rpartition(".")[2] or "block"
        yield Block(
            site=SitePattern(path, kind, target="delta", inputs=inputs),
            layers=tuple(SitePattern(f"{path}.{n}", n) for n in _LAYERS if n in children),
        )


def _chosen(
    blocks: Sequence[Block], configs: Sequence[Config]
) -> Iterator[tuple[SitePattern, int]]:
    """Yield sites, each with the number of the configuration that counts for it."""
    decided: dict[SitePattern, int] = {}
    for number, config in enumerate(configs):
        decided |= dict.fromkeys(_named(blocks, number, config[FILTER]), number)
    for block in blocks:
        numbers = [decided.get(layer) for layer in block.layers]
        pairs = zip(block.layers, numbers, strict=True)
        known = [(layer, number) for layer, number in pairs if number is not None]
        if block.whole and len(known) == len(numbers) and len(set(numbers)) == 1:
            yield block.site, known[0][1]
        else:
            yield from known


def _named(
    blocks: Sequence[Block], number: int, name: str | Callable[[str], object]
) -> list[SitePattern]:
    """Return the layers that a configuration names, by themselves or by their blocks."""

    def matches(pattern: SitePattern) -> bool:
        return fnmatch(pattern.path, name) if isinstance(name, str) else bool(name(pattern.path))

    found = [layer for block in blocks for layer in block.layers if matches(layer)]
    if not found:
        found = [layer for block in blocks if matches(block.site) for layer in block.layers]
    if not found:
        shown = [blocks[0].site.path, *(layer.path for layer in blocks[0].layers[:1])]
        raise AdapterError(
            f"{FILTER!r} of configuration {number} matches no block or layer; they are called "
            f"{shown} and so on, to {blocks[-1].site.path!r}"
        )
    return found


def _row(number: int, config: Config, steps: int) -> Row:
    row: Row = tuple(0 if config[SELECT](step) else 1 for step in range(steps))
    if not row[0]:
        raise ScheduleError(
            f"{SELECT!r} of configuration {number} reuses at step 0, where nothing has been "
            "computed yet; let it return False there"
        )
    return row
