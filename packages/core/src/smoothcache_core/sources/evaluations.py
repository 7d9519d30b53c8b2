"""Whole evaluations: skip the denoiser and fill its output.

What to skip is searched, and the coefficients are fitted, on a `ReducedRun`, without the model.
"""

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass

from smoothcache_core.adapters.sites import DENOISER, GUIDANCE
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.calibration.dynamics import Dynamics
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills import rounded
from smoothcache_core.numerics.least_squares import check_enough
from smoothcache_core.optimize.local_search import Found, Limits, Search
from smoothcache_core.optimize.masks import Basis, Skips
from smoothcache_core.optimize.surrogate import Simulated, is_noisy, reduced_run
from smoothcache_core.schedule.provenance import Prediction, Provenance
from smoothcache_core.schedule.schedule import Fill, Schedule


@dataclass(frozen=True, kw_only=True)
class WholeSettings:
    """How whole evaluations are planned.

    Attributes:
        guidance: Whether the unconditional pass may be skipped where the rest is computed.
        terms: The most computed outputs a fill combines, 1 to 3.
        use_input: Whether fills also use the latent.
        use_anchor: Whether they use the latent of the evaluation computed last as well; None is
            where the solver adds noise, which is where it tells anything.
        first: How many of the first evaluations are computed, at least 1.
        pinned: More evaluations that are computed; the last one too if the calibration did not see
            the final sample.
        max_lag: The most evaluations skipped in a row, at least 1; any number if not given.
    """

    guidance: bool = False
    terms: int = 3
    use_input: bool = True
    use_anchor: bool | None = None
    first: int = 1
    pinned: Collection[int] = ()
    max_lag: int | None = None


class WholePlanner:
    """Plans whole evaluations for one budget after the other.

    Raises:
        ScheduleError: The calibration lacks what is needed, or does not allow what is asked.
    """

    def __init__(self, calibration: Calibration, settings: WholeSettings | None = None) -> None:
        self._calibration = calibration
        self._settings = settings or WholeSettings()
        self._dynamics = _checked(calibration, self._settings)
        self._reduced = reduced_run(self._dynamics)
        chosen = self._settings
        self._basis = Basis(
            terms=chosen.terms,
            use_input=chosen.use_input,
            use_anchor=is_noisy(self._dynamics) if chosen.use_anchor is None else chosen.use_anchor,
        )
        self._search = Search(self._reduced, self._limits(), self._basis)

    def _limits(self) -> Limits:
        settings, evaluations = self._settings, self._calibration.evaluations
        if not 1 <= settings.first <= evaluations:
            raise ScheduleError(
                f"first is from 1 to {evaluations} evaluations, got {settings.first}"
            )
        pinned = frozenset({*range(settings.first), *settings.pinned})
        if not pinned <= set(range(evaluations)):
            raise ScheduleError(
                f"pinned evaluations are from 0 to {evaluations - 1}, got {sorted(settings.pinned)}"
            )
        if settings.max_lag is not None and settings.max_lag < 1:
            raise ScheduleError(f"max_lag is at least 1, got {settings.max_lag}")
        unseen = () if self._dynamics.response.knows_end else (evaluations - 1,)
        return Limits(pinned=pinned | {*unseen}, max_lag=settings.max_lag or evaluations)

    @property
    def least(self) -> float:
        """The smallest compute fraction that can be planned."""
        evaluations = self._calibration.evaluations
        return len(self._limits().fewest(evaluations)) / evaluations

    def plan(self, compute: float) -> Schedule:
        """Return the best schedule found that computes at most `compute`, in (0, 1]."""
        if not 0.0 < compute <= 1.0:
            raise ScheduleError(f"compute is a fraction in (0, 1], got {compute}")
        evaluations = self._calibration.evaluations
        budget = compute * evaluations
        if budget + 1e-9 < self.least * evaluations:
            raise ScheduleError(
                f"compute {compute:g} is out of reach: the least is {self.least:.3g}, with "
                f"{evaluations} evaluations, what is pinned, and max_lag"
            )
        found = self._search.best(budget, guidance=self._settings.guidance)
        return self._schedule(found, compute)

    def _schedule(self, found: Found, compute: float) -> Schedule:
        settings, calibration = self._settings, self._calibration
        run = self._reduced.simulate(found.skips, self._basis)
        rows, fills = _rows(found.skips), _fills(run)
        named = {
            "compute": compute,
            "guidance": settings.guidance,
            **asdict(self._basis),
        }
        schedule = Schedule(
            evaluations=calibration.evaluations,
            rows=rows,
            fills={key: fill for key, fill in fills.items() if fill.terms},
            source=Provenance(name="whole", settings=named, seeds=calibration.seeds),
            fingerprint=calibration.fingerprint,
            cost=calibration.cost,
        )
        prediction = Prediction(
            error=found.error,
            bytes=schedule.predicted_bytes(),
            seconds=self._dynamics.seconds_at(schedule.compute_fraction()),
        )
        return schedule.model_copy(update={"prediction": prediction})


def plan_evaluations(
    calibration: Calibration, *, compute: float, settings: WholeSettings | None = None
) -> Schedule:
    """Return a schedule that skips whole evaluations.

    Args:
        calibration: Measured with sensitivities.
        compute: Evaluations computed over all, in (0, 1].
        settings: How; see `WholeSettings`.

    Raises:
        ScheduleError: The calibration lacks what is needed, or the budget is out of reach.
    """
    return WholePlanner(calibration, settings).plan(compute)


def can_skip_guidance(calibration: Calibration) -> bool:
    """Return whether the unconditional pass can be skipped: there is one, and it is known which.

    Where the passes are calls of their own, the conditional one must come first.
    """
    dynamics = calibration.dynamics
    if dynamics is None or dynamics.response.weights.shape[1] != 2:
        return False
    sequential = len(calibration.branches) == 2
    return dynamics.conditional == 0 if sequential else dynamics.conditional is not None


def _checked(calibration: Calibration, settings: WholeSettings) -> Dynamics:
    dynamics = calibration.dynamics
    if dynamics is None or not dynamics.measured:
        why = f": {calibration.remark}" if calibration.remark else "; give calibrate `sensitivity`"
        raise ScheduleError(f"this calibration cannot plan whole evaluations{why}")
    if settings.guidance and not can_skip_guidance(calibration):
        raise ScheduleError(
            "the unconditional pass cannot be skipped: the run has no conditional and "
            "unconditional pass, the adapter does not say which is which, or the unconditional "
            "one comes first"
        )
    if not 1 <= settings.terms <= 3:
        raise ScheduleError(f"a fill has 1 to 3 terms, got {settings.terms}")
    entries = math.prod(calibration.fingerprint.latent_shape or (10**9,))
    coefficients = settings.terms + settings.use_input + bool(settings.use_anchor)
    check_enough(calibration.samples, entries, coefficients, verb="calibrate")
    return dynamics


def _rows(skips: Skips) -> dict[str, tuple[int, ...]]:
    rows = {DENOISER.kind: tuple(int(one) for one in skips.denoiser)}
    halves = any(one and not both for one, both in zip(*_pair(skips), strict=True))
    if halves:
        rows[GUIDANCE.kind] = tuple(
            int(one and both) for one, both in zip(*_pair(skips), strict=True)
        )
    return rows


def _pair(skips: Skips) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    return skips.denoiser, skips.guidance


def _fills(run: Simulated) -> dict[str, Fill]:
    outputs = {i: rounded(terms) for i, terms in run.terms.items()}
    inputs = {i: rounded([value])[0] for i, value in run.inputs.items()}
    anchors = {i: rounded([value])[0] for i, value in run.anchors.items()}
    differences = {i: rounded(terms) for i, terms in run.differences.items()}
    return {
        DENOISER.kind: Fill(terms=outputs, inputs=inputs, anchors=anchors),
        GUIDANCE.kind: Fill(terms=differences),
    }
