from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.figure import Figure
from smoothcache_core import Schedule
from smoothcache_core.adapters import Site
from smoothcache_core.errors import EvaluationError
from smoothcache_core.reports import skip_map
from smoothcache_core.schedule import Cost, Provenance, SiteCost


def sites_of(kinds: Sequence[str], blocks: int) -> tuple[Site, ...]:
    """The sites of a model, block by block."""
    return tuple(
        Site(path=f"blocks.{block}.{kind}", kind=kind, block=block)
        for block in range(blocks)
        for kind in kinds
    )


def cost_of(sites: Sequence[Site], total: int) -> Cost:
    costs = [
        SiteCost(path=s.path, kind=s.kind, block=s.block, macs=min(total, 1), bytes=4)
        for s in sites
    ]
    return Cost(total=total, sites=tuple(costs))


def image(figure: Figure) -> np.ndarray:
    (axes,) = figure.axes
    return np.asarray(axes.images[0].get_array())


@pytest.mark.parametrize(("blocks", "evaluations"), [(28, 50), (3, 10), (1, 2)])
def test_skip_map_is_the_schedule_with_the_sites_grouped_by_kind(blocks: int, evaluations: int):
    sites = sites_of(["attn", "ff"], blocks)
    random = np.random.default_rng(0)
    rows = {site.path: (1, *random.integers(0, 2, evaluations - 1).tolist()) for site in sites}
    schedule = Schedule(evaluations=evaluations, rows=rows)
    expected = [rows[site.path] for kind in ("attn", "ff") for site in sites if site.kind == kind]
    np.testing.assert_array_equal(image(skip_map(schedule, sites)), expected)


def test_skip_map_is_dark_where_something_is_computed():
    schedule = Schedule(evaluations=3, rows={"attn": (1, 0, 1)})
    figure = skip_map(schedule, sites_of(["attn"], 1))
    colors = figure.axes[0].images[0].to_rgba(image(figure))
    dark, light, _ = colors[0, :, :3].sum(axis=-1)
    assert dark < 1.0 < 2.4 < light


def test_skip_map_shows_sites_without_a_row_as_computed():
    schedule = Schedule(evaluations=3, rows={"ff": (1, 0, 0)})
    figure = skip_map(schedule, sites_of(["attn", "ff"], 1))
    assert image(figure).tolist() == [[1, 1, 1], [1, 0, 0]]


def test_skip_map_names_kinds_and_blocks():
    sites = sites_of(["attn", "ff"], 28)
    axes = skip_map(Schedule(evaluations=2, rows={"attn": (1, 0)}), sites).axes[0]
    assert {"attn", "ff"} <= {text.get_text() for text in axes.texts}
    blocks = {0: 0, 4: 4, 24: 24, 28: 0, 32: 4, 52: 24}
    ticks = dict(zip(axes.get_yticks(), axes.get_yticklabels(), strict=True))
    assert {line: int(ticks[line].get_text()) for line in blocks} == blocks


@pytest.mark.parametrize(
    ("total", "name", "title"),
    [
        (6, "mine", "mine: compute 0.625 of plain"),
        (None, "mine", "mine: 0.250 of the site calls computed"),
        (0, "mine", "mine: 0.250 of the site calls computed"),
        (6, None, "smooth(alpha=0.5): compute 0.625 of plain"),
    ],
)
def test_skip_map_tells_the_compute(total: int | None, name: str | None, title: str):
    sites = sites_of(["attn"], 3)
    schedule = Schedule(
        evaluations=4,
        rows={"attn": (1, 0, 0, 0)},
        source=Provenance(name="smooth", settings={"alpha": 0.5}),
        cost=None if total is None else cost_of(sites, total),
    )
    shown = skip_map(schedule, sites, name=name).axes[0].get_title(loc="left")
    assert shown.replace("\n", " ") == title


def test_skip_map_of_whole_evaluations_shows_them_instead_of_sites():
    rows = {"denoiser": (1, 0, 1, 1), "guidance": (1, 1, 0, 1)}
    figure = skip_map(Schedule(evaluations=4, rows=rows), sites_of(["attn"], 2))
    assert image(figure).tolist() == [[1, 0, 1, 1], [1, 0, 0, 1]]
    assert {"denoiser", "guidance"} == {text.get_text() for text in figure.axes[0].texts}


def test_skip_map_needs_sites():
    with pytest.raises(EvaluationError, match="at least one site"):
        skip_map(Schedule(evaluations=2, rows={"attn": (1, 0)}), [])
