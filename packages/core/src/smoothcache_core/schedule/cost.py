"""What a denoiser costs: MACs per site and in all, by torch's own flop counter on real shapes."""

from pydantic import BaseModel, ConfigDict

from smoothcache_core.adapters.sites import Site


class SiteCost(BaseModel):
    """MACs and output bytes of one site in one evaluation."""

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

    Attributes:
        total: MACs of the whole denoiser.
        sites: MACs and output bytes of every site, in the adapter's order.
        output_bytes: Bytes of the denoiser's output, 0 if not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    total: int
    sites: tuple[SiteCost, ...]
    output_bytes: int = 0

    def fraction(self, kind: str | None = None) -> float:
        """Return the share of the MACs spent in the sites (of one `kind`), 0 of nothing."""
        return sum(s.macs for s in self.sites if kind in (None, s.kind)) / (self.total or 1)
