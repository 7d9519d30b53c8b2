"""Settings of peers for a compute budget, found on the calibration samples.

Peers have thresholds, not budgets. For every option of a peer its threshold is bisected until the
compute counted is that of the budget, and of the options that get there the one with the smallest
error is taken: peers are measured at their best. Evaluation samples have no part in it.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from _quality_testbed import Put, Testbed
from smoothcache_core import relative_l2
from torch import Tensor

NEAR = 0.02
"""How far from the budget compute may be to count as equal."""
FAR = 0.05
"""How far from the budget compute may be to be shown at all."""
_BISECTIONS = 10

Options = Mapping[str, Any]
Found = TypeVar("Found")


class OutOfReachError(Exception):
    """A policy cannot meet a budget."""


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
        bed: The testbed.
        samples: Calibration samples.
        seed: Seed of their noise.
        reference: Final samples of their plain run.
        path: File that remembers.
    """

    bed: Testbed
    samples: int
    seed: int
    reference: Tensor
    path: Path
    known: dict[str, Trial] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.exists():
            stored = json.loads(self.path.read_text())
            self.known.update({name: Trial(**values) for name, values in stored.items()})

    def of(self, name: str, put: Put) -> Trial:
        """Return the trial of a policy; one of the same name is not made again."""
        if name not in self.known:
            run = self.bed.run(put, samples=self.samples, seed=self.seed)
            error = float(relative_l2(self.reference, run.latents).mean())
            self.known[name] = Trial(compute=self.bed.compute(run), error=error)
            self._save()
        return self.known[name]

    def _save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {name: vars(trial) for name, trial in self.known.items()}
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(content))
        part.replace(self.path)


@dataclass(frozen=True, kw_only=True)
class Dial:
    """A policy with a threshold: the larger, the less is computed.

    Attributes:
        name: Name of the policy.
        put: Makes it from options and a threshold.
        options: Options to choose from.
        low: Smallest threshold, above 0.
        high: Largest threshold.
    """

    name: str
    put: Callable[[Options, float], Put]
    options: Sequence[Options]
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A point of a dial, with its trial."""

    options: Options
    threshold: float
    trial: Trial

    def __str__(self) -> str:
        words = [f"{name.replace('_', ' ')} {value}" for name, value in self.options.items()]
        return ", ".join([f"threshold {self.threshold:.4g}", *words])


def best_setting(dial: Dial, budget: float, trials: Trials) -> Setting:
    """Return the setting of a dial for a budget.

    Raises:
        OutOfReachError: No setting computes about as much.
    """
    found = [_bisected(dial, options, budget, trials) for options in dial.options]
    return choose(found, budget, lambda setting: setting.trial)


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


def _bisected(dial: Dial, options: Options, budget: float, trials: Trials) -> Setting:
    """Return the setting of these options whose compute is nearest to the budget."""

    def at(threshold: float) -> Setting:
        name = f"{dial.name} {sorted(options.items())} {threshold!r}"
        trial = trials.of(name, dial.put(options, threshold))
        return Setting(options=options, threshold=threshold, trial=trial)

    tried = [at(dial.high)]
    if tried[0].trial.compute <= budget:
        tried += _halving(dial, budget, at, evaluation=1.0 / trials.bed.sampler.steps)
    return min(tried, key=lambda setting: abs(setting.trial.compute - budget))


def _halving(
    dial: Dial, budget: float, at: Callable[[float], Setting], *, evaluation: float
) -> Iterator[Setting]:
    """Bisect down to a difference of one evaluation in compute."""
    low, high, most, least = dial.low, dial.high, 1.0, 0.0
    for _ in range(_BISECTIONS):
        middle = math.sqrt(low * high)
        setting = at(middle)
        yield setting
        if setting.trial.compute > budget:
            low, most = middle, setting.trial.compute
        else:
            high, least = middle, setting.trial.compute
        if most - least <= evaluation or abs(setting.trial.compute - budget) <= evaluation / 4:
            return
