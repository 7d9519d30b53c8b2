"""Shares of the cost. What is counted is tested with calibration."""

import pytest
from smoothcache_core import Cost, Site, SiteCost

COST = Cost(
    total=10,
    sites=(
        SiteCost(path="blocks.0.attn", kind="attn", block=0, macs=2, bytes=8),
        SiteCost(path="blocks.1.attn", kind="attn", block=1, macs=2, bytes=8),
        SiteCost(path="blocks.0.ff", kind="ff", block=0, macs=4, bytes=8),
    ),
)


@pytest.mark.parametrize(("kind", "share"), [(None, 0.8), ("attn", 0.4), ("ff", 0.4), ("x", 0.0)])
def test_fraction_is_the_share_of_the_sites(kind: str | None, share: float):
    assert COST.fraction(kind) == share


def test_a_model_without_cost_spends_no_share():
    assert Cost(total=0, sites=()).fraction() == 0.0


def test_a_cost_names_its_site():
    assert COST.sites[1].site() == Site(path="blocks.1.attn", kind="attn", block=1)
