"""What a denoiser costs: MACs per site and in all, by torch's own flop counter on real shapes."""

from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from smoothcache_core.adapters.sites import DENOISER, GUIDANCE, Site
from smoothcache_core.schedule.values import Count, Text, Value


class SiteCost(Value):
    """MACs and output bytes of one site in one evaluation.

    Attributes:
        path: Path of the site in the denoiser; empty for the denoiser itself.
        kind: Kind of the site.
        block: Index of its block, from 0.
        macs: Multiply-accumulates of one evaluation, over all branches and the whole batch that was
            measured; at least 0.
        bytes: Bytes of its outputs in one evaluation, likewise; what one cached entry takes.
        entries: Entries of floating point among them; None if that is not known.
    """

    path: Text
    kind: Text
    block: Count
    macs: Count
    bytes: Count
    entries: Count | None = None

    @model_serializer(mode="wrap")
    def _without_unknown(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _known(serialise(self))

    @property
    def width(self) -> float | None:
        """Bytes of one entry of its outputs, by which they can be narrowed; None if not known."""
        return _width(self.bytes, self.entries)

    def site(self) -> Site:
        """Return the site this is the cost of."""
        return Site(path=self.path, kind=self.kind, block=self.block)


def _known(content: dict[str, Any]) -> dict[str, Any]:
    """Return what a file holds: fields that files of before have not are left out if not known."""
    later = ("entries", "output_entries")
    return {k: v for k, v in content.items() if v is not None or k not in later}


def _width(size: int, entries: int | None) -> float | None:
    return size / entries if entries else None


def _of_distinct_sites(costs: tuple[SiteCost, ...]) -> tuple[SiteCost, ...]:
    seen: set[str] = set()
    for cost in costs:
        if cost.path in seen:
            raise ValueError(f"the site {cost.path!r} occurs twice")
        seen.add(cost.path)
    return costs


class Cost(Value):
    """MACs of one evaluation over all branches, at the shapes that were measured.

    Example:
        >>> calibration.cost.fraction("block")
        1.0

    Attributes:
        total: MACs (multiply-accumulates) of the whole denoiser, of which the sites are a part: at
            least those of all sites together. 0 where they cannot be counted, as of a denoiser that
            is not computed by torch.
        sites: MACs and output bytes of every site, in the adapter's order.
        output_bytes: Bytes of the denoiser's output, 0 if not known.
        output_entries: Entries of floating point in it; None if that is not known.
    """

    total: Count
    sites: Annotated[tuple[SiteCost, ...], AfterValidator(_of_distinct_sites)]
    output_bytes: Count = 0
    output_entries: Count | None = None

    @model_serializer(mode="wrap")
    def _without_unknown(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _known(serialise(self))

    @property
    def output_width(self) -> float | None:
        """Bytes of one entry of the denoiser's output; None if that is not known."""
        return _width(self.output_bytes, self.output_entries)

    @model_validator(mode="after")
    def _check_total(self) -> Self:
        inside = sum(site.macs for site in self.sites)
        if inside > self.total:
            raise ValueError(f"the sites cost {inside} MACs, the whole denoiser {self.total}")
        return self

    @property
    def counted(self) -> bool:
        """Whether MACs could be counted; else one evaluation is the unit of all fractions."""
        return self.total > 0

    def kept_bytes(self, kind: str | None = None) -> int:
        """Return the bytes of one kept copy of the outputs of sites, all branches counted.

        A fill of several terms keeps as many copies.

        Args:
            kind: Kind of the sites; `"denoiser"` for the output of a whole evaluation, `"guidance"`
                for the guidance difference; all sites if not given.
        """
        whole = {DENOISER.kind: self.output_bytes, GUIDANCE.kind: self.output_bytes // 2}
        if kind in whole:
            return whole[kind]
        return sum(site.bytes for site in self.sites if kind in (None, site.kind))

    def fraction(self, kind: str | None = None) -> float:
        """Return the share of the MACs spent in sites.

        Args:
            kind: Kind of the sites to count; all of them if not given.

        Returns:
            In [0, 1]; 0 if the denoiser costs nothing.
        """
        return sum(s.macs for s in self.sites if kind in (None, s.kind)) / (self.total or 1)
