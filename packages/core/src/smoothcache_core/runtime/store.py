"""What a cache keeps from one evaluation for later ones, and what it counts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from smoothcache_core.schedule.timeline import Timeline


@dataclass
class CacheStats:
    """What a cache did, counted as it happens.

    Attributes:
        computed: Evaluations, of all branches, in which each site was computed. The keys are paths
            of sites, or `"denoiser"` and `"guidance"` if the schedule is of the whole model.
        reused: Evaluations, of all branches, in which each site was filled from the cache, by plain
            reuse or by a combination.
        runs: Runs begun, the present one included.
        evaluations: Calls of the denoiser seen. Every guidance pass that is a call of its own
            counts, and so does a call that was answered from the cache.
        corrected: Calls of the denoiser that were made and whose output was corrected.
        recomputed: Planned fills that had to be computed because nothing usable was kept (the batch
            changed inside a run, or a branch joined late or paused).
        bytes_held: Bytes of cached tensors held now; 0 after `detach`.
        bytes_peak: The most bytes held after any evaluation; where passes are calls of their own,
            after all of them, which is known when the next evaluation begins.
    """

    computed: dict[str, int] = field(default_factory=dict)
    reused: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    evaluations: int = 0
    corrected: int = 0
    recomputed: int = 0
    bytes_held: int = 0
    bytes_peak: int = 0

    @property
    def reuse_fraction(self) -> float:
        """Fraction of the counted evaluations that were filled, 0 if there were none.

        It is a count over sites (or denoiser and guidance), not weighted by MACs; for the share of
        the compute see `Schedule.compute_fraction`.
        """
        reused, computed = sum(self.reused.values()), sum(self.computed.values())
        return reused / (reused + computed) if reused + computed else 0.0

    def count(self, name: str, *, filled: bool) -> None:
        """Count one evaluation of a site.

        Args:
            name: Path of the site, or `"denoiser"` or `"guidance"`.
            filled: Whether it was filled, not computed.
        """
        counts = self.reused if filled else self.computed
        counts[name] = counts.get(name, 0) + 1


def alone(branch: str) -> str:
    """Return the name under which a branch keeps outputs of its conditional pass alone.

    They are of another batch than those of evaluations that have the unconditional pass too.
    """
    return f"{branch} alone"


@dataclass(frozen=True)
class _Entry:
    """What was kept of one evaluation, and its size in bytes."""

    values: Any
    bytes: int


class TensorStore:
    """Outputs of earlier evaluations, by conditioning pass, name of the site and evaluation.

    Args:
        stats: Where the bytes that are held, and the most that were, are counted.
    """

    def __init__(self, stats: CacheStats) -> None:
        self._stats = stats
        self._entries: dict[str, dict[str, dict[int, _Entry]]] = {}

    def stored(self, branch: str, name: str) -> Mapping[int, Any]:
        """Return what is kept of a site in a branch, by the evaluation that computed it."""
        entries = self._entries.get(branch, {}).get(name, {})
        return {evaluation: entry.values for evaluation, entry in entries.items()}

    def passes(self, name: str, evaluation: int) -> dict[str, Any]:
        """Return what is kept of a site of one evaluation, by the branches of its calls."""
        return {
            branch: sites[name][evaluation].values
            for branch, sites in self._entries.items()
            if evaluation in sites.get(name, {})
        }

    def discard(self, name: str, evaluation: int) -> None:
        """Drop what is kept of a site of one evaluation, of all its calls."""
        for sites in self._entries.values():
            entry = sites.get(name, {}).pop(evaluation, None)
            self._stats.bytes_held -= entry.bytes if entry else 0

    def newest(self) -> dict[str, Any]:
        """Return what was kept last of every site, of the pass that came last."""
        return {
            name: entries[max(entries)].values
            for sites in self._entries.values()
            for name, entries in sites.items()
            if entries
        }

    def put(self, branch: str, name: str, evaluation: int, values: Any, size: int) -> None:
        """Keep `values` of `size` bytes, computed at `evaluation`."""
        entries = self._entries.setdefault(branch, {}).setdefault(name, {})
        entries[evaluation] = _Entry(values, size)
        self._stats.bytes_held += size

    def release(self, branch: str, name: str, timeline: Timeline, evaluation: int) -> None:
        """Drop what is not needed any more when `evaluation` is over."""
        entries = self._entries.get(branch, {}).get(name)
        if entries:
            for done in set(entries).difference(timeline.needed(evaluation, entries)):
                self._stats.bytes_held -= entries.pop(done).bytes

    def note_peak(self) -> None:
        """Compare what is held with the most that was; for the end of an evaluation."""
        self._stats.bytes_peak = max(self._stats.bytes_peak, self._stats.bytes_held)

    def drop(self, branch: str, name: str | None = None) -> None:
        """Drop everything of `branch`, or what is kept of one site in it."""
        for kept in (branch, alone(branch)):
            sites = self._entries.get(kept, {})
            for each in list(sites) if name is None else [name]:
                self._stats.bytes_held -= sum(entry.bytes for entry in sites.pop(each, {}).values())

    def drop_all(self) -> None:
        """Drop everything."""
        for branch in list(self._entries):
            self.drop(branch)
