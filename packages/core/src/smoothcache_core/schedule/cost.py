"""What a denoiser costs: MACs per site and in all, by torch's own flop counter on real shapes."""

from pydantic import BaseModel, ConfigDict

from smoothcache_core.adapters.sites import Site


class SiteCost(BaseModel):
    """MACs and output bytes of one site in one evaluation.

    Attributes:
        path: Path of the site in the denoiser; empty for the denoiser itself.
        kind: Kind of the site.
        block: Index of its block, from 0.
        macs: Multiply-accumulates of one evaluation, over all branches and the whole batch that was
            measured; at least 0.
        bytes: Bytes of its outputs in one evaluation, likewise; what one cached entry takes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    kind: str
    block: int
    macs: int
    bytes: int

    def site(self) -> Site:
        """Return the site this is the cost of."""
        return Site(path=self.path, kind=self.kind, block=self.block)


class Cost(BaseModel):
    """MACs of one evaluation over all branches, at the shapes that were measured.

    Example:
        >>> calibration.cost.fraction("block")
        1.0

    Attributes:
        total: MACs (multiply-accumulates) of the whole denoiser, of which the sites are a part.
        sites: MACs and output bytes of every site, in the adapter's order.
        output_bytes: Bytes of the denoiser's output, 0 if not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    total: int
    sites: tuple[SiteCost, ...]
    output_bytes: int = 0

    def fraction(self, kind: str | None = None) -> float:
        """Return the share of the MACs spent in sites.

        Args:
            kind: Kind of the sites to count; all of them if not given.

        Returns:
            In [0, 1]; 0 if the denoiser costs nothing.
        """
        return sum(s.macs for s in self.sites if kind in (None, s.kind)) / (self.total or 1)
