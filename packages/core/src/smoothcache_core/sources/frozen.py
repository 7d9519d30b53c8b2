"""Rules that decide while sampling, frozen to schedules by numbers of a plain run.

TeaCache and MagCache decide at every evaluation whether the blocks of a model are computed, by
numbers that hardly depend on the sample. Frozen, their decisions are a row like any other: it is
known before a run what will be skipped, compiled models stay compiled, and no device is waited for.

What they skip are the blocks, not the whole model: `key` names the row, that of a span of blocks
whose delta is kept (`SpanPattern`), or the denoiser's output.
"""

from collections.abc import Sequence

import numpy as np

from smoothcache_core.adapters.sites import DENOISER
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.provenance import Provenance
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.sources.accumulated import accumulate

RETENTION = 0.2
"""Share of a run that MagCache computes at its start, as published."""

MOST_SKIPPED = 3
"""Evaluations that MagCache skips in a row at most, as published for few-step quality settings."""


def teacache(
    distances: Sequence[float],
    *,
    threshold: float,
    polynomial: Sequence[float] = (1.0, 0.0),
    key: str = DENOISER.kind,
    fingerprint: Fingerprint | None = None,
) -> Schedule:
    """Skip while the rescaled change of the modulated input adds up to less than a threshold.

    TeaCache (arXiv 2411.19108, section 3.3); the first and the last evaluation are computed.

    Example:
        >>> teacache([0.1, 0.1, 0.1, 0.1], threshold=0.25).rows
        {'denoiser': (1, 0, 0, 1, 1)}

    Args:
        distances: (evaluations - 1,); relative L1 distances of the first block's modulated input
            from one evaluation to the next, at least 0.
        threshold: Sum at which an evaluation is computed, above 0; 0.1 to 0.3 are published.
        polynomial: Coefficients from the highest power on, that make of a distance the change of
            the output; published for each model.
        key: Key of the row.
        fingerprint: What the schedule is for; not compared if not given.

    Raises:
        ScheduleError: The threshold is not above 0, or a distance is negative or not finite.
    """
    given = _finite(distances, "distances")
    if not 0.0 < threshold < np.inf:
        raise ScheduleError(f"threshold is above 0 and finite, got {threshold}")
    changes = np.maximum(np.polyval(np.asarray(polynomial, dtype=float), given), 0.0)
    row = accumulate(changes, float(np.nextafter(threshold, 0.0)))
    settings = {"rule": "teacache", "threshold": threshold}
    return _schedule([*row[:-1], 1], key, settings, fingerprint)


def magcache(
    ratios: Sequence[float],
    *,
    threshold: float,
    most_skipped: int = MOST_SKIPPED,
    retention: float = RETENTION,
    key: str = DENOISER.kind,
    fingerprint: Fingerprint | None = None,
) -> Schedule:
    """Skip while the magnitude of what the blocks add is foretold well enough by ratios.

    MagCache (arXiv 2506.09045, section 4): the product of the ratios since the last computed
    evaluation says how the magnitude changed; how far the products are from 1 is added up.

    Example:
        >>> magcache([1.0, 1.0, 0.99, 0.98, 0.9, 0.8], threshold=0.06, retention=0.0).rows
        {'denoiser': (1, 0, 0, 0, 1, 1)}

    Args:
        ratios: (evaluations,); entry [i] is the mean over tokens of the magnitude of what the
            blocks add at evaluation i over that at i - 1; that of the first is not looked at.
        threshold: Largest sum that is skipped at, at least 0; 0.06 to 0.24 are published.
        most_skipped: Most evaluations skipped in a row, at least 1.
        retention: Share of the run that is computed at its start, in [0, 1].
        key: Key of the row.
        fingerprint: What the schedule is for; not compared if not given.

    Raises:
        ScheduleError: A setting is out of range, or a ratio is negative or not finite.
    """
    given = _finite(ratios, "ratios")
    if not 0.0 <= threshold < np.inf or not 0.0 <= retention <= 1.0 or most_skipped < 1:
        raise ScheduleError(
            "threshold is finite and at least 0, retention from 0 to 1, most_skipped at least 1; "
            f"got {threshold}, {retention} and {most_skipped}"
        )
    kept = int(retention * len(given) + 0.5)
    row, product, total, skipped = [], 1.0, 0.0, 0
    for evaluation, ratio in enumerate(given.tolist()):
        computed = evaluation == 0
        if evaluation >= kept and not computed:
            product, skipped = product * ratio, skipped + 1
            total += abs(1.0 - product)
            computed = total > threshold or skipped > most_skipped
        if computed:
            product, total, skipped = 1.0, 0.0, 0
        row.append(int(computed or evaluation < kept))
    settings = {"rule": "magcache", "threshold": threshold, "most_skipped": most_skipped}
    return _schedule(row, key, settings | {"retention": retention}, fingerprint)


def _finite(values: Sequence[float], name: str) -> np.ndarray:
    given = np.asarray(values, dtype=float)
    if given.ndim != 1 or not len(given) or not np.isfinite(given).all() or (given < 0.0).any():
        raise ScheduleError(f"{name} are finite numbers, at least 0, got {values!r}")
    return given


def _schedule(
    row: Sequence[int], key: str, settings: dict[str, float | int | str], like: Fingerprint | None
) -> Schedule:
    return Schedule(
        evaluations=len(row),
        rows={key: row},
        source=Provenance(name="frozen", settings=settings),
        fingerprint=like or Fingerprint(),
    )
