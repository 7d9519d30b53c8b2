"""Shares of the cost. What is counted is tested with calibration."""

import pytest
import torch
from smoothcache_core.adapters import Site
from smoothcache_core.calls.flops import flop_counter
from smoothcache_core.schedule import Cost, SiteCost
from torch.nn.functional import scaled_dot_product_attention

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


@pytest.mark.parametrize("heads", [4, 2, 1])
def test_attention_with_fewer_heads_of_keys_costs_as_much(heads: int):
    query, key = torch.ones(2, 4, 8, 16), torch.ones(2, heads, 6, 16)
    with flop_counter() as counter:
        scaled_dot_product_attention(query, key, key, enable_gqa=heads < 4)
    assert counter.get_total_flops() == 2 * 2 * 2 * 4 * 8 * 6 * 16
