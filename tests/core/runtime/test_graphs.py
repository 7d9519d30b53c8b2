"""Caching what `torch.compile` compiled: how many graphs, no breaks, the same numbers."""

from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from smoothcache_core import (
    PatternAdapter,
    Schedule,
    SitePattern,
    SmoothCacheWarning,
    SpanPattern,
    attach,
    cached,
)
from smoothcache_core.runtime.graphs import graph_variants, variants
from smoothcache_core.schedule import Channels
from smoothcache_core.schedule.fill import Fill
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")]

DIT = PatternAdapter(
    name="dit",
    guidance="cond-first",
    patterns=(
        SitePattern("transformer_blocks.*.attn1", "attn1"),
        SitePattern("transformer_blocks.*.ff", "ff"),
    ),
)
SPANS = PatternAdapter(
    name="dit",
    patterns=(SpanPattern("transformer_blocks", "span", inputs=("hidden_states",)),),
)
STEPS = (9, 7, 5, 4, 2, 1)
SAME = Schedule(evaluations=6, rows={"attn1": (1, 1, 0, 1, 0, 1), "ff": (1, 1, 0, 1, 0, 1)})
OTHER = Schedule(evaluations=6, rows={"attn1": (1, 0, 0, 1, 0, 1), "ff": (1, 1, 0, 0, 1, 0)})
ALTERNATE = Schedule(evaluations=6, rows={"attn1": (1, 0, 1, 0, 1, 0), "ff": (1, 0, 1, 0, 1, 0)})
LINE, PARABOLA = (2.0, -1.0), (3.0, -3.0, 1.0)
ROW = (1, 1, 0, 1, 0, 0)
FILLED = Schedule(  # the fill of two terms is padded to three, so there is one graph of fills
    evaluations=6,
    rows={"attn1": ROW, "ff": ROW},
    fills={kind: Fill(terms={2: LINE, 4: PARABOLA}) for kind in ("attn1", "ff")},
)
SPAN = Schedule(evaluations=6, rows={"span": ROW}, fills={"span": Fill(terms={2: LINE})})
FILLED_APART = Schedule(
    evaluations=6,
    rows={"attn1": ROW, "ff": ROW},
    fills={"attn1": Fill(terms={2: LINE, 4: (0.5,)}), "ff-0": Fill(terms={2: LINE, 4: PARABOLA})},
)


def dit(layers: int) -> DiTTransformer2DModel:
    model = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        num_layers=layers,
        sample_size=4,
        patch_size=2,
        num_embeds_ada_norm=10,
    ).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


@torch.no_grad()
def sample(model: Callable[..., Any]) -> list[Tensor]:
    latent = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    labels, outputs = torch.tensor([1, 2]), []
    for step in STEPS:
        timestep = torch.tensor([step, step])
        outputs.append(model(latent, timestep, class_labels=labels, return_dict=False)[0])
        latent = latent - outputs[-1] / 8
    return outputs


def guided(model: Callable[..., Any]) -> list[Tensor]:
    """Sample one row with guidance; return its latents."""
    latent = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    labels, latents = torch.tensor([1, 2]), []
    for step in STEPS:
        both, timestep = torch.cat((latent, latent)), torch.tensor([step, step])
        output = model(both, timestep, class_labels=labels, return_dict=False)[0]
        conditional, unconditional = output.chunk(2)
        latent = latent - (unconditional + 1.5 * (conditional - unconditional)) / 8
        latents.append(latent)
    return latents


def by_block(model: DiTTransformer2DModel, backend: Any) -> Any:
    for block in model.transformer_blocks:
        block.compile(fullgraph=True, backend=backend)
    return model


def whole(model: DiTTransformer2DModel, backend: Any) -> Any:
    return torch.compile(model, fullgraph=True, backend=backend)


def in_place(model: DiTTransformer2DModel, backend: Any) -> Any:
    model.compile(fullgraph=True, backend=backend)
    return model


@pytest.fixture(autouse=True)
def nothing_compiled() -> Generator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    assert not counters["graph_break"]
    torch.compiler.reset()


@contextmanager
def limit(graphs: int) -> Generator[None]:
    with torch._dynamo.config.patch(recompile_limit=graphs):  # pyright: ignore[reportPrivateUsage]
        yield


def equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


# Graphs of the plain model, and of the plain and the cached model. The input of the first block is
# laid out unlike that of the others, so block by block there are two graphs of everything.
GRAPHS = {
    "2 blocks": (by_block, 2, SAME, 2, 2 * (1 + 3)),
    "5 blocks": (by_block, 5, SAME, 2, 2 * (1 + 3)),
    "3 blocks, kinds apart": (by_block, 3, OTHER, 2, 2 * (1 + 4)),
    "whole, 2 blocks": (whole, 2, SAME, 1, 1 + 3),
    "whole, 4 blocks": (whole, 4, SAME, 1, 1 + 3),
    "whole, kinds apart": (whole, 2, OTHER, 1, 1 + 5),
    "in place": (in_place, 2, SAME, 1, 1 + 3),
    "fills": (by_block, 3, FILLED, 2, 2 * (1 + 3)),
    "fills, whole": (whole, 3, FILLED, 1, 1 + 3),
}


@pytest.mark.parametrize(
    ("compiled", "layers", "schedule", "plain", "both"), GRAPHS.values(), ids=[*GRAPHS]
)
def test_graphs_depend_on_the_schedule_and_not_on_the_depth(
    compiled: Callable[..., Any], layers: int, schedule: Schedule, plain: int, both: int
):
    model, counter = dit(layers), CompileCounter()
    expected = sample(model)
    with cached(model, DIT, schedule):
        reused = sample(model)
    model = compiled(model, counter)
    assert equal(sample(model), expected)
    assert counter.frame_count == plain
    with limit(max(both, 8)), cached(model, DIT, schedule) as stats:
        assert predicted(model, schedule) >= both
        assert equal(sample(model), reused)
        assert equal(sample(model), reused)
    assert counter.frame_count == both
    assert equal(sample(model), expected)
    assert counter.frame_count == both
    assert (stats.runs, stats.recomputed) == (2, 0)


def predicted(model: nn.Module, schedule: Schedule, adapter: PatternAdapter = DIT) -> int:
    """Return how many graphs of a cached model the library expects."""
    sites = adapter.sites(getattr(model, "_orig_mod", model))
    modes: dict[str, list[Hashable]] = {}
    for site in sites:
        modes |= variants(site, schedule.timeline(site))
    return graph_variants(model, modes)


def test_fills_of_other_lengths_are_other_graphs():
    """Fills of three terms in the first block, plain reuse in the others; fills of two in all."""
    counter = CompileCounter()
    model = by_block(dit(3), counter)
    with limit(12), cached(model, DIT, FILLED_APART):
        sample(model)
        sample(model)
    # first block: keep, fill, reuse; others: keep one kind, keep both, fill and reuse, reuse both
    assert counter.frame_count == 3 + 4
    assert predicted(model, FILLED_APART) == 2 * (5 + 1)


@pytest.mark.parametrize(
    "corrected", [None, Fill(terms={1: LINE, 4: PARABOLA}, inputs={1: 0.1})], ids=["", "corrected"]
)
@pytest.mark.parametrize("compiled", [by_block, whole, in_place])
def test_whole_evaluations_need_no_graphs_and_half_batches_one_of_each(
    compiled: Callable[..., Any], corrected: Fill | None
):
    """At most, where the batch of one row is not the shape that is compiled first."""
    rows = {"denoiser": (1, 1, 0, 1, 1, 0), "guidance": (1, 1, 1, 0, 1, 1)}
    fills = {"denoiser": Fill(terms={2: LINE}, inputs={2: 0.25})}
    schedule = Schedule(evaluations=6, rows=rows, fills=fills, corrected=corrected)
    model, counter = dit(2), CompileCounter()
    with cached(model, DIT, schedule):
        expected = guided(model)
    model = compiled(model, counter)
    with cached(model, DIT, schedule):
        torch.testing.assert_close(guided(model), expected)
        graphs = counter.frame_count
        torch.testing.assert_close(guided(model), expected)
    assert counter.frame_count == graphs <= 4
    guided(model)
    assert counter.frame_count == graphs


@pytest.mark.parametrize("compiled", [by_block, whole, in_place])
def test_sites_of_half_batches_have_graphs_of_their_own(compiled: Callable[..., Any]):
    """Self-attention is computed before, reused after; feed forward the other way round."""
    rows = {"guidance": (1, 1, 1, 0, 0, 0), "attn1": (1, 1, 1, 0, 0, 0), "ff": (1, 0, 1, 1, 1, 1)}
    fills = {"attn1": Fill(terms={}, passes="mean")}
    schedule = Schedule(evaluations=6, rows=rows, fills=fills)
    model, counter = dit(2), CompileCounter()
    with cached(model, DIT, schedule):
        expected = guided(model)
    model = compiled(model, counter)
    with cached(model, DIT, schedule):
        torch.testing.assert_close(guided(model), expected)
        graphs = counter.frame_count
        torch.testing.assert_close(guided(model), expected)
    assert counter.frame_count == graphs <= predicted(model, schedule)


@pytest.mark.parametrize("compiled", [by_block, whole, in_place])
def test_spans_of_compiled_models_are_passed(compiled: Callable[..., Any]):
    model, counter = dit(4), CompileCounter()
    expected = sample(model)
    with cached(model, SPANS, SPAN):
        reused = sample(model)
    model = compiled(model, counter)
    with cached(model, SPANS, SPAN) as stats:
        assert equal(sample(model), reused)
        graphs = counter.frame_count
        assert equal(sample(model), reused)
    assert counter.frame_count == graphs
    assert stats.reused == {"transformer_blocks.1": 6}
    assert equal(sample(model), expected)
    assert counter.frame_count <= predicted(model, SPAN, SPANS)


def test_blocks_may_be_compiled_while_the_cache_is_on():
    model, counter = dit(3), CompileCounter()
    expected = sample(model)
    attachment = attach(model, DIT, SAME)
    reused = sample(model)
    by_block(model, counter)
    assert equal(sample(model), reused)
    assert counter.frame_count == 2 * 3
    attachment.detach()
    assert equal(sample(model), expected)
    assert counter.frame_count == 2 * (3 + 1)


@pytest.mark.parametrize("compiled", [by_block, whole])
def test_too_many_graphs_are_told(compiled: Callable[..., Any]):
    rows = {f"ff-{block}": [1, *[int(e == block) for e in range(1, 6)]] for block in range(2, 6)}
    rows |= {f"attn1-{block}": [1, 1, *[int(e != block) for e in range(2, 6)]] for block in (3, 4)}
    schedule = Schedule.imported(rows)
    model = compiled(dit(6), CompileCounter())
    with limit(5), pytest.warns(SmoothCacheWarning, match="build [0-9]+ graphs .* limit of 5"):
        attachment = attach(model, DIT, schedule)
    attachment.detach(quietly=True)


def test_scales_of_channels_need_as_many_graphs_as_reuse():
    paths = [f"transformer_blocks.{block}.ff" for block in range(2)]
    width = dit(2).inner_dim
    drawn = torch.rand(3, 2, width, generator=torch.Generator().manual_seed(5)).numpy()
    reuse = Schedule(evaluations=6, rows=dict.fromkeys(paths, (1, 0, 1, 0, 1, 0)))
    schedule = reuse.changed(channels=Channels.made({path: [drawn] for path in paths}))
    counts = []
    for each in (reuse, schedule):
        model, counter = dit(2), CompileCounter()
        with cached(model, DIT, each):
            expected = sample(model)
        with cached(by_block(model, counter), DIT, each):
            assert equal(sample(model), expected)
            frames = counter.frame_count
            assert equal(sample(model), expected)
        assert counter.frame_count == frames <= predicted(model, each)
        counts.append(frames)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("schedule", [ALTERNATE, FILLED], ids=["reuse", "fills"])
@pytest.mark.parametrize("compiled", [by_block, whole])
def test_compiled_code_gives_the_numbers_of_eager_code(
    compiled: Callable[..., Any], schedule: Schedule
):
    """Up to float32 rounding, which fused kernels do in another order."""
    model = dit(2)
    with cached(model, DIT, schedule):
        reused = sample(model)
    model = compiled(model, "inductor")
    with cached(model, DIT, schedule) as stats:
        outputs = sample(model)
    torch.testing.assert_close(outputs, reused, rtol=1e-4, atol=1e-4)
    assert stats.reuse_fraction == 0.5
