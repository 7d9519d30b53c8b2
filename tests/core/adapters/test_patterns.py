"""Adapters that are only data: where the sites of a model are."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from kit.helpers import ADAPTER, Toy, assert_followed, places, sample, schedule_of
from smoothcache_core import PatternAdapter, Sampler, SitePattern, attach, cached
from smoothcache_core.adapters import Site
from smoothcache_core.errors import AdapterError
from torch import nn


def tree(**children: nn.Module | None) -> nn.Module:
    """Return a module with these children."""
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    return module


def block(**children: nn.Module | None) -> nn.Module:
    return tree(**{"attn": nn.Identity(), "ff": nn.Identity(), **children})


def adapter(*patterns: str) -> PatternAdapter:
    return PatternAdapter(name="x", patterns=tuple(SitePattern(p, "any") for p in patterns))


def paths(model: nn.Module, *patterns: str) -> list[str]:
    return [site.path for site in adapter(*patterns).sites(model)]


def test_sites_carry_their_kind_and_block():
    attn = [Site(path=f"blocks.{i}.attn", kind="attn", block=i) for i in range(3)]
    ff = [Site(path=f"blocks.{i}.ff", kind="ff", block=i) for i in range(3)]
    assert ADAPTER.sites(Toy(blocks=3)) == (*attn, *ff)


def test_the_first_wildcard_names_the_block():
    inner = nn.ModuleList([nn.Identity(), nn.Identity()])
    model = tree(stages=nn.ModuleList([tree(layers=inner)]), single_3=nn.Identity())
    sites = adapter("stages.*.layers.*", "single_3").sites(model)
    assert [(site.path, site.block) for site in sites] == [
        ("stages.0.layers.0", 0),
        ("stages.0.layers.1", 0),
        ("single_3", 0),
    ]


def test_blocks_are_in_the_order_of_the_list_not_of_the_alphabet():
    model = tree(blocks=nn.ModuleList(block() for _ in range(12)))
    assert [site.block for site in adapter("blocks.*.attn").sites(model)] == list(range(12))


def test_a_wildcard_crosses_no_dot():
    model = tree(blocks=nn.ModuleList([block(attn=block())]))
    assert paths(model, "blocks.*.attn") == ["blocks.0.attn"]
    assert paths(model, "blocks.*.a*.attn") == ["blocks.0.attn.attn"]
    assert paths(model, "blocks.[0-9].f?") == ["blocks.0.ff"]


def test_two_lists_may_share_an_index():
    model = tree(spatial=nn.ModuleList([block()]), temporal=nn.ModuleList([block()]))
    assert paths(model, "*.*.attn") == ["spatial.0.attn", "temporal.0.attn"]


def test_components_that_are_none_are_left_out():
    blocks = nn.ModuleList([block(cross=None), block(cross=nn.Identity())])
    vars(blocks[0])["later"] = None  # a plain attribute, as some models have
    blocks[1].add_module("later", nn.Identity())
    model = tree(blocks=blocks)
    assert paths(model, "blocks.*.cross", "blocks.*.later") == ["blocks.1.cross", "blocks.1.later"]


def test_only_components_that_are_none_are_refused():
    model = tree(blocks=nn.ModuleList([block(cross=None)]))
    with pytest.raises(AdapterError, match=r"every component at \['blocks.\*.cross'\] is None"):
        paths(model, "blocks.*.cross")


@pytest.mark.parametrize("pattern", ["blocks.*.mlp", "layers.*.attn", "blocks.7.attn", "blocks.0."])
def test_a_pattern_that_finds_nothing_is_refused(pattern: str):
    with pytest.raises(AdapterError, match=r"'x' found nothing at \['.*'\] in Toy") as refused:
        paths(Toy(), "blocks.*.attn", pattern)
    assert pattern in str(refused.value)
    assert "its children are ['blocks']" in str(refused.value)


def test_a_module_that_is_two_sites_is_refused():
    shared = nn.Identity()
    model = tree(blocks=nn.ModuleList([block(attn=shared), block(attn=shared)]))
    with pytest.raises(AdapterError, match=r"'blocks.0.attn' and 'blocks.1.attn' are the same"):
        paths(model, "blocks.*.attn")


def test_a_site_found_twice_is_refused():
    with pytest.raises(AdapterError, match=r"'blocks.0.attn' is found by more than one pattern"):
        paths(Toy(), "blocks.*.attn", "blocks.0.a*")


MEMBERS: dict[str, Any] = {
    "name": ADAPTER.name,
    "latent": "hidden_states",
    "timestep": "timestep",
    "guidance": None,
    "variant": lambda model, args, kwargs: None,
}


def test_any_object_may_be_an_adapter():
    sites = ADAPTER.sites(Toy())
    own: Any = SimpleNamespace(**MEMBERS, sites=lambda model: sites)
    toy = Toy()
    with cached(toy, own, schedule_of()) as stats:
        sample(toy)
    assert_followed(toy, schedule_of(), places(0))
    assert stats.runs == 1


@pytest.mark.parametrize("lacking", ["guidance", "variant", "latent", "name", "sites"])
def test_an_adapter_that_lacks_a_member_is_refused(lacking: str):
    members = {**MEMBERS, "sites": lambda model: ADAPTER.sites(Toy())}
    del members[lacking]
    own: Any = SimpleNamespace(**members)
    with pytest.raises(AdapterError, match=f"SimpleNamespace is no adapter, it has no {lacking};"):
        attach(Toy(), own, schedule_of())
    with pytest.raises(AdapterError, match=f"SimpleNamespace is no adapter, it has no {lacking};"):
        Sampler(model=Toy(), adapter=own, run=lambda seed: None)


def test_what_a_pattern_adapter_says_of_guidance_and_variants_by_default():
    adapter = PatternAdapter(name="x", patterns=())
    assert adapter.guidance is None
    assert adapter.variant(Toy(), (), {}) is None


def test_keys_go_from_the_path_to_the_kind():
    site = Site(path="blocks.3.attn", kind="attn", block=3)
    assert site.row_keys() == ("blocks.3.attn", "attn-3", "attn")


def test_an_optional_pattern_may_find_nothing():
    model = tree(blocks=nn.ModuleList([block(), block()]))
    patterns = (SitePattern("blocks.*.attn", "attn"), SitePattern("blocks.*.more", "more"))
    with pytest.raises(AdapterError, match=r"found nothing at \['blocks.\*.more'\]"):
        PatternAdapter(name="x", patterns=patterns).sites(model)
    optional = (patterns[0], replace(patterns[1], optional=True))
    sites = PatternAdapter(name="x", patterns=optional).sites(model)
    assert [site.kind for site in sites] == ["attn", "attn"]
