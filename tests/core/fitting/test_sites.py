"""Fills of sites, fitted on the cached run to what the plain run's sites gave."""

import copy
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from kit.helpers import anatomy
from kit.planning import MIXTURE, Mixture, OneStep, Passes, ToySampler, error_of
from numpy.typing import NDArray
from smoothcache_core import Schedule, cached, calibrate, fit
from smoothcache_core.calls.call import CallReader
from smoothcache_core.errors import ScheduleError
from smoothcache_core.numerics.least_squares import ridge
from smoothcache_core.schedule import Provenance
from smoothcache_core.sources import plan_sites
from torch import Tensor

E = 10
SEEDS = (0, 1)
ROW = (1, 1, 0, 1, 0, 0, 1, 0, 1, 0)
Array = NDArray[np.float64]
GAINS = (1.0, 0.5)
PATHS = ("parts.0", "parts.1")
REUSE = Schedule(evaluations=E, rows={"part": ROW})


def toy(passes: Passes = "one") -> tuple[Mixture, ToySampler]:
    model = Mixture(GAINS, E, bend=0.2)
    return model, ToySampler(model, lambda: OneStep(E), passes=passes)


def fitted(model: Mixture, sampler: ToySampler, schedule: Schedule, **settings: Any) -> Schedule:
    settings = {"seeds": SEEDS, "progress": False} | settings
    return fit(sampler.value(model=model), schedule, **settings)


def promised(schedule: Schedule) -> float:
    assert schedule.prediction is not None
    assert schedule.prediction.measured
    return schedule.prediction.error


def outputs_of(model: Mixture, sampler: ToySampler, schedule: Schedule | None, path: str) -> Array:
    """Return what a site would compute on the latents of the run of the first seed, (E, n)."""
    latents: list[Tensor] = []

    def watched(latent: Tensor, timestep: Any, label: Tensor) -> Tensor:
        latents.append(latent)
        return model(latent, timestep, label)

    with nullcontext() if schedule is None else cached(model, MIXTURE, schedule):
        ToySampler(watched, sampler.solver)(SEEDS[0])
    part = copy.deepcopy(model).get_submodule(path)
    label = torch.zeros(2, dtype=torch.long)
    return torch.stack(
        [part(x, i, label).double().flatten() for i, x in enumerate(latents)]
    ).numpy()


@pytest.mark.parametrize("terms", [1, 2, 3])
def test_coefficients_are_least_squares_on_the_run_that_they_lead_to(terms: int):
    model, sampler = toy()
    schedule = fitted(model, sampler, REUSE, seeds=SEEDS[:1], terms=terms)
    for path in PATHS:
        kept = outputs_of(model, sampler, schedule, path)
        wanted = outputs_of(model, sampler, None, path)
        for i in (i for i, computed in enumerate(ROW) if not computed):
            done = [j for j in reversed(range(i)) if ROW[j]][:terms]
            expected = ridge(kept[done], wanted[i])
            assert schedule.fills[path].terms[i] == pytest.approx(expected, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("passes", ["one", "batched", "sequential"])
def test_what_is_promised_is_what_comes(passes: Passes):
    model, sampler = toy(passes)
    schedule = fitted(model, sampler, REUSE, terms=2)
    assert promised(schedule) == pytest.approx(error_of(model, sampler, SEEDS, schedule), rel=1e-4)
    assert promised(schedule) < error_of(model, sampler, SEEDS, REUSE)
    assert set(schedule.rows.values()) == set(REUSE.rows.values())
    assert schedule.rows.keys() == {*REUSE.rows, *schedule.fills}
    assert schedule.source.settings["fill"] == "fitted(2)"


@pytest.mark.parametrize("passes", ["one", "batched", "sequential"])
def test_a_planned_schedule_gets_no_worse(passes: Passes):
    model, sampler = toy(passes)
    calibration = calibrate(sampler.value(model=model), seeds=SEEDS, max_lag=4, progress=False)
    given = plan_sites(calibration, compute=0.6)
    schedule = fitted(model, sampler, given)
    assert promised(schedule) <= error_of(model, sampler, SEEDS, given) * (1 + 1e-4)
    assert {path: set(fill.terms) for path, fill in schedule.fills.items()} == {
        path: set(fill.terms) for path, fill in given.fills.items()
    }


def test_what_is_worse_is_not_taken(monkeypatch: pytest.MonkeyPatch):
    model, sampler = toy()
    good = fitted(model, sampler, REUSE, terms=2)
    wrong = [5.0, 5.0, 5.0]
    monkeypatch.setattr(
        "smoothcache_core.fitting.sites.NormalEquations.solve", lambda _: np.array(wrong[:2])
    )
    good = good.changed(source=Provenance(name="planned", settings={"fill": "linear-2"}))
    again = fitted(model, sampler, good)
    assert again.fills == good.fills
    assert again.source.settings["fill"] == "linear-2"
    assert promised(again) == pytest.approx(promised(good), rel=1e-6)


def test_plain_reuse_stays_unless_terms_are_asked_for():
    model, sampler = toy()
    calls = 2 * E
    model.forget()
    measured = fitted(model, sampler, REUSE)
    assert not measured.fills
    assert model.calls == 2 * calls  # the plain runs, and the cached ones
    assert promised(measured) == pytest.approx(error_of(model, sampler, SEEDS, REUSE), rel=1e-4)


def test_fitting_costs_one_more_call_where_something_is_filled():
    model, sampler = toy()
    model.forget()
    fitted(model, sampler, REUSE, terms=2)
    runs = 4  # plain, fitting, and both candidates measured
    assert model.calls == len(SEEDS) * (runs * E + ROW.count(0))
    every = model.parts[0].calls
    computed = E + E + 2 * sum(ROW)
    assert every == len(SEEDS) * computed


def test_the_model_is_as_it_was():
    model, sampler = toy("sequential")
    model.forget()
    before = anatomy(model)
    first = fitted(model, sampler, REUSE, terms=2)
    second = fitted(model, sampler, REUSE, terms=2)
    model.forget()
    assert anatomy(model) == before
    assert first == second


def test_the_model_is_restored_after_an_exception():
    model, sampler = toy()
    before = anatomy(model)
    runs = 0

    def sample(seed: int) -> Tensor:
        nonlocal runs
        runs += 1
        fails_at = E if runs < 3 else 4  # the third run is the first that fits
        unknown = lambda x, t, label: model(x, t, label + 9 * (int(t) == fails_at))  # noqa: E731
        return ToySampler(unknown, sampler.solver)(seed)

    with pytest.raises(IndexError):
        fit(sampler.value(run=sample), REUSE, seeds=SEEDS, terms=2, progress=False)
    assert runs == 3
    model.forget()
    assert anatomy(model) == before


def test_a_cached_run_of_more_evaluations_is_refused():
    model, sampler = toy()
    runs = 0

    def sample(seed: int) -> Tensor:
        nonlocal runs
        runs += 1
        steps = E if runs < 3 else E + 1  # the third run is the first that fits
        return ToySampler(model, lambda: OneStep(steps))(seed)

    with pytest.raises(ScheduleError, match=f"but the schedule is for {E}"):
        fit(sampler.value(run=sample), REUSE, seeds=SEEDS, terms=2, progress=False)


def test_another_latent_goes_where_the_latent_was():
    reader = CallReader(Mixture(GAINS, E), MIXTURE)
    old, new = torch.zeros(2, 3), torch.ones(2, 3)
    args, kwargs = reader.with_latent((old, 5), {"label": None}, new)
    assert args[0] is new
    assert (args[1:], kwargs) == ((5,), {"label": None})
    args, kwargs = reader.with_latent((), {"timestep": 5, "hidden_states": old}, new)
    assert kwargs["hidden_states"] is new
    assert (args, kwargs["timestep"]) == ((), 5)
    args, _ = reader.with_latent((list(old), 5), {}, new)
    assert isinstance(args[0], list)
    assert torch.equal(torch.stack(args[0]), new)
