"""The truth that estimates of sensitivity are compared with."""

import numpy as np
import pytest
from smoothcache_core import Calibration, calibrate
from smoothcache_core.sources.promises import Promises
from smoothcache_image import load_pipeline
from smoothcache_image.sampling import PromptSampler, prompt_sampler
from torch import Tensor

from tools.bench.studies import sensitivity as script
from tools.bench.studies.sensitivity import counted, drawn, measure, predicted, reusing, true_errors

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS, BATCH = 5, 2


@pytest.fixture(scope="module")
def sampler() -> PromptSampler:
    pipe = load_pipeline("digits")
    pipe.set_progress_bar_config(disable=True)
    return prompt_sampler(pipe, conditions=range(10), steps=STEPS, guidance=1.5, samples=BATCH)


@pytest.fixture(scope="module")
def calibration(sampler: PromptSampler) -> Calibration:
    return calibrate(sampler, seeds=[0], max_lag=3, progress=False)


def with_older_output(sampler: PromptSampler, path: str, evaluation: int) -> Tensor:
    """Sample, giving a site's output of the evaluation before at one evaluation."""
    outputs: list[Tensor] = []

    def replaced(module: object, inputs: object, output: Tensor) -> Tensor | None:
        outputs.append(output.clone())
        return outputs[-2] if len(outputs) == evaluation + 1 else None

    handle = sampler.model.get_submodule(path).register_forward_hook(replaced)
    try:
        return sampler(0)
    finally:
        handle.remove()


def test_pairs_are_drawn_once_each(calibration: Calibration):
    sites = len(calibration.sites)
    pairs = drawn(calibration, 30)
    assert len(set(pairs)) == len(pairs) == 30
    assert pairs == drawn(calibration, 30)
    everything = drawn(calibration, 10**6)
    assert sorted(everything) == [(s, e) for s in range(sites) for e in range(1, STEPS)]


def test_schedule_of_a_pair_reuses_once(calibration: Calibration):
    for index, evaluation in drawn(calibration, 5):
        schedule = reusing(calibration, (index, evaluation))
        for place, site in enumerate(calibration.sites):
            filled = [i for i, one in enumerate(schedule.row(site)) if not one]
            assert filled == ([evaluation] if place == index else [])


def test_true_error_is_what_an_older_output_does(calibration: Calibration, sampler: PromptSampler):
    pairs = [(3, 1), (0, STEPS - 1), (len(calibration.sites) - 1, 2)]
    found = true_errors(sampler, [reusing(calibration, pair) for pair in pairs])
    plain = sampler(0)
    for (index, evaluation), error in zip(pairs, found, strict=True):
        other = with_older_output(sampler, calibration.sites[index].path, evaluation)
        assert error == pytest.approx(float((other - plain).norm() / plain.norm()), rel=1e-3)
        assert error > 1e-6


def test_predicted_error_is_influence_times_effect_times_change(calibration: Calibration):
    pairs, promises = drawn(calibration, 6), Promises(calibration, noisy=False)
    assert calibration.products is not None
    products = script.joined(calibration.products) / calibration.samples
    effects = script.effects(calibration)
    for (index, evaluation), error in zip(pairs, predicted(calibration, pairs), strict=True):
        both = products[index, evaluation, 1]
        square = products[index, evaluation, 0] + products[index, evaluation - 1, 0] - 2 * both
        estimate = float(effects[index, evaluation - 1] * np.sqrt(square))
        promise = promises.of(script.reusing(calibration, (index, evaluation)), estimate)
        assert error == pytest.approx(promise.error, rel=1e-6)


def test_calls_are_counted_until_the_end(sampler: PromptSampler):
    with counted(sampler.model) as counter:
        sampler(0)
    sampler(0)
    assert counter.calls == STEPS


@pytest.mark.slow
def test_record_compares_every_estimate_with_the_truth():
    rows = {row["estimate"]: row for row in measure(6, 1, "ddim", 8)}
    assert list(rows) == [*script.settings_of(6, 20), "relative errors", "true errors"]
    assert rows["true errors"]["calls"] == 8 * 6
    assert rows["full"]["rank_true"] > 0.8
    for row in rows.values():
        assert -1.0 <= row["rank_true"] <= 1.0
    for name in script.settings_of(6, 20):
        assert rows[name]["true_ratio"] > 0.0
