"""The adapter of a model and a schedule, where it was not known before."""

from smoothcache_core.adapters.late import LateAdapter
from smoothcache_core.adapters.sites import DENOISER, GUIDANCE, Adapter
from smoothcache_core.schedule.schedule import Schedule


def adapter_by(adapter: Adapter, schedule: Schedule) -> Adapter:
    """Return an adapter whose sites are known, at the least cost.

    An adapter that is still to be found need not be where the schedule says by which it was made,
    or names no sites.

    Args:
        adapter: An adapter, which may be still to be found.
        schedule: What is to be done with the model.
    """
    if not isinstance(adapter, LateAdapter):
        return adapter
    whole = {*schedule.rows, *schedule.fills} <= {DENOISER.kind, GUIDANCE.kind}
    recorded = schedule.fingerprint.recorded_adapter
    return recorded or (adapter.without_sites() if whole else adapter.found)
