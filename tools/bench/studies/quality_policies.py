"""The policies of the quality benchmark at a compute budget: ours, peers', and fewer steps."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from smoothcache_core import Calibration, Schedule
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills import FillRule, reuse, taylor
from smoothcache_core.schedule.provenance import described
from smoothcache_core.sources import smooth, smooth_to_compute

from tools.bench.baselines import diffusers_hooks
from tools.bench.baselines.fora import fora
from tools.bench.baselines.hosts import Host
from tools.bench.baselines.ours import Material, Plan, scheduled
from tools.bench.baselines.peers import ALMOST_ALWAYS, quiet
from tools.bench.baselines.pyramid import Broadcast, broadcasts, pyramid_schedule
from tools.bench.baselines.teacache import Tea, changes_of, fitted_polynomial, teacache
from tools.bench.baselines.whole import even, tea
from tools.bench.bench import Bench
from tools.bench.models.model import WithSteps
from tools.bench.policies import Attach, Policy, fewer_steps
from tools.bench.studies.tuning import FAR, Dial, Trial, Trials, Tuner, choose

MAX_LAGS = (3, 10)
"""SmoothCache's longest reuse: as published, and as long as calibrated."""

_MAG_OPTIONS = [
    {"max_skip_steps": skips, "retention_ratio": kept}
    for skips, kept in ((3, 0.2), (6, 0.1), (6, 0.0), (16, 0.0))
]
_TRIED = 4  # settings of pyramid attention broadcast that are tried for a budget
_DBCACHE_OPTIONS = [{"warmup": warmup} for warmup in (8, 2)]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What policies are made from; all of it comes from the calibration samples.

    Attributes:
        bench: The bench.
        calibration: This library's measurements.
        samples: Samples of its run.
        trials: Tries policies.
        tuner: Finds settings of peers.
    """

    bench: Bench
    calibration: Calibration
    samples: int
    trials: Trials
    tuner: Tuner

    @property
    def host(self) -> Host:
        """Where peers' caches go."""
        return self.bench.modality.host

    @cached_property
    def material(self) -> Material:
        """What schedules of this library are made from."""
        return Material(
            calibration=self.calibration,
            sampler=self.bench.of_batch(self.samples),
            seeds=self.calibration.seeds,
        )

    @cached_property
    def mag_ratios(self) -> list[float]:
        """What MagCache measures."""
        samples, seed = len(self.trials.reference), self.trials.seed
        with quiet():
            return diffusers_hooks.mag_ratios(
                self.host, lambda attach: self.bench.run(attach, samples=samples, seed=seed)
            )

    @cached_property
    def tea_changes(self) -> list[tuple[float, float]]:
        """What TeaCache measures."""
        tea = self.bench.modality.tea
        samples, seed = len(self.trials.reference), self.trials.seed
        return changes_of(tea, lambda attach: self.bench.run(attach, samples=samples, seed=seed))


Family = Callable[[Known, float], Iterable[Policy]]
"""Returns the policies of one family at a budget; raises if it cannot."""

_PEERS = ("fora+taylor", "dit-smoothcache", "first-block-cache", "magcache", "cache-dit")


def is_peer(label: str) -> bool:
    """Return whether a label is that of other people's code, which may refuse in any way."""
    return label.split(" (")[0] in _PEERS


def families(bench: Bench, ours: Mapping[str, Plan]) -> dict[str, Family]:
    """Return all families by the label of their policies.

    Args:
        bench: The bench.
        ours: This library's own policies by name.
    """
    found: dict[str, Family] = {}
    for title, ways in bench.modality.fewer(bench.sampler).items():
        found[f"fewer-steps ({title})"] = partial(fewer_steps_of, "fewer-steps", title, ways)
    found["fora"] = _fora
    for order in (1, 2):
        found[f"fora+taylor (order {order})"] = partial(_fora_taylor, order)
    for max_lag in MAX_LAGS:
        found[f"smoothcache (K={max_lag})"] = partial(_smoothcache, max_lag)
    found[f"dit-smoothcache (K={MAX_LAGS[0]})"] = _dit_smoothcache
    if bench.modality.pyramid is not None:
        found["pab"] = partial(_pyramid, bench.modality.pyramid)
    found["teacache"] = partial(_tea_cache, bench.modality.tea)
    found |= whole_evaluations()
    found["first-block-cache"] = _first_block_cache
    found["magcache"] = _mag_cache
    found["cache-dit"] = partial(_cache_dit, None)
    found["cache-dit (taylor 1)"] = partial(_cache_dit, 1)
    return found | {name: partial(of_plan, name, plan) for name, plan in ours.items()}


# ---------------------------------------------------------------------------- fewer steps


def fewer_steps_of(
    name: str, title: str, ways: Mapping[str, WithSteps], known: Known, budget: float
) -> Iterable[Policy]:
    """Yield fewer steps by the way that is best on the calibration samples.

    Args:
        name: Name of the policy.
        title: Its variant, the name of a solver.
        ways: Ways to take fewer steps, in words.
        known: What policies are made from.
        budget: Evaluations over those of the plain run.
    """
    steps = max(round(budget * known.bench.sampler.steps), 1)

    def trial(words: str) -> Trial:
        attach = fewer_steps(ways[words], steps)
        return known.trials.of(f"{name} {title} {steps} {words}", attach)

    best = choose(list(ways), budget, trial)
    yield Policy(
        name=name,
        variant=title,
        setting=", ".join([f"{steps} steps", *([best] if best else [])]),
        attach=fewer_steps(ways[best], steps),
        evaluations=steps,
    )


# ---------------------------------------------------------------------------- by schedules


def _fora(known: Known, budget: float) -> Iterable[Policy]:
    schedule = fora(known.calibration, budget)
    yield Policy(
        name="fora", setting=_spacing(schedule), attach=scheduled(schedule), schedule=schedule
    )


def _fora_taylor(order: int, known: Known, budget: float) -> Iterable[Policy]:
    schedule = fora(known.calibration, budget)
    yield Policy(
        name="fora+taylor",
        variant=f"order {order}",
        setting=_spacing(schedule),
        attach=diffusers_hooks.taylorseer(known.host, schedule, order),
    )


def _spacing(schedule: Schedule) -> str:
    return f"{schedule.source.settings['computed']} of {schedule.evaluations}, evenly spaced"


def _smoothcache(max_lag: int, known: Known, budget: float) -> Iterable[Policy]:
    schedule = _smooth(known.calibration, budget, max_lag)
    yield Policy(
        name="smoothcache",
        variant=f"K={max_lag}",
        setting=f"alpha {schedule.source.settings['alpha']:.4g}",
        attach=scheduled(schedule),
        schedule=schedule,
    )


def _dit_smoothcache(known: Known, budget: float) -> Iterable[Policy]:
    schedule = _smooth(known.calibration, budget, MAX_LAGS[0])
    yield Policy(
        name="dit-smoothcache",
        variant=f"K={MAX_LAGS[0]}",
        setting="the schedule of smoothcache",
        attach=known.host.dit_smoothcache(lambda evaluations: schedule.exported("smoothcache-v1")),
    )


def _smooth(calibration: Calibration, budget: float, max_lag: int) -> Schedule:
    """Return SmoothCache's schedule, at most `FAR` above a budget that its lags cannot reach."""
    lag = min(max_lag, calibration.max_lag)
    try:
        return smooth_to_compute(calibration, compute=budget, max_lag=lag)
    except ScheduleError:
        curves = np.concatenate([curve.ravel() for curve in calibration.curves().values()])
        largest = float(curves[np.isfinite(curves)].max())
        least = smooth(calibration, alpha=largest, max_lag=lag)
        if least.compute_fraction() > budget + FAR:
            raise
        return least


def of_plan(name: str, plan: Plan, known: Known, budget: float) -> Iterable[Policy]:
    """Yield a policy of ours, its schedule kept beside the trials.

    Args:
        name: Name of the policy.
        plan: Makes its schedule.
        known: What policies are made from.
        budget: Compute fraction.
    """
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower())
    path = known.trials.path.with_name(f"schedule-{stem}-{budget:g}.json")
    if not path.exists():
        plan(known.material, budget).save(path)
    schedule = Schedule.load(path)
    yield Policy(
        name=name,
        setting=described(schedule.source),
        attach=scheduled(schedule),
        ours=True,
        schedule=schedule,
    )


def whole_evaluations() -> dict[str, Family]:
    """Return what skips whole evaluations without a calibration of ours, by label."""
    found: dict[str, Family] = {}
    for rule in (reuse(), taylor(1), taylor(2)):
        words = rule.name.replace("-", " ")
        found[f"evenly ({words})"] = partial(_evenly, words, rule)
        if rule.name != "reuse":
            found[f"teacache ({words})"] = partial(_tea_whole, words, rule)
    return found


def _evenly(words: str, rule: FillRule, known: Known, budget: float) -> Iterable[Policy]:
    yield _whole("evenly", words, even(known.calibration, budget, rule))


def _tea_whole(words: str, rule: FillRule, known: Known, budget: float) -> Iterable[Policy]:
    yield _whole("teacache", words, tea(known.calibration, known.tea_changes, budget, rule))


def _whole(name: str, words: str, schedule: Schedule) -> Policy:
    setting = f"{schedule.source.settings['computed']} of {schedule.evaluations}"
    return Policy(
        name=name, variant=words, setting=setting, attach=scheduled(schedule), schedule=schedule
    )


def _pyramid(ranks: Mapping[str, int], known: Known, budget: float) -> Iterable[Policy]:
    made = {
        setting: pyramid_schedule(known.calibration, ranks, setting) for setting in broadcasts()
    }
    near = {each: made[each] for each in _nearest(made, budget)}
    best = choose(
        list(near),
        budget,
        lambda setting: known.trials.of(f"pab {setting}", scheduled(near[setting])),
    )
    yield Policy(name="pab", setting=str(best), attach=scheduled(near[best]), schedule=near[best])


def _nearest(made: Mapping[Broadcast, Schedule], budget: float) -> list[Broadcast]:
    """Return the settings nearest to a budget: few, as each is tried."""
    return sorted(made, key=lambda each: abs(made[each].compute_fraction() - budget))[:_TRIED]


# ---------------------------------------------------------------------------- by thresholds


def _tea_cache(tea: Tea, known: Known, budget: float) -> Iterable[Policy]:
    polynomial = fitted_polynomial(known.tea_changes)
    dial = Dial(
        name="teacache",
        attach=lambda options, threshold: teacache(tea, polynomial, threshold),
        options=[{}],
        low=1e-4,
        high=10.0,
    )
    yield _tuned(dial, known, budget)


def _first_block_cache(known: Known, budget: float) -> Iterable[Policy]:
    dial = Dial(
        name="first-block-cache",
        attach=lambda options, threshold: diffusers_hooks.first_block_cache(known.host, threshold),
        options=[{}],
        low=1e-4,
        high=10.0,
    )
    yield _tuned(dial, known, budget)


def _mag_cache(known: Known, budget: float) -> Iterable[Policy]:
    dial = Dial(
        name="magcache",
        attach=lambda options, threshold: diffusers_hooks.mag_cache(
            known.host, known.mag_ratios, threshold, **options
        ),
        options=_MAG_OPTIONS,
        low=1e-5,
        high=100.0,
        blind=True,
    )
    yield _tuned(dial, known, budget)


def _cache_dit(order: int | None, known: Known, budget: float) -> Iterable[Policy]:
    def attach(options: Mapping[str, Any], threshold: float) -> Attach:
        config = {
            "residual_diff_threshold": threshold,
            "Fn_compute_blocks": 1,
            "Bn_compute_blocks": 0,
            "max_warmup_steps": options["warmup"],
        }
        return known.host.cache_dit(lambda evaluations: config, taylor_order=order)

    dial = Dial(
        name=f"cache-dit {order}",
        attach=attach,
        options=_DBCACHE_OPTIONS,
        low=1e-4,
        high=ALMOST_ALWAYS,
    )
    yield _tuned(dial, known, budget, name="cache-dit", variant=f"taylor {order}" if order else "")


def _tuned(
    dial: Dial, known: Known, budget: float, *, name: str | None = None, variant: str = ""
) -> Policy:
    found = known.tuner.best(dial, budget)
    return Policy(
        name=name or dial.name,
        variant=variant,
        setting=str(found),
        attach=dial.attach(found.options, found.threshold),
    )
