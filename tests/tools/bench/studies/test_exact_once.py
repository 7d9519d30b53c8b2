from typing import Any

from kit.exact import Curved, EulerSampler
from smoothcache_core import calibrate, fit, plan

from tools.bench.baselines.ours import Material, fitted
from tools.bench.studies.exact_once import solved_once

STEPS, SEEDS = 8, (0, 1)


def test_calibrating_and_all_fits_share_finer_runs_and_give_what_they_give_alone():
    made = EulerSampler(Curved(), STEPS, samples=8)
    asked: list[tuple[int, int]] = []

    def finer(seed: int, factor: int):
        asked.append((seed, factor))
        return made.finer(seed, factor)

    sampler: Any = made.value(finer=finer)
    with solved_once():
        found = calibrate(sampler, seeds=SEEDS, progress=False, reference="exact")
        material = Material(calibration=found, sampler=sampler, seeds=SEEDS)
        schedules = [fitted(material, budget, toward="exact") for budget in (1.0, 0.5)]
    assert sorted(asked) == [(seed, factor) for seed in SEEDS for factor in (4, 8)]
    alone = plan(found, compute=0.5, toward="exact")
    assert schedules[1] == fit(sampler, alone, seeds=SEEDS, toward="exact", progress=False)
    assert len(asked) == 8
