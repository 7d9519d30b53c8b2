"""A schedule at another strength of guidance than it was planned for.

With w the strength, the guided output is w times the conditional output and 1 - w times the
unconditional one. Where the unconditional pass is skipped, the coefficients of the guidance
difference foretell the true difference, and besides correct the guided output, so that the solver
lands. That correction was divided by 1 - w, so it is kept apart (`Fill.corrections`) and rescaled.
"""

from smoothcache_core.adapters.sites import GUIDANCE
from smoothcache_core.schedule.fill import Fill, Terms
from smoothcache_core.schedule.schedule import Schedule


def schedule_at(schedule: Schedule, strength: float | None) -> Schedule:
    """Return a schedule with its fills rescaled to another strength of guidance.

    Fingerprint and prediction stay those of the strength that was planned for.

    Args:
        schedule: Any; without `corrections` it stays as it is.
        strength: Strength of classifier-free guidance of the run, 1 for none; None if it is not
            known, which changes nothing.
    """
    planned, fill = schedule.fingerprint.strength, schedule.fill(GUIDANCE)
    if planned is None or strength is None or strength == planned or not fill.corrections:
        return schedule
    return schedule.changed(
        fills={**schedule.fills, GUIDANCE.kind: fill_at(fill, planned, strength)}
    )


def fill_at(fill: Fill, planned: float, strength: float) -> Fill:
    """Return the fill of the guidance difference at another strength of guidance.

    Where guidance is stronger, corrections are divided by the new share of the unconditional pass,
    1 - strength, so that the guided output is corrected by as much as before. Where it is weaker
    there is less to correct, and they stay.

    Args:
        fill: With `corrections`.
        planned: The strength that it was planned for.
        strength: The strength of the run.
    """
    ratio = (1.0 - planned) / (1.0 - strength) if strength != 1.0 else 1.0
    change = min(max(ratio, -1.0), 1.0) - 1.0
    rescaled: dict[int, Terms] = {}
    for evaluation, parts in (fill.corrections or {}).items():
        pairs = zip(fill.terms[evaluation], parts, strict=True)
        rescaled[evaluation] = tuple(term + change * part for term, part in pairs)
    return Fill(terms={**fill.terms, **rescaled}, corrections=fill.corrections)


def expectation_at(schedule: Schedule, strength: float | None) -> str:
    """Return what to expect of a schedule at another strength of guidance, for the user.

    Args:
        schedule: One with a prediction; of others nothing is said.
        strength: Strength of classifier-free guidance of the run; None if it is not known.

    Returns:
        Empty where it is the planned one, or no error was predicted by strength.
    """
    planned, prediction = schedule.fingerprint.strength, schedule.prediction
    if planned is None or strength is None or strength == planned:
        return ""
    if prediction is None or not prediction.by_guidance:
        return ""
    expected = prediction.error_at(strength)
    if expected is None:
        low, high = min(prediction.by_guidance), max(prediction.by_guidance)
        return (
            f"this schedule was planned for guidance {planned:g}; there is no prediction at "
            f"{strength:g}, only from {low:.3g} to {high:.3g}. Plan again at {strength:g}"
        )
    return (
        f"this schedule was planned for guidance {planned:g} with a predicted error of "
        f"{prediction.error:.2g}; at {strength:g} it is {expected:.2g}"
    )
