"""The adapter of a model and a schedule: what was not known before a calibration."""

from dataclasses import replace

from smoothcache_core.adapters.late import LateAdapter
from smoothcache_core.adapters.levels import parts_name
from smoothcache_core.adapters.patterns import PatternAdapter
from smoothcache_core.adapters.sites import DENOISER, GUIDANCE, Adapter
from smoothcache_core.schedule.schedule import Schedule


def adapter_by(adapter: Adapter, schedule: Schedule) -> Adapter:
    """Return an adapter that knows what the schedule's calibration measured, at the least cost.

    An adapter that is still to be found need not be where the schedule says by which it was made,
    or names no sites. Where the schedule is of blocks or spans, it is the adapter of these, which
    it records. One that does not say which half of a guided batch is conditional is told.

    Args:
        adapter: An adapter, which may be still to be found.
        schedule: What is to be done with the model.
    """
    known = _settled(adapter, schedule)
    told = schedule.solver_steps and schedule.solver_steps.conditional
    if told is None or known.guidance is not None or not isinstance(known, PatternAdapter):
        return known
    return replace(known, guidance="uncond-first" if told else "cond-first")


def _settled(adapter: Adapter, schedule: Schedule) -> Adapter:
    """Return an adapter whose sites are known."""
    recorded = schedule.fingerprint.recorded_adapter
    if not isinstance(adapter, LateAdapter):
        derived = recorded is not None and parts_name(recorded.name) == adapter.name
        return recorded if recorded is not None and derived else adapter
    whole = {*schedule.rows, *schedule.fills} <= {DENOISER.kind, GUIDANCE.kind}
    return recorded or (adapter.without_sites() if whole else adapter.found)
