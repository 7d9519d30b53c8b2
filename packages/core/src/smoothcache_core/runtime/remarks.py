"""What the user of a live model is told, each thing once."""

from smoothcache_core.errors import warn
from smoothcache_core.schedule.fingerprint import Fingerprint


class Remarks:
    """Warns of each thing once, as long as one cache is attached."""

    def __init__(self) -> None:
        self._made: set[str] = set()

    @property
    def any(self) -> bool:
        """Whether anything was told."""
        return bool(self._made)

    def unlike(self, planned: Fingerprint, live: Fingerprint) -> None:
        """Warn of what differs from the planned run without making it wrong.

        Args:
            planned: What a schedule was planned for.
            live: What is known of the model or the run.
        """
        for remark in planned.remarks(live):
            self.once(f"this run is not what the schedule was planned for: {remark}")

    def once(self, message: str, *, about: str | None = None) -> None:
        """Warn, unless that was done before.

        Args:
            message: What the user reads.
            about: What makes two messages the same; the message itself if not given.
        """
        about = about or message
        if about not in self._made:
            self._made.add(about)
            warn(message)
