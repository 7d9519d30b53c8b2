"""What is planned for a pipeline, and how much it errs beside plain reuse."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from kit.zoo.entry import Entry
from smoothcache_core import Calibration, Sampler, Schedule, SmoothCacheError, calibrate, plan
from smoothcache_core.errors import SmoothCacheWarning
from smoothcache_core.metrics import relative_l2
from smoothcache_core.pipelines import cached_sampler
from smoothcache_core.sources.evaluations import can_skip_guidance
from torch import Tensor

CALIBRATED, JUDGED = range(4), (40, 41)
COMPUTE = {"denoiser": 0.5, "guidance": 0.5, "site": 0.7}


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One plan and its measure.

    Attributes:
        compute: Share of the plain run's compute.
        error: Mean relative L2 error of the final latent over seeds that were not calibrated.
        naive: That of plain reuse at the same compute, evenly spread.
        recomputed: Planned fills that were computed.
    """

    compute: float
    error: float
    naive: float
    recomputed: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came of one pipeline.

    Attributes:
        name: Name of the pipeline.
        denoiser: Class of its denoiser.
        passes: Names of its conditioning passes, or what is batched.
        kinds: Kinds of sites that were found.
        plans: By target.
        reasons: Why there is none, by target.
        exact: Whether an all-compute schedule changes no bit, and a second run equals the first.
    """

    name: str
    denoiser: str
    passes: str
    kinds: tuple[str, ...]
    plans: Mapping[str, Planned] = field(default_factory=dict[str, Planned])
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])
    exact: bool = False


def tried(entry: Entry, targets: Sequence[str] = tuple(COMPUTE)) -> Row:
    """Calibrate, plan and judge one pipeline."""
    pipe = entry.pipeline()
    sampler = entry.sampler_of(pipe, lambda seed: entry.sample(pipe, seed), branches=entry.passes)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", SmoothCacheWarning)  # few samples, on purpose
        known = calibrate(sampler, seeds=CALIBRATED, sensitivity=1, progress=False)
        plain = {seed: sampler.final_latent(seed) for seed in JUDGED}
        judge = _Judge(sampler, known, plain)
        plans, reasons = dict[str, Planned](), dict[str, str]()
        for target in targets:
            try:
                plans[target] = judge.planned(target)
            except SmoothCacheError as error:
                reasons[target] = str(error)
        exact = judge.is_exact()
    return Row(
        name=entry.name,
        denoiser=known.fingerprint.model_class or "",
        passes=_passes(known),
        kinds=known.kinds,
        plans=plans,
        reasons=reasons,
        exact=exact,
    )


def _passes(known: Calibration) -> str:
    named = [branch for branch in known.branches if branch]
    if named:
        return " + ".join(named)
    parts = 1 if known.dynamics is None else known.dynamics.response.weights.shape[1]
    return "one batch of two" if parts == 2 else "one"


@dataclass(frozen=True)
class _Judge:
    sampler: Sampler
    known: Calibration
    plain: Mapping[int, Tensor]

    def planned(self, target: str) -> Planned:
        if target == "guidance" and not can_skip_guidance(self.known):
            raise SmoothCacheError("there is no unconditional pass that can be told")
        if target == "site" and not self.known.sites:
            raise SmoothCacheError("no sites")
        schedule = plan(self.known, compute=COMPUTE[target], target=target)
        error, recomputed = self.error(schedule)
        naive, _ = self.error(self.naive(schedule, target))
        return Planned(
            compute=schedule.compute_fraction(), error=error, naive=naive, recomputed=recomputed
        )

    def naive(self, schedule: Schedule, target: str) -> Schedule:
        """Return plain reuse, evenly spread, of no less compute than a schedule."""
        for computed in range(1, self.known.evaluations + 1):
            places = np.linspace(0, self.known.evaluations - 1, computed).round()
            row = tuple(int(i in places) for i in range(self.known.evaluations))
            names = self.known.kinds if target == "site" else ("denoiser",)
            rows = dict.fromkeys(names, row)
            found = Schedule(
                evaluations=len(row),
                rows=rows,
                fingerprint=self.known.fingerprint,
                cost=self.known.cost,
            )
            if found.compute_fraction() >= schedule.compute_fraction() - 1e-9:
                return found
        raise AssertionError("computing everything is enough")

    def error(self, schedule: Schedule) -> tuple[float, int]:
        with cached_sampler(self.sampler, schedule) as stats:
            found = {seed: self.sampler.final_latent(seed) for seed in JUDGED}
        errors = [relative_l2(self.plain[seed], found[seed]) for seed in JUDGED]
        return float(torch.cat(errors).mean()), stats.recomputed

    def is_exact(self) -> bool:
        whole = Schedule(
            evaluations=self.known.evaluations,
            rows={"denoiser": (1,) * self.known.evaluations},
            fingerprint=self.known.fingerprint,
        )
        seed = JUDGED[0]
        with cached_sampler(self.sampler, whole):
            first, second = self.sampler.final_latent(seed), self.sampler.final_latent(seed)
        return torch.equal(first, self.plain[seed]) and torch.equal(first, second)
