"""T-GATE as schedules."""

from typing import Any

import pytest
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule import Cost, SiteCost
from smoothcache_core.sources import tgate


def published(step: int, gate: int, before: int, after: int, warm_up: int) -> tuple[bool, bool]:
    """Return whether (cross-attention, self-attention) is computed, by `tgate_scheduler`."""
    if step < gate - 1:
        return True, step <= warm_up or step % before == 0
    if step == gate - 1:
        return True, True
    return False, step % after == 0


@pytest.mark.parametrize("steps", [8, 25])
@pytest.mark.parametrize("gate", [1, 3, 8])
@pytest.mark.parametrize(("before", "after", "warm_up"), [(5, 1, 2), (3, 2, 0), (1, 4, 6)])
def test_rows_are_what_the_published_loop_decides(
    steps: int, gate: int, before: int, after: int, warm_up: int
):
    schedule = tgate(
        evaluations=steps,
        gate_step=gate,
        sp_interval=before,
        fi_interval=after,
        warm_up=warm_up,
    )
    decided = [published(step, gate, before, after, warm_up) for step in range(steps)]
    cross, own = (tuple(map(int, row)) for row in zip(*decided, strict=True))
    assert schedule.rows["attn2"] == cross
    assert schedule.rows["attn1"] == own
    assert schedule.rows["guidance"] == cross


def test_no_guidance_is_left_after_the_gate_and_means_of_both_passes_stand_in():
    fills = tgate(evaluations=5, gate_step=3).fills
    assert dict(fills["guidance"].terms) == {3: (0.0,), 4: (0.0,)}
    assert fills["attn2"].passes == "mean"
    assert not fills["attn2"].terms


def test_unguided_models_have_no_pass_to_skip():
    schedule = tgate(evaluations=4, gate_step=2, guided=False)
    assert set(schedule.rows) == {"attn2", "attn1"}
    assert not schedule.fills


def test_the_first_version_leaves_self_attention_alone():
    assert "attn1" not in tgate(evaluations=4, gate_step=2, self_attention=()).rows


def test_costs_count_half_an_evaluation_after_the_gate():
    sites = (SiteCost(path="b.0.attn2", kind="attn2", block=0, macs=20, bytes=8),)
    cost = Cost(total=100, sites=sites, output_bytes=4)
    schedule = tgate(evaluations=4, gate_step=2, self_attention=(), cost=cost)
    assert schedule.compute_fraction() == (2 * 100 + 2 * 40) / 400
    # the output of attention of one pass, and the guidance difference that nothing is made of
    assert schedule.predicted_bytes() == 8 + 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"gate_step": 0}, "gate_step is from 1"),
        ({"gate_step": 9}, "gate_step 9 of 8"),
        ({"gate_step": 4, "sp_interval": 0}, "at least 1"),
        ({"gate_step": 4, "warm_up": -1}, "warm_up"),
        ({"gate_step": 4, "cross_attention": ()}, "at least one kind"),
    ],
)
def test_impossible_settings_are_refused(given: dict[str, Any], said: str):
    with pytest.raises(ScheduleError, match=said):
        tgate(evaluations=8, **given)
