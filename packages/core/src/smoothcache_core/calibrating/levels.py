"""Measuring runs at several levels of sites: parts, blocks, and spans of blocks."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from smoothcache_core.adapters.levels import LEVELS, Level, level_of
from smoothcache_core.adapters.sites import Adapter
from smoothcache_core.calibrating.recorder import Recorder
from smoothcache_core.calibrating.run_statistics import RunStatistics
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.discovering import coarser_adapters
from smoothcache_core.errors import CalibrationError
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.schedule.adapter_data import AdapterData
from smoothcache_core.schedule.fingerprint import Fingerprint


def check_levels(sites: Sequence[Level]) -> None:
    """Refuse levels that are none.

    Raises:
        CalibrationError: They are.
    """
    wrong = [each for each in sites if each not in LEVELS]
    if wrong or isinstance(sites, str) or not sites or len(set(sites)) < len(sites):
        raise CalibrationError(
            f"sites are some of {list(LEVELS)}, such as sites=('parts', 'blocks'), got {sites!r}"
        )


def samplers_of(sampler: Sampler, levels: Sequence[Level]) -> list[Sampler]:
    """Return the sampler with the adapter of each level, from parts to spans.

    Raises:
        AdapterError: The model has no blocks or spans that could be sites.
    """
    coarser: list[Level] = [each for each in LEVELS if each in levels and each != "parts"]
    found: Mapping[Level, Adapter] = {}
    if coarser:
        found = coarser_adapters(
            sampler.model, sampler.adapter, sampler.run, coarser, around=sampler.around
        )
    own = [sampler] if "parts" in levels else []
    return [*own, *(sampler.with_adapter(found[each]) for each in coarser)]


class LevelRecorder:
    """Records runs at every level of sites, one after the other.

    Args:
        samplers: The sampler, with the adapter of each level.
        max_lag: Largest lag that is measured.
        fingerprint: What is known of the first sampler before a run.
        references: Where earlier outputs are kept.
        chosen: Seeds to measure sensitivities with; without any, whole runs are not recorded.
    """

    def __init__(
        self,
        samplers: Sequence[Sampler],
        max_lag: int,
        fingerprint: Fingerprint,
        references: Literal["device", "cpu"],
        chosen: Collection[int],
        *,
        exact: bool = False,
    ) -> None:
        self._chosen = chosen
        self._recorders = [
            Recorder(
                each, max_lag, _with_adapter(fingerprint, each), references,
                trajectories=bool(chosen),
            )
            for each in samplers
        ]  # fmt: skip
        self._statistics = [RunStatistics(each, chosen, exact=exact) for each in samplers]

    def run(self, seed: int) -> Calibration:
        """Return what the run of one seed tells; what is known of whole runs is measured once."""
        parts: list[Calibration] = []
        for recorder, statistics in zip(self._recorders, self._statistics, strict=True):
            part, plain = recorder.run(seed)
            if self._chosen:
                part = statistics.add(part, plain, parts[0] if parts else None)
            parts.append(part)
        return replace(parts[0], coarser=tuple(parts[1:]))


def _with_adapter(fingerprint: Fingerprint, sampler: Sampler) -> Fingerprint:
    """Return the fingerprint of the same runs with a sampler's own adapter."""
    adapter = sampler.adapter
    data = AdapterData.of_adapter(adapter)
    return fingerprint.changed(adapter=adapter.name, adapter_data=data)


def check_same_levels(
    done: Calibration, samplers: Sequence[Sampler], checkpoint: str | Path
) -> None:
    """Refuse to continue a file of other sites.

    Raises:
        CalibrationError: It is.
    """
    known, wanted = [*done.levels], [level_of(each.adapter.name) for each in samplers]
    if known != wanted:
        raise CalibrationError(
            f"cannot continue {str(checkpoint)!r}: its sites are {known} instead of {wanted}; use "
            "another file"
        )
