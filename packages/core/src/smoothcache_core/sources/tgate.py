"""T-GATE (arXiv 2404.02747): cross-attention is gated off, and the unconditional pass with it.

Outputs of cross-attention converge in a few steps. Up to the gate step they are computed; the means
of what they gave in the conditional and the unconditional pass of the last of these steps stand in
for them from then on. Guidance has nothing to tell apart any more, so the unconditional pass is
skipped, and the guided output is the conditional one. Self-attention is computed at intervals
before the gate, when it hardly matters, and mostly always after it.
"""

from collections.abc import Sequence

from smoothcache_core.adapters.sites import GUIDANCE
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule.content import Row
from smoothcache_core.schedule.cost import Cost
from smoothcache_core.schedule.fill import Fill
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.provenance import Provenance
from smoothcache_core.schedule.schedule import Schedule

_NO_DIFFERENCE = (0.0,)
"""The fill of a guidance difference that is nothing: guided outputs are conditional ones."""


def tgate(
    *,
    evaluations: int,
    gate_step: int = 10,
    sp_interval: int = 5,
    fi_interval: int = 1,
    warm_up: int = 2,
    cross_attention: Sequence[str] = ("attn2",),
    self_attention: Sequence[str] = ("attn1",),
    guided: bool = True,
    fingerprint: Fingerprint | None = None,
    cost: Cost | None = None,
) -> Schedule:
    """Return T-GATE's schedule, with the names and defaults of its package `tgate`.

    Example:
        >>> schedule = tgate(evaluations=6, gate_step=4, sp_interval=3, warm_up=1)
        >>> schedule.rows["attn2"], schedule.rows["guidance"]
        ((1, 1, 1, 1, 0, 0), (1, 1, 1, 1, 0, 0))
        >>> schedule.rows["attn1"]
        (1, 1, 0, 1, 1, 1)

    Args:
        evaluations: Evaluations of one run, at least 1.
        gate_step: Evaluations with cross-attention and guidance, at least 1 and at most all; 8 of
            25 for PixArt and 10 of 25 for Stable Diffusion are published.
        sp_interval: Before the gate, self-attention is computed at multiples of this, at least 1.
        fi_interval: The same after the gate.
        warm_up: Evaluations after the first with all self-attention computed, at least 0.
        cross_attention: Kinds of the sites that attend to the prompt, at least one.
        self_attention: Kinds of the sites that attend to the picture; empty for all computed, as in
            the first version of the method.
        guided: Whether runs are guided; without guidance (latent consistency models) there is no
            unconditional pass to skip.
        fingerprint: What the schedule is for, such as a calibration's; not compared if not given.
        cost: MACs per site; without it the schedule has no compute fraction.

    Raises:
        ScheduleError: A number is out of range, or there is no kind of cross-attention.
    """
    if not 1 <= gate_step <= evaluations or min(sp_interval, fi_interval) < 1 or warm_up < 0:
        raise ScheduleError(
            "gate_step is from 1 to the number of evaluations, intervals are at least 1 and "
            f"warm_up at least 0; got gate_step {gate_step} of {evaluations}, sp_interval "
            f"{sp_interval}, fi_interval {fi_interval} and warm_up {warm_up}"
        )
    if not cross_attention:
        raise ScheduleError("T-GATE gates cross-attention, so there is at least one kind of it")
    gate = tuple(int(i < gate_step) for i in range(evaluations))
    own = _own_row(evaluations, gate_step, sp_interval, fi_interval, warm_up)
    gated = [GUIDANCE.kind] if guided else []
    rows = dict.fromkeys([*gated, *cross_attention], gate) | dict.fromkeys(self_attention, own)
    return Schedule(
        evaluations=evaluations,
        rows=rows,
        fills=_fills(rows, gate_step) if guided else {},
        source=Provenance(
            name="tgate",
            settings={
                "gate_step": gate_step,
                "sp_interval": sp_interval,
                "fi_interval": fi_interval,
                "warm_up": warm_up,
            },
        ),
        fingerprint=fingerprint or Fingerprint(),
        cost=cost,
    )


def _own_row(evaluations: int, gate: int, before: int, after: int, warm_up: int) -> Row:
    """Return the row of self-attention: whole at its start and in the last step of the gate."""
    planning = [i <= warm_up or i == gate - 1 or i % before == 0 for i in range(gate)]
    improving = [i % after == 0 for i in range(gate, evaluations)]
    return tuple(map(int, planning + improving))


def _fills(rows: dict[str, Row], gate: int) -> dict[str, Fill]:
    """Return means of both passes for sites that are filled, and no guidance after the gate."""
    fills = {key: Fill(terms={}, passes="mean") for key, row in rows.items() if 0 in row}
    if GUIDANCE.kind in fills:
        skipped = range(gate, len(rows[GUIDANCE.kind]))
        fills[GUIDANCE.kind] = Fill(terms=dict.fromkeys(skipped, _NO_DIFFERENCE))
    return fills
