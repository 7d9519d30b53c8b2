"""Levels of sites: the parts that an adapter names, whole blocks, and spans of blocks.

Parts keep the most and err the least, spans the other way round. The adapters of blocks and spans
are derived from one of parts, whose name theirs begin with.
"""

from typing import Literal, get_args

Level = Literal["parts", "blocks", "spans"]
"""What sites are: `"parts"`, as the adapter names them; `"blocks"`, of which the delta is kept,
output minus input; or `"spans"`, several blocks in a row that are skipped together, with one
delta."""

LEVELS: tuple[Level, ...] = get_args(Level)

_MARK = ":"  # between the name of an adapter and its level


def name_at(adapter: str, level: Level) -> str:
    """Return the name of an adapter's variant.

    Example:
        >>> name_at("flux", "blocks"), name_at("flux", "parts")
        ('flux:blocks', 'flux')

    Args:
        adapter: Name of the adapter of the parts.
        level: What the sites of the variant are.
    """
    return adapter if level == "parts" else f"{adapter}{_MARK}{level}"


def parts_name(adapter: str) -> str:
    """Return the name of the adapter of parts that a variant was derived from.

    Args:
        adapter: Name of an adapter, or of a variant of one.
    """
    before, _, level = adapter.rpartition(_MARK)
    return before if before and level in LEVELS else adapter


def level_of(adapter: str | None) -> Level:
    """Return what the sites of an adapter are, by its name.

    Args:
        adapter: Name of an adapter, or of a variant of one; None for one that is not known.
    """
    _, _, level = (adapter or "").rpartition(_MARK)
    levels = dict[str, Level](zip(LEVELS, LEVELS, strict=True))
    return levels.get(level, "parts")
