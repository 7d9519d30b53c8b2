"""Sites as SmoothCache names them: components of all blocks of a class."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.adapters.patterns import PatternAdapter, SitePattern
from smoothcache_core.adapters.signature import latent_and_timestep
from smoothcache_core.errors import AdapterError, ScheduleError
from smoothcache_core.schedule.schedule import Schedule

BlockClasses = type[nn.Module] | str | Sequence[type[nn.Module] | str]
"""Classes of blocks, or their names; one, or several."""

ALIASES = {"attn": "attn1", "mlp": "ff"}
"""Components as published schedules name them (those of facebook's DiT), and as diffusers does."""


def listed(block_classes: BlockClasses) -> list[type[nn.Module] | str]:
    """Return classes of blocks as a list."""
    one = isinstance(block_classes, type | str)
    return [block_classes] if one else list(block_classes)


def block_adapter(
    model: nn.Module, block_classes: BlockClasses, components: Sequence[str]
) -> PatternAdapter:
    """Return an adapter whose sites are the components of every block of some classes.

    Components that a block has not, or that are None, are left out.

    Args:
        model: The denoiser that the sampler calls, compiled or not.
        block_classes: Classes of blocks or their names; subclasses count.
        components: Names of the blocks' attributes that are sites.

    Raises:
        AdapterError: There are no such blocks, or none has any of the components.
    """
    inside = denoiser(model)
    names = [each if isinstance(each, str) else each.__name__ for each in listed(block_classes)]
    blocks = list(_blocks(inside, names))
    if not blocks:
        raise AdapterError(
            f"{type(inside).__name__} has no block of the classes {names}; it is made of "
            f"{sorted({type(module).__name__ for module in inside.modules()} - _PLAIN)}"
        )
    patterns = tuple(
        SitePattern(f"{path}.{name}" if path else name, name)
        for path, block in blocks
        for name in components
        if isinstance(getattr(block, name, None), nn.Module)
    )
    if not patterns:
        parts = [name for name, _ in blocks[0][1].named_children()]
        raise AdapterError(
            f"no {names[0]} of {type(inside).__name__} has any of {list(components)}, but {parts}"
        )
    latent, timestep = latent_and_timestep(inside)
    return PatternAdapter(
        name="blocks",
        patterns=patterns,
        classes=(type(inside).__name__,),
        latent=latent,
        timestep=timestep,
    )


_PLAIN = {"Linear", "Dropout", "LayerNorm", "SiLU", "GELU", "Identity", "ModuleList", "Sequential"}
"""Classes that no error needs to name: no denoiser's blocks."""


def _blocks(model: nn.Module, names: Sequence[str]) -> Iterator[tuple[str, nn.Module]]:
    for path, module in model.named_modules():
        if any(base.__name__ in names for base in type(module).__mro__):
            yield path, module


def renamed(
    rows: Mapping[str, Any], components: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return rows under the names of components, and which names were changed to which.

    Args:
        rows: Rows of a schedule by component, or by component and block, such as `"attn-3"`.
        components: What the components of the blocks are called.
    """
    changed: dict[str, str] = {}
    found: dict[str, Any] = {}
    for key, row in rows.items():
        kind, dash, block = str(key).partition("-")
        other = ALIASES.get(kind, kind)
        if kind not in components and other in components:
            changed[kind] = other
            kind = other
        found[f"{kind}{dash}{block}"] = row
    return found, changed


def schedule_for(rows: Mapping[str, Any], components: Sequence[str]) -> tuple[Schedule, list[str]]:
    """Return the schedule that rows are for some components, and the keys that name none of them.

    Args:
        rows: Rows of 0 (reuse) and 1 (compute), by component or by component and block.
        components: What is wrapped.

    Raises:
        ScheduleError: No row is left, or one is not valid.
    """
    known = {key: row for key, row in rows.items() if key.partition("-")[0] in components}
    if not known:
        raise ScheduleError(
            f"nothing would be cached: the schedule has rows of {sorted(map(str, rows))}, and what "
            f"is wrapped is {list(components)}"
        )
    return Schedule.imported(known), [key for key in rows if key not in known]
