"""Settings of peers for a compute budget, found on the calibration samples.

Peers have thresholds, not budgets. For every option of a peer its threshold is bisected until the
compute counted is that of the budget, and of the options that get there the one with the smallest
error is taken: peers are measured at their best. Evaluation samples have no part in it.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from smoothcache_core.files import write_atomically
from smoothcache_core.metrics import relative_l2
from torch import Tensor

from tools.bench.bench import Bench
from tools.bench.policies import Attach, OutOfReachError

NEAR = 0.02
"""How far from the budget compute may be to count as equal."""
FAR = 0.07
"""How far from the budget compute may be to be shown at all."""
_BISECTIONS = 10

Options = Mapping[str, Any]
Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a policy did on the calibration samples.

    Attributes:
        compute: MACs counted over those of the plain run.
        error: Mean relative L2 error of the final samples.
    """

    compute: float
    error: float


@dataclass(frozen=True, kw_only=True)
class Trials:
    """Tries policies on the calibration samples, each once.

    Attributes:
        bench: The bench.
        seed: Seed of the calibration samples' noise.
        reference: Final samples of their plain run.
        path: File that remembers.
    """

    bench: Bench
    seed: int
    reference: Tensor
    path: Path
    known: dict[str, Trial] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.exists():
            stored = json.loads(self.path.read_text())
            self.known.update({name: Trial(**values) for name, values in stored.items()})

    def of(self, name: str, attach: Attach, *, one: bool = False) -> Trial:
        """Return the trial of a policy; one of the same name is not made again.

        Args:
            name: Name of the policy at its setting.
            attach: Attaches it.
            one: Try it on the first sample only, to learn what it computes.
        """
        key = f"{name} on one sample" if one else name
        if key not in self.known:
            reference = self.reference[:1] if one else self.reference
            run = self.bench.run(attach, samples=len(reference), seed=self.seed)
            error = float(relative_l2(reference, run.latents).mean())
            self.known[key] = Trial(compute=self.bench.compute(run), error=error)
            self._save()
        return self.known[key]

    def _save(self) -> None:
        content = {name: vars(trial) for name, trial in self.known.items()}
        write_atomically(self.path, json.dumps(content).encode())


@dataclass(frozen=True, kw_only=True)
class Dial:
    """A policy with a threshold: the larger, the less is computed.

    Attributes:
        name: Name of the policy.
        attach: Makes it from options and a threshold.
        options: Options to choose from.
        low: Smallest threshold, above 0.
        high: Largest threshold.
        blind: Whether what is computed depends on the settings alone, so that one sample tells.
    """

    name: str
    attach: Callable[[Options, float], Attach]
    options: Sequence[Options]
    low: float
    high: float
    blind: bool = False


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A point of a dial, with its trial."""

    options: Options
    threshold: float
    trial: Trial

    def __str__(self) -> str:
        words = [f"{name.replace('_', ' ')} {value}" for name, value in self.options.items()]
        return ", ".join([f"threshold {self.threshold:.4g}", *words])


class Tuner:
    """Finds settings of dials.

    Args:
        trials: Tries policies.
    """

    def __init__(self, trials: Trials) -> None:
        self._trials = trials
        self._evaluation = 1.0 / trials.bench.sampler.steps
        self._tried: dict[str, dict[float, Trial]] = {}

    def best(self, dial: Dial, budget: float) -> Setting:
        """Return the setting of a dial for a budget.

        Raises:
            OutOfReachError: No setting computes about as much.
        """
        found = [self._bisected(dial, options, budget) for options in dial.options]
        return choose(found, budget, lambda setting: setting.trial)

    def _bisected(self, dial: Dial, options: Options, budget: float) -> Setting:
        """Return the setting of these options whose compute is nearest to the budget."""
        name = f"{dial.name} {sorted(options.items())}"
        tried = self._tried.setdefault(name, {})

        def attach(threshold: float) -> Attach:
            return dial.attach(options, threshold)

        def attempt(threshold: float) -> None:
            tried[threshold] = self._trials.of(
                f"{name} {threshold!r}", attach(threshold), one=dial.blind
            )

        def distance(threshold: float) -> float:
            return abs(tried[threshold].compute - budget)

        if dial.high not in tried:
            attempt(dial.high)
        if tried[dial.high].compute <= budget:
            for _ in range(_BISECTIONS):
                low, high = _bracket(tried, budget, dial.low)
                most = tried[low].compute if low in tried else 1.0
                if most - tried[high].compute <= self._evaluation:
                    break
                attempt(math.sqrt(low * high))
        nearest = min(tried, key=distance)
        trial = self._trials.of(f"{name} {nearest!r}", attach(nearest))
        return Setting(options=options, threshold=nearest, trial=trial)


def _bracket(tried: Mapping[float, Trial], budget: float, low: float) -> tuple[float, float]:
    """Return neighbouring thresholds, the first of which computes more than the budget."""
    high = min(each for each, trial in tried.items() if trial.compute <= budget)
    return max((each for each in tried if each < high), default=low), high


def choose(found: Sequence[Found], budget: float, trial: Callable[[Found], Trial]) -> Found:
    """Return what has the least error of all that meet the budget, or else what is nearest to it.

    Raises:
        OutOfReachError: Nothing is near.
    """

    def distance(each: Found) -> float:
        return abs(trial(each).compute - budget)

    near = [each for each in found if distance(each) <= NEAR]
    best = min(near, key=lambda each: trial(each).error) if near else min(found, key=distance)
    if distance(best) > FAR:
        raise OutOfReachError(
            f"no setting is near this budget; the nearest computes {trial(best).compute:.3f}"
        )
    return best
