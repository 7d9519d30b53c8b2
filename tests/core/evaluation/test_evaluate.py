import math
import statistics
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.helpers import anatomy
from smoothcache_core import (
    PatternAdapter,
    Report,
    Sampler,
    Schedule,
    SitePattern,
    SmoothCacheWarning,
    evaluate,
)
from smoothcache_core.errors import EvaluationError, SamplerError, ScheduleError
from smoothcache_core.metrics import psnr_db
from smoothcache_core.numerics.bootstrap import interval_of_mean
from smoothcache_core.schedule import Cost, Fingerprint, Prediction, Provenance, SiteCost
from torch import Tensor, nn

ADAPTER = PatternAdapter(name="squares", patterns=(SitePattern("blocks.*", "square"),))
COST = Cost(total=10, sites=(SiteCost(path="blocks.0", kind="square", block=0, macs=9, bytes=4),))
NOTHING = Cost(total=0, sites=())
TIMESTEPS = (3.0, 2.0, 1.0)

PLAIN, TWICE, ONCE = 3, 2, 1
"""Policies, named by how often they compute the site in one run."""


class Square(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.computed = 0

    def forward(self, hidden: Tensor) -> Tensor:
        self.computed += 1
        return hidden**2


class Squares(nn.Module):
    """A denoiser with one site, which squares, and a sampler that adds what it says.

    `runs` holds the seed and the number of computed evaluations of every run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.square = Square()
        self.blocks = nn.ModuleList([self.square])
        self.runs: list[tuple[int, int]] = []

    def forward(self, hidden_states: Tensor, timestep: float) -> Tensor:
        del timestep
        return self.blocks[0](hidden_states)

    def sample(self, seed: int) -> Tensor:
        """Start from `seed` and `seed + 1`; return the samples (2, 1)."""
        self.square.computed = 0
        latent = torch.tensor([[float(seed)], [float(seed + 1)]])
        for timestep in TIMESTEPS:
            latent = latent + self(latent, timestep)
        self.runs.append((seed, self.square.computed))
        return latent


def schedule(*row: int, seeds: tuple[int, ...] = (), cost: Cost | None = None) -> Schedule:
    source = Provenance(name="toy", settings={"row": str(row)}, seeds=seeds)
    return Schedule(evaluations=len(row), rows={"square": row}, source=source, cost=cost)


SCHEDULES = {"twice": schedule(1, 0, 1), "once": schedule(1, 0, 0)}

# What the sampler makes of 1, 2 and 3: x + x^2 three times, where x^2 may be that of before.
FINAL = {
    "plain": {1: 42.0, 2: 1806.0, 3: 24492.0},
    "twice": {1: 12.0, 2: 110.0, 3: 462.0},
    "once": {1: 4.0, 2: 14.0, 3: 30.0},
}


def distances(policy: str, *starts: int) -> list[float]:
    plain = FINAL["plain"]
    return [(plain[start] - FINAL[policy][start]) / plain[start] for start in starts]


def judged(
    model: Squares,
    schedules: Mapping[str, Schedule] = SCHEDULES,
    *,
    seeds: Sequence[int] = (1, 2),
    **options: Any,
) -> Report:
    of_sampler = {key: options.pop(key) for key in {"decode", "solver"} & options.keys()}
    sampler = taken(model, **of_sampler)
    return evaluate(sampler, schedules, seeds=seeds, progress=False, **options)


def taken(model: Squares, **settings: Any) -> Sampler:
    known = {"model": model, "adapter": ADAPTER, "run": model.sample, "samples": 2}
    return Sampler(**{**known, **settings})


# ---------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("policy", SCHEDULES)
def test_distance_of_every_sample_is_the_hand_computed_one(policy: str):
    row = judged(Squares()).row(policy)
    expected = distances(policy, 1, 2, 2, 3)
    assert row.metrics["rel_l2"].samples == tuple(expected)
    assert row.rel_l2 == row.metrics["rel_l2"].mean == math.fsum(expected) / 4
    assert row.rel_l2_spread == row.metrics["rel_l2"].spread == statistics.stdev(expected)


def test_plain_comes_first_and_is_its_own_reference():
    report = judged(Squares())
    plain = report.rows[0]
    assert [row.policy for row in report.rows] == ["plain", "twice", "once"]
    assert (plain.rel_l2, plain.rel_l2_spread, plain.compute) == (0.0, 0.0, 1.0)
    assert (plain.speedup, plain.of_limit, plain.bytes_peak, plain.source) == (1.0, 1.0, 0, None)


def test_schedule_that_computes_everything_changes_nothing():
    with pytest.warns(SmoothCacheWarning, match="computes everything"):
        row = judged(Squares(), {"all": schedule(1, 1, 1)}, metrics=PSNR).row("all")
    assert row.metrics["rel_l2"].samples == (0.0,) * 4
    assert (row.rel_l2, row.rel_l2_spread) == (0.0, 0.0)
    assert (row.psnr_db, row.metrics["psnr_db"].spread) == (math.inf, 0.0)


PSNR = {"psnr_db": lambda reference, given: psnr_db(reference, given, data_range=100.0)}


def test_metrics_are_means_over_all_samples_of_all_seeds():
    def difference(reference: Tensor, given: Tensor) -> Tensor:
        return (reference - given).flatten()

    row = judged(Squares(), metrics={"difference": difference, **PSNR}).row("twice")
    assert row.metrics["difference"].samples == (30.0, 1696.0, 1696.0, 24030.0)
    assert row.metrics["difference"].mean == (30.0 + 2 * 1696.0 + 24030.0) / 4
    expected = [20 * math.log10(100 / error) for error in (30.0, 1696.0, 1696.0, 24030.0)]
    assert row.psnr_db == pytest.approx(statistics.mean(expected), rel=1e-12)
    assert list(row.metrics) == ["rel_l2", "difference", "psnr_db"]


def test_spread_of_one_sample_is_zero():
    model = Squares()
    single = taken(model, run=lambda seed: model.sample(seed)[:1], samples=1)
    report = evaluate(single, SCHEDULES, seeds=[1], progress=False)
    assert (report.num_samples, report.row("once").rel_l2_spread) == (1, 0.0)


def test_error_of_many_samples_has_an_interval_and_of_one_has_none():
    row = judged(Squares()).row("once")
    assert row.rel_l2_low is not None
    assert row.rel_l2_high is not None
    assert min(distances("once", 1, 2, 3)) < row.rel_l2_low < row.rel_l2 < row.rel_l2_high < 1.0
    same = judged(Squares()).row("once")
    assert (row.rel_l2_low, row.rel_l2_high) == (same.rel_l2_low, same.rel_l2_high)
    model = Squares()
    single = taken(model, run=lambda seed: model.sample(seed)[:1], samples=1)
    report = evaluate(single, SCHEDULES, seeds=[1], progress=False)
    assert (report.row("once").rel_l2_low, report.row("once").rel_l2_high) == (None, None)


def test_interval_is_about_two_standard_errors_of_the_mean():
    values = torch.rand(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = interval_of_mean(values.tolist())
    expected = 1.96 * float(values.std()) / 20
    assert low is not None
    assert high is not None
    # the 2000 resamples leave some 3 % of the width to chance
    assert float(values.mean()) - low == pytest.approx(expected, rel=0.1)
    assert high - float(values.mean()) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("values", [[1.0], [1.0, math.inf], [math.nan, 1.0]])
def test_interval_is_unknown_for_one_value_and_for_infinite_ones(values: list[float]):
    assert interval_of_mean(values) == (None, None)


@pytest.mark.parametrize(
    ("values", "mean", "spread"),
    [([1.0, math.inf], math.inf, math.inf), ([math.inf, math.inf], math.inf, 0.0)],
)
def test_infinite_values_give_an_infinite_mean(values: list[float], mean: float, spread: float):
    metrics = {"given": lambda reference, given: torch.tensor(values)}
    metric = judged(Squares(), seeds=[1], metrics=metrics).row("once").metrics["given"]
    assert (metric.mean, metric.spread) == (mean, spread)


def test_broken_samples_are_shown_as_not_a_number():
    metrics = {"given": lambda reference, given: torch.tensor([1.0, math.nan])}
    metric = judged(Squares(), seeds=[1], metrics=metrics).row("once").metrics["given"]
    assert math.isnan(metric.mean)
    assert math.isnan(metric.spread)


def test_summaries_see_all_samples_in_the_order_of_the_seeds():
    seen: list[list[float]] = []

    def accuracy(samples: Tensor) -> float:
        seen.append(samples.flatten().tolist())
        return float((samples > 100.0).float().mean())

    summaries = {"accuracy": accuracy, "frechet": lambda samples: samples.sum(), "least": torch.min}
    report = judged(Squares(), seeds=(1, 2), summaries=summaries)
    assert seen == [[final[start] for start in (1, 2, 2, 3)] for final in FINAL.values()]
    assert [row.accuracy for row in report.rows] == [0.75, 0.75, 0.0]
    assert [row.frechet for row in report.rows] == [28146.0, 694.0, 62.0]
    assert report.row("twice").summaries == {"accuracy": 0.75, "frechet": 694.0, "least": 12.0}


def test_calls_and_bytes_are_counted_over_the_timed_runs():
    report = judged(Squares(), seeds=(1, 2), warmup=3)
    counts = [(row.computed, row.reused, row.recomputed) for row in report.rows]
    assert counts == [(None, 0, 0), (4, 2, 0), (2, 4, 0)]
    assert [row.bytes_peak for row in report.rows] == [0, 8, 8]


def test_seconds_and_speedup_are_medians_over_the_seeds():
    report = judged(Squares(), seeds=(1, 2, 3), cost=COST)
    plain, row = report.row("plain"), report.row("twice")
    ratios = [a / b for a, b in zip(plain.seconds_each, row.seconds_each, strict=True)]
    assert len(row.seconds_each) == 3
    assert row.seconds == sorted(row.seconds_each)[1]
    assert row.speedup == sorted(ratios)[1]
    assert row.of_limit == row.speedup * 0.7


@pytest.mark.parametrize(
    ("own", "given", "expected"),
    [(None, None, None), (COST, None, 0.7), (None, COST, 0.7), (NOTHING, None, None)],
)
def test_compute_is_counted_with_any_cost_there_is(
    own: Cost | None, given: Cost | None, expected: float | None
):
    row = judged(Squares(), {"twice": schedule(1, 0, 1, cost=own)}, seeds=[1], cost=given).rows[1]
    assert row.compute == expected
    assert (row.of_limit is None) == (expected is None)


def test_cost_that_is_given_counts_for_all():
    other = COST.changed(total=18)
    row = judged(Squares(), {"twice": schedule(1, 0, 1, cost=COST)}, seeds=[1], cost=other).rows[1]
    assert row.compute == pytest.approx(1 - 0.5 / 3)


# ---------------------------------------------------------------------------- the runs


def test_every_seed_is_run_once_by_every_policy_in_an_order_that_rotates():
    model = Squares()
    judged(model, seeds=(1, 5, 3, 4), warmup=0)
    assert [seed for seed, _ in model.runs] == [1, 1, 1, 5, 5, 5, 3, 3, 3, 4, 4, 4]
    rotated = [PLAIN, TWICE, ONCE, TWICE, ONCE, PLAIN, ONCE, PLAIN, TWICE, PLAIN, TWICE, ONCE]
    assert [computed for _, computed in model.runs] == rotated


@pytest.mark.parametrize("warmup", [0, 1, 2])
def test_warmup_runs_come_before_and_are_not_timed(warmup: int):
    model = Squares()
    report = judged(model, seeds=(4, 2), warmup=warmup)
    before, timed = model.runs[: 3 * warmup], model.runs[3 * warmup :]
    assert before == [(4, PLAIN), (4, TWICE), (4, ONCE)] * warmup
    assert timed == [(4, PLAIN), (4, TWICE), (4, ONCE), (2, TWICE), (2, ONCE), (2, PLAIN)]
    assert [len(row.seconds_each) for row in report.rows] == [2, 2, 2]
    assert report.warmup == warmup


def test_samples_are_those_of_their_time_though_the_sampler_overwrites_them():
    model, buffer = Squares(), torch.empty(2, 1)
    sampler = taken(model, run=lambda s: buffer.copy_(model.sample(s)))
    report = evaluate(sampler, SCHEDULES, seeds=[1, 2], progress=False, keep_samples=True)
    for policy, final in FINAL.items():
        assert report.samples[policy].flatten().tolist() == [final[start] for start in (1, 2, 2, 3)]


@pytest.mark.parametrize(("keep", "kept"), [(False, None), (0, None), (1, 1), (3, 3), (True, 4)])
@pytest.mark.parametrize("summaries", [{}, {"sum": torch.sum}], ids=["alone", "with summaries"])
def test_as_many_samples_are_kept_as_asked_for(keep: int, kept: int | None, summaries: dict):
    report = judged(Squares(), keep_samples=keep, summaries=summaries)
    expected = {
        policy: [final[start] for start in (1, 2, 2, 3)][:kept] for policy, final in FINAL.items()
    }
    held = {policy: samples.flatten().tolist() for policy, samples in report.samples.items()}
    assert held == ({} if kept is None else expected)


def test_plain_that_repeats_itself_is_recorded_as_exact():
    assert judged(Squares()).plain_repeat_rel_l2 == 0.0
    assert judged(Squares(), warmup=0).plain_repeat_rel_l2 is None


def test_sampler_that_ignores_the_seed_is_told_of():
    model = Squares()

    def unseeded(seed: int) -> Tensor:
        return model.sample(seed) * (1.0 + len(model.runs))

    with pytest.warns(SmoothCacheWarning, match="does `run` make all its noise from the seed"):
        report = evaluate(taken(model, run=unseeded), SCHEDULES, seeds=[1], progress=False)
    # Run number 1 is the rehearsal (factor 2), number 4 the timed plain run (factor 5).
    assert report.plain_repeat_rel_l2 == 1.5


def test_model_is_restored_and_can_be_evaluated_again():
    model = Squares()
    before = anatomy(model)
    first = judged(model)
    model.runs.clear()
    model.square.computed = 0
    assert anatomy(model) == before
    assert judged(model).row("once").metrics == first.row("once").metrics


@pytest.mark.parametrize("failing", [PLAIN, TWICE])
def test_model_is_restored_when_the_sampler_fails(failing: int):
    model = Squares()
    before = anatomy(model)

    def fail(seed: int) -> Tensor:
        model.sample(seed)
        if model.runs.pop() == (seed, failing):
            raise KeyboardInterrupt
        return torch.ones(2)

    with pytest.raises(KeyboardInterrupt):
        evaluate(taken(model, run=fail), SCHEDULES, seeds=[1], progress=False)
    model.square.computed = 0
    assert anatomy(model) == before


def test_progress_is_shown_only_if_asked_for(capsys: pytest.CaptureFixture[str]):
    judged(Squares(), seeds=(1, 2))
    assert capsys.readouterr().err == ""
    model = Squares()
    evaluate(taken(model), SCHEDULES, seeds=(1, 2))
    assert "9/9" in capsys.readouterr().err


# ---------------------------------------------------------------------------- what is written down


def test_report_says_what_was_run():
    schedules = {"twice": schedule(1, 0, 1, seeds=(8, 6)), "once": schedule(1, 0, 0, seeds=(7, 8))}
    report = judged(Squares(), schedules, seeds=range(1, 3), solver="Euler", ours=["once"])
    assert (report.seeds, report.calibration_seeds) == ((1, 2), (6, 7, 8))
    assert (report.num_samples, report.sample_shape, report.sample_dtype) == (4, (1,), "float32")
    assert report.fingerprint.model_class == "Squares"
    assert report.fingerprint.adapter == "squares"
    assert [row.solver for row in report.rows] == ["Euler"] * 3
    assert [row.evaluations for row in report.rows] == [3] * 3
    assert [row.ours for row in report.rows] == [False, False, True]
    assert report.row("twice").source == schedules["twice"].source
    assert report.versions["torch"] == version("torch")
    assert report.device.startswith("cpu")


def test_report_keeps_what_the_schedules_promise():
    promised = SCHEDULES["once"].changed(prediction=Prediction(error=0.25))
    schedules = {"once": promised, "twice": SCHEDULES["twice"]}
    report = judged(Squares(), schedules, seeds=[1], calibration_samples=12)
    assert [row.prediction for row in report.rows] == [None, Prediction(error=0.25), None]
    assert report.calibration_samples == 12


def test_report_of_a_real_run_survives_a_file(tmp_path: Path):
    summaries = {"mean": torch.mean}
    report = judged(Squares(), metrics=PSNR, summaries=summaries, cost=COST, keep_samples=1)
    assert Report.load(report.save(tmp_path / "report.json")) == report


def test_branches_are_handed_on_to_the_cache():
    model = Squares()

    def guided(seed: int) -> Tensor:
        latent = torch.tensor([float(seed)])
        for timestep in TIMESTEPS:
            latent = latent + model(latent, timestep) + model(-latent - 1.0, timestep)
        return latent

    sampler = taken(model, run=guided, samples=1, branches=("cond", "uncond"))
    once = {"once": SCHEDULES["once"]}
    report = evaluate(sampler, once, seeds=[1], progress=False, keep_samples=True)
    # From 1 by x^2 = 1 and (-x - 1)^2 = 4, both reused: 1 + 5 + 5 + 5.
    assert report.samples["once"].tolist() == [16.0]
    assert report.fingerprint.branches == ("cond", "uncond")


# ---------------------------------------------------------------------------- refusals


def refused(
    message: str,
    schedules: Mapping[str, Schedule] = SCHEDULES,
    kind: type[Exception] = EvaluationError,
    **options: Any,
) -> None:
    """Assert that the evaluation is refused before anything is sampled."""
    model = Squares()
    with pytest.raises(kind, match=message):
        judged(model, schedules, **options)
    assert model.runs == []


def test_seeds_of_the_calibration_are_refused_by_number():
    schedules = {"clean": schedule(1, 0, 1), "seen": schedule(1, 0, 0, seeds=(3, 4, 9))}
    refused(
        r"seeds \[4, 9\] were used to calibrate or fit 'seen'.*from 10 on",
        schedules,
        seeds=(1, 9, 4, 2),
        warmup=0,
    )


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_seeds_must_be_distinct(seeds: tuple[int, ...]):
    refused("distinct seeds", seeds=seeds)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("at least 0, got -1 and 0", {"warmup": -1}),
        ("at least 0, got 1 and -2", {"keep_samples": -2}),
        (r"ours names \['other'\]", {"ours": ["other"]}),
    ],
)
def test_settings_out_of_range_are_refused(message: str, options: dict):
    refused(message, **options)


def test_schedules_need_names_of_their_own():
    refused("names other than 'plain'", {})
    refused("names other than 'plain'", {"plain": schedule(1, 0, 1)})


def test_schedules_must_have_the_same_evaluations():
    schedules = {"three": schedule(1, 0, 1), "two": schedule(1, 0)}
    refused(r"differ in their evaluations: \{'three': 3, 'two': 2\}", schedules)


def test_schedule_that_does_not_fit_the_model_is_refused_though_it_is_the_last():
    strange = Schedule(evaluations=3, rows={"cube": (1, 0, 1)})
    other = Schedule(
        evaluations=3, rows={"square": (1, 0, 1)}, fingerprint=Fingerprint(model_class="Cubes")
    )
    refused("names .*cube", {**SCHEDULES, "strange": strange}, ScheduleError)
    refused("for another model", {**SCHEDULES, "other": other}, ScheduleError)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda samples: None, r"evaluated; it returned None"),
        (lambda samples: [samples], "for samples=2, .*it returned a list of length 1"),
        (lambda samples: samples.sum(), r"it returned a tensor of shape \(\)"),
        (lambda samples: samples[:0], r"it returned a tensor of shape \(0, 1\)"),
        (lambda samples: samples[:1], r"a tensor \(2, ...\) .*a tensor of shape \(1, 1\)"),
    ],
)
def test_sampler_that_returns_no_samples_is_refused(returned: Callable, message: str):
    model = Squares()
    sampler = taken(model, run=lambda s: returned(model.sample(s)))
    with pytest.raises(SamplerError, match=message):
        evaluate(sampler, SCHEDULES, seeds=[1], progress=False)
    assert len(model.runs) == 1


def test_sampler_whose_samples_change_their_shape_is_refused():
    model = Squares()

    def sample(seed: int) -> Tensor:
        samples = model.sample(seed)
        return samples if model.runs[-1][1] == PLAIN else samples[:, :0]

    with pytest.raises(EvaluationError, match=r"returned \(2, 0\), but \(2, 1\) for the plain run"):
        evaluate(taken(model, run=sample), SCHEDULES, seeds=[1], progress=False)


def test_metrics_summaries_and_kept_samples_are_of_decoded_latents_and_rel_l2_of_latents():
    model, decoded = Squares(), []

    def decode(latents: Tensor) -> Tensor:
        decoded.append(len(latents))
        return 10.0 * latents[:, 0]

    def difference(reference: Tensor, given: Tensor) -> Tensor:
        assert reference.shape == given.shape == (2,)
        return reference - given

    report = judged(
        model, decode=decode, metrics={"difference": difference},
        summaries={"frechet": lambda samples: samples.sum()}, keep_samples=3,
    )  # fmt: skip
    row = report.row("twice")
    assert row.metrics["rel_l2"].samples == tuple(distances("twice", 1, 2, 2, 3))
    assert row.metrics["difference"].samples == (300.0, 16960.0, 16960.0, 240300.0)
    assert row.frechet == 6940.0
    assert report.samples["twice"].tolist() == [120.0, 1100.0, 1100.0]
    assert report.sample_shape == (1,)
    assert max(decoded) == 2  # never more than the samples of one run


def test_everything_happens_inside_what_is_around_the_sampler():
    model, inside = Squares(), []

    @contextmanager
    def around() -> Generator[None]:
        inside.append(len(model.runs))
        yield
        inside.append(len(model.runs))

    evaluate(taken(model, around=around), SCHEDULES, seeds=[1], progress=False)
    assert inside == [0, 6]


def test_metric_that_is_not_per_sample_is_refused():
    with pytest.raises(EvaluationError, match=r"metric 'total' must .* \(2,\), got \(\)"):
        judged(Squares(), metrics={"total": lambda reference, given: (reference - given).sum()})
