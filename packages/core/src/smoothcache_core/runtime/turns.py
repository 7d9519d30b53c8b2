"""Whether denoisers hand over where they did in the run that was planned for."""

from collections.abc import Sequence

from smoothcache_core.calls.clock import Tick
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.timeline import Timeline


class Turns:
    """Follows the turns of denoisers through a run.

    What was measured across a handover holds for that handover. Anywhere else, nothing is filled
    from what another denoiser gave.

    Args:
        planned: What the schedule was planned for; may know the turns.
        whole: What happens to the rows of the whole model.
    """

    def __init__(self, planned: Fingerprint, whole: Sequence[Timeline]) -> None:
        self._planned, self._whole = planned, whole
        self._others: dict[str, int] = {}

    def are_others(self, tick: Tick) -> bool:
        """Return whether nothing that was kept of this branch may be used in this call.

        Args:
            tick: Its place; every call is to be seen, in their order.
        """
        planned = self._planned.denoisers
        if planned is None:
            return tick.handed_over and self._crosses(tick.evaluation)
        before = self._others.get(tick.branch)
        here = planned[tick.evaluation] != tick.member
        if here:
            self._others[tick.branch] = tick.evaluation
        return here or before == tick.evaluation - 1

    def _crosses(self, handover: int) -> bool:
        """Whether anything from `handover` on is filled from what is before it."""
        filled = (sources for each in self._whole for sources in each.sources[handover:])
        corrected = (
            used for each in self._whole for i, used in each.earlier.items() if i >= handover
        )
        return any(source < handover for used in (*filled, *corrected) for source in used)

    def remark(self, tick: Tick) -> str:
        """Return what the user is told of it."""
        if self._planned.denoisers is None:
            return (
                f"another denoiser takes over at evaluation {tick.evaluation}, and the schedule "
                "was not measured across that: nothing is filled from what the one before gave"
            )
        where = self._planned.handovers
        planned = f"at {list(where)}" if where else "never"
        return (
            f"the denoisers take turns in another way than in the run that was planned for, where "
            f"they hand over {planned}: evaluation {tick.evaluation} is made by number "
            f"{tick.member + 1} of them. What is planned there is computed; plan for this boundary"
        )
