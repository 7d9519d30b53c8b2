"""Denoisers that no adapter is known for, and what is found of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from kit.helpers import anatomy
from smoothcache_core import PatternAdapter, SitePattern
from smoothcache_core.adapters import whole_evaluations
from smoothcache_core.discovering import Structure, find_by_structure, structure_of
from smoothcache_core.errors import AdapterError
from torch import Tensor, nn

WIDTH = 16
TIMESTEPS = (0.9, 0.6, 0.3, 0.1)


class Attention(nn.Module):
    """Mixes tokens, by names that nobody else gives."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.outward = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        parts = self.inward(tokens).chunk(3, dim=-1)
        return self.outward(nn.functional.scaled_dot_product_attention(*parts))


def feed_forward() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))


class Block(nn.Module):
    """A residual block of two parts with unusual names."""

    def __init__(self) -> None:
        super().__init__()
        self.mixer, self.widening = Attention(), feed_forward()

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.mixer(tokens)
        return tokens + self.widening(tokens)


class FusedBlock(nn.Module):
    """A residual block whose attention is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.outward = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.widening = feed_forward()

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        parts = self.inward(tokens).chunk(3, dim=-1)
        mixed = self.outward(nn.functional.scaled_dot_product_attention(*parts))
        return tokens + condition * mixed + self.widening(tokens)


class InPlaceBlock(Block):
    """A block that scales what its attention gives in place."""

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.mixer(tokens).mul_(0.5)
        return tokens + self.widening(tokens)


class SplitBlock(nn.Module):
    """A block of two single layers, under the usual names."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.ff = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(tokens).tanh()
        return tokens + self.ff(tokens).tanh()


class RenamedBlock(nn.Module):
    """The same, under other names."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.one(tokens).tanh()
        return tokens + self.other(tokens).tanh()


class MixingBlock(Block):
    """A block that has a feed forward and leaves it out."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.mixer(tokens)


class Denoiser(nn.Module):
    """Runs its blocks one after the other; time scales the tokens."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(blocks)

    def forward(self, x: Tensor, t: float) -> Tensor:
        tokens = x * t
        for block in self.layers:
            tokens = block(tokens)
        return tokens


class PairedDenoiser(nn.Module):
    """Its blocks are pairs in a list, as in much code of one file."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList((Attention(), feed_forward())) for _ in range(3))

    def forward(self, x: Tensor, t: float) -> Tensor:
        tokens = x * t
        for pair in self.layers:
            for part in pair:  # pyright: ignore[reportGeneralTypeIssues]
                tokens = tokens + part(tokens)
        return tokens


class SequentialDenoiser(nn.Module):
    """Its blocks are in a sequence, and nothing else calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(Block(), Block())

    def forward(self, x: Tensor, t: float) -> Tensor:
        return self.body(x * t)


class SkippingDenoiser(nn.Module):
    """The later half of its blocks is given a projection of the earlier ones' outputs too."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList((Block(), Block()))
        self.joint = nn.ModuleList((SkipBlock(), Block()))

    def forward(self, x: Tensor, t: float) -> Tensor:
        first = self.layers[0](x * t)
        tokens = self.layers[1](first)
        return self.joint[1](self.joint[0](tokens, first))


class SkipBlock(Block):
    """A block that begins with a projection of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.joining = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, tokens: Tensor, early: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(self.joining(torch.cat((tokens, early), dim=-1)))


class ReadingDenoiser(nn.Module):
    """Refines a text that is the same in every evaluation, then the latent."""

    def __init__(self) -> None:
        super().__init__()
        self.text_layers = nn.ModuleList((Block(), Block()))
        self.layers = nn.ModuleList(FusedBlock() for _ in range(2))

    def forward(self, x: Tensor, t: float) -> Tensor:
        text = torch.ones(1, 4, WIDTH)
        for block in self.text_layers:
            text = block(text)
        tokens = x * t
        for block in self.layers:
            tokens = block(tokens, condition=text.mean(dim=1, keepdim=True))
        return tokens


def sampling(model: nn.Module, *, passes: int = 1, tokens: int = 8) -> Callable[[int], Tensor]:
    """Return a sampler of four steps, with so many calls in each."""

    def run(seed: int) -> Tensor:
        latent = torch.randn(2, tokens, WIDTH, generator=torch.Generator().manual_seed(seed))
        for time in TIMESTEPS:
            outputs = [model(latent + number, time) for number in range(passes)]
            latent = latent - sum(outputs) / (4 * passes)
        return latent

    return run


def found_in(model: nn.Module, **settings: Any) -> Structure:
    return structure_of(model, sampling(model, **settings))


def sites_of(model: nn.Module) -> list[tuple[str, str, tuple[str, ...]]]:
    sites = found_in(model).adapter.sites(model)
    return [(site.path, site.target, site.inputs) for site in sites]


# ---------------------------------------------------------------------------- what is found


def test_parts_of_blocks_are_found_whatever_their_names():
    found = found_in(Denoiser(Block(), Block()))
    assert found.adapter == PatternAdapter(
        name="Denoiser",
        patterns=(
            SitePattern("layers.*.mixer", "mixer"),
            SitePattern("layers.*.widening", "widening"),
        ),
        latent="x",
        timestep="t",
    )
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert found.left_out == {}


def test_a_block_whose_attention_is_no_module_is_a_site_itself():
    model = ReadingDenoiser()
    found = found_in(model)
    (pattern,) = found.adapter.patterns
    assert pattern == SitePattern("layers.*", "layers", "delta", ("tokens",))
    assert found.left_out["layers.0.widening"] == (
        "the sites of 'layers.0' do too little, so it is one itself"
    )


def test_what_only_reads_the_text_does_not_change_and_is_left_out():
    left_out = found_in(ReadingDenoiser()).left_out
    assert left_out["text_layers.1.mixer"] == "it does not change from evaluation to evaluation"


def test_an_output_that_is_changed_in_place_is_no_site():
    assert sites_of(Denoiser(InPlaceBlock(), InPlaceBlock())) == [
        ("layers.0", "delta", ("tokens",)),
        ("layers.1", "delta", ("tokens",)),
    ]


def test_single_layers_are_found_by_the_usual_names_only():
    assert [path for path, _, _ in sites_of(Denoiser(SplitBlock()))] == [
        "layers.0.attn",
        "layers.0.ff",
    ]
    assert [path for path, _, _ in sites_of(Denoiser(RenamedBlock()))] == ["layers.0"]


def test_blocks_of_two_kinds_have_patterns_of_their_own():
    model = Denoiser(Block(), SplitBlock(), Block())
    paths = [pattern.path for pattern in found_in(model).adapter.patterns]
    assert paths == ["layers.*.mixer", "layers.*.widening", "layers.*.attn", "layers.*.ff"]


def test_pairs_in_a_list_are_told_apart_by_their_number():
    found = found_in(PairedDenoiser())
    assert found.adapter.patterns == (
        SitePattern("layers.*.0", "layers_0"),
        SitePattern("layers.*.1", "layers_1"),
    )
    assert sum(found.shares.values()) == pytest.approx(1.0)


def test_blocks_may_be_a_sequence():
    found = found_in(SequentialDenoiser())
    assert [p.path for p in found.adapter.patterns] == ["body.*.mixer", "body.*.widening"]


def test_a_block_with_a_skip_connection_is_one_as_its_neighbours_are():
    paths = {path for path, _, _ in sites_of(SkippingDenoiser())}
    assert {"joint.0.mixer", "joint.0.widening", "joint.1.mixer", "layers.0.mixer"} <= paths


def test_a_module_of_two_blocks_is_left_out_and_says_why():
    first, second = Block(), Block()
    second.widening = first.widening
    found = found_in(Denoiser(first, second))
    assert found.left_out["layers.0.widening"] == "it is one module with several paths"
    assert all(
        site.path != "layers.0.widening" for site in found.adapter.sites(Denoiser(first, second))
    )


def test_a_module_that_is_never_called_is_left_out_and_says_why():
    model = Denoiser(Block(), Block())
    model.layers[1].add_module("spare", Attention())
    found = found_in(model)
    assert found.left_out == {"layers.1.spare": "it is never called as a module"}
    assert [pattern.path for pattern in found.adapter.patterns] == [
        "layers.*.mixer",
        "layers.*.widening",
    ]


def test_a_pattern_does_not_find_what_is_no_site():
    model = Denoiser(Block(), MixingBlock(), Block())
    found = found_in(model)
    assert found.left_out["layers.1.widening"] == "it is never called as a module"
    paths = {site.path for site in found.adapter.sites(model)}
    assert paths == {f"layers.{n}.mixer" for n in range(3)} | {
        "layers.0.widening",
        "layers.2.widening",
    }


def test_two_calls_in_an_evaluation_that_nobody_announces_are_one_evaluation():
    model = ReadingDenoiser()
    assert found_in(model, passes=2).adapter == found_in(model).adapter


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))])
def test_a_denoiser_without_blocks_has_whole_evaluations(model: nn.Module):
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = model

        def forward(self, x: Tensor, t: float) -> Tensor:
            return x * t

    plain = Plain()
    assert found_in(plain).adapter == whole_evaluations(plain)


# ---------------------------------------------------------------------------- how


def test_the_sampler_is_stopped_when_the_third_evaluation_begins():
    model, calls = Denoiser(Block()), list[float]()
    model.register_forward_pre_hook(lambda _, given: calls.append(given[1]))
    find_by_structure(model, sampling(model))
    assert calls[:2] == [*TIMESTEPS[:2]]
    assert len(calls) <= 3  # the third is not computed, but torch may have called the hook before


def test_the_model_is_as_it_was():
    model = Denoiser(Block(), InPlaceBlock())
    before = anatomy(model)
    find_by_structure(model, sampling(model))
    assert anatomy(model) == before


def test_a_run_of_one_evaluation_is_enough_to_find_something():
    model = Denoiser(Block())
    found = structure_of(model, lambda seed: model(torch.ones(1, 4, WIDTH) + seed, 1.0))
    assert [pattern.kind for pattern in found.adapter.patterns] == ["mixer", "widening"]


def test_the_adapter_prints_as_the_code_that_makes_it():
    model = ReadingDenoiser()
    adapter = find_by_structure(model, sampling(model))
    names = {"PatternAdapter": PatternAdapter, "SitePattern": SitePattern}
    assert eval(repr(adapter), names) == adapter
    assert "optional" not in repr(adapter)


def test_two_searches_find_the_same():
    model = Denoiser(Block(), InPlaceBlock(), SplitBlock())
    assert find_by_structure(model, sampling(model)) == find_by_structure(
        model, sampling(model), seed=7
    )


def test_a_run_that_never_calls_the_denoiser_is_refused():
    model = Denoiser(Block())
    with pytest.raises(AdapterError, match="the run never called the Denoiser"):
        find_by_structure(model, lambda seed: None)


def test_a_compiled_denoiser_is_refused():
    model = torch.compile(Denoiser(Block()), backend="eager")
    with pytest.raises(AdapterError, match="this Denoiser is compiled"):
        find_by_structure(model, lambda seed: None)  # pyright: ignore[reportArgumentType] torch's stub says a function


def test_what_was_found_is_told_in_one_line(caplog: pytest.LogCaptureFixture):
    model = Denoiser(Block())
    with caplog.at_level("INFO", logger="smoothcache_core"):
        find_by_structure(model, sampling(model))
    assert caplog.messages[-1].startswith(
        "Denoiser: sites were found by structure; of the MACs they do: mixer "
    )
