"""Continuing a calibration file: only if it is of the very same thing."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from smoothcache_core.calibrating.probe import Probe
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.errors import CalibrationError
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.schedule.fingerprint import Fingerprint

logger = logging.getLogger(__name__)


def continued(
    checkpoint: str | Path | None,
    sampler: Sampler,
    fingerprint: Fingerprint,
    probe: Probe,
    *,
    seeds: Sequence[int],
    max_lag: int,
    chosen: Collection[int],
    exact: bool = False,
) -> Calibration | None:
    """Return what a file holds already; None if there is none.

    What can be told without a run is compared first, then what a run is, which takes one evaluation
    of the denoiser. That is so for a file that lacks no run, too.

    Args:
        checkpoint: The file; None for none.
        sampler: How a run is made.
        fingerprint: What is known of it before a run.
        probe: Finds out what a run is.
        seeds: Runs that are asked for, at least one.
        max_lag: Largest lag that is asked for.
        chosen: Seeds to measure sensitivities with.
        exact: Whether the exact solution is to be measured.

    Raises:
        CalibrationError: The file cannot be read, or is of something else; says what differs.
    """
    if checkpoint is None or not Path(checkpoint).exists():
        return None
    done = Calibration.load(checkpoint)
    reasons = fingerprint.differences(done.fingerprint)
    reasons += _other_settings(done, sampler, seeds, max_lag, chosen)
    if done.dynamics is not None and (done.dynamics.exact is not None) != exact:
        known, wanted = ("plain", "exact") if exact else ("exact", "plain")
        reasons.append(f"it was measured with reference={known!r} instead of {wanted!r}")
    if not reasons:
        reasons = probe.look(done.fingerprint).mismatches(done.fingerprint)
    if reasons:
        raise CalibrationError(
            f"cannot continue {str(checkpoint)!r}: {'; '.join(reasons)}; use another file"
        )
    logger.debug("continuing %s with %d samples", checkpoint, done.samples)
    return done


def _other_settings(
    done: Calibration,
    sampler: Sampler,
    seeds: Sequence[int],
    max_lag: int,
    chosen: Collection[int],
) -> list[str]:
    """Return what was measured otherwise than is asked for."""
    reasons: list[str] = []
    named = done.fingerprint.solver, sampler.solver_name
    if (named[0] is None) != (named[1] is None):
        reasons.append(f"solver is {named[0]!r} instead of {named[1]!r}")
    samples = done.samples // len(done.seeds)
    if "samples" not in (done.fingerprint.sampling or {}) and samples != sampler.samples:
        reasons.append(f"samples is {samples} instead of {sampler.samples}")
    if done.max_lag != max_lag:
        reasons.append(f"max_lag is {done.max_lag} instead of {max_lag}")
    if chosen and done.dynamics is None and not done.remark:
        reasons.append("it has no sensitivities; give `sensitivity=0`")
    if not chosen and done.dynamics is not None:
        reasons.append("it has sensitivities, which would be lost with `sensitivity=0`")
    if chosen and done.dynamics is not None and set(done.seeds) <= set(seeds):
        measured = int(done.dynamics.effect_counts.max(initial=0))
        wanted = len(set(chosen) & set(done.seeds))
        if measured and measured != wanted:
            reasons.append(f"{measured} of its runs have sensitivities, not {wanted}")
    return reasons
