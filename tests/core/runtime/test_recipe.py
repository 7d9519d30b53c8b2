"""A schedule is compiled once, when it is attached."""

from collections import Counter
from typing import Any

import pytest
import torch
from kit.helpers import ADAPTER, Toy, sample, schedule_of
from smoothcache_core import Schedule, attach
from smoothcache_core.adapters import DENOISER, GUIDANCE, Site
from smoothcache_core.runtime.recipe import compile_schedule
from smoothcache_core.schedule import Fill
from smoothcache_core.schedule.timeline import COMPUTE, FILL, REUSE, STORE, Timeline

ATTENTION = Site(path="blocks.0.attn", kind="attn", block=0)
SITES = Schedule(
    evaluations=5,
    rows={"attn": (1, 1, 0, 1, 0)},
    fills={"attn": Fill(terms={2: (2.0, -1.0)})},
)
WHOLE = Schedule(
    evaluations=5,
    rows={"denoiser": (1, 1, 0, 1, 1)},
    fills={"denoiser": Fill(terms={2: (1.5, -0.5)}, inputs={2: 0.25}, anchors={2: -0.25})},
)


def test_a_recipe_has_all_that_happens_to_a_site():
    (recipe,) = compile_schedule(SITES, [ATTENTION])
    assert (recipe.site, recipe.row, recipe.fills) == (ATTENTION, (1, 1, 0, 1, 0), True)
    assert recipe.timeline == SITES.timeline(ATTENTION)
    assert recipe.timeline.modes == (STORE, STORE, FILL, STORE, REUSE)
    assert recipe.variants == {"blocks.0.attn": [STORE, STORE, (FILL, 2), STORE, REUSE]}
    assert not recipe.keeps_latent


def test_the_recipe_of_the_denoiser_knows_the_coefficients_of_latents():
    denoiser, guidance = compile_schedule(WHOLE, [DENOISER, GUIDANCE])
    assert denoiser.latents == ((0.0, 0.0), (0.0, 0.0), (0.25, -0.25), (0.0, 0.0), (0.0, 0.0))
    assert denoiser.keeps_latent
    assert not guidance.fills
    assert guidance.row == (1,) * 5


def test_a_recipe_may_keep_all_that_is_computed():
    (plain,) = compile_schedule(Schedule(evaluations=3, rows={"attn": (1, 0, 1)}), [ATTENTION])
    assert plain.timeline.modes == (STORE, REUSE, COMPUTE)
    recipe = plain.keeping_all()
    assert recipe.timeline.modes == (STORE, REUSE, STORE)
    assert recipe.timeline.live_counts() == plain.timeline.live_counts()
    assert recipe.variants == {"blocks.0.attn": [STORE, REUSE, STORE]}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "schedule", [schedule_of(), Schedule(evaluations=6, rows={"denoiser": (1, 0, 1, 0, 1, 0)})]
)
def test_no_timeline_is_computed_twice(
    schedule: Schedule, compiled: bool, monkeypatch: pytest.MonkeyPatch
):
    computed: Counter[Site] = Counter()
    timeline = Schedule.timeline

    def counting(self: Schedule, site: Site) -> Timeline:
        computed[site] += 1
        return timeline(self, site)

    monkeypatch.setattr(Schedule, "timeline", counting)
    toy = Toy()
    model: Any = torch.compile(toy) if compiled else toy
    attachment = attach(model, ADAPTER, schedule)
    if not compiled:
        sample(toy)
        sample(toy)
    attachment.detach(quietly=True)
    assert computed == Counter([*ADAPTER.sites(toy), DENOISER, GUIDANCE])
