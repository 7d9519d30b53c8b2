"""How many evaluations a run has by what its scheduler says, and by what it really is."""

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import diffusers
import pytest
import torch
from kit.helpers import ADAPTER, Toy, noise, sample, schedule_of, solve
from smoothcache_core import Schedule, SmoothCacheWarning, attach, cached
from smoothcache_core.errors import AttachError, ScheduleError
from smoothcache_core.schedule import Fingerprint
from torch import Tensor

DDIMScheduler: Any = diffusers.DDIMScheduler  # pyright: ignore[reportPrivateImportUsage]

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # diffusers
SOLVERS = (
    "DDIM",
    "FlowMatchEulerDiscrete",
    "HeunDiscrete",  # has every timestep twice, but for the first
    "PNDM",
)
FORMS: dict[str, Callable[[Tensor], Any]] = {
    "view": lambda t: t[None].expand(2),
    "new tensor": lambda t: t.clone(),
    "number": float,
    "share": lambda t: t / 1000,
    "share that is done": lambda t: 1 - float(t) / 1000,
}


def row_of(evaluations: int) -> list[int]:
    return [int(e % 2 == 0) for e in range(evaluations)]


def planned_for(timesteps: Sequence[Any]) -> Schedule:
    """Return a schedule that remembers the timesteps that it was planned for."""
    known = tuple(float(torch.as_tensor(t).reshape(-1)[0]) for t in timesteps)
    schedule = schedule_of(row_of(len(known)))
    return schedule.changed(fingerprint=Fingerprint(timesteps=known))


def loop(toy: Toy, timesteps: Sequence[Any]) -> None:
    for timestep in timesteps:
        toy(noise(), timestep)


@pytest.mark.parametrize("remembers", [True, False])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SOLVERS)
def test_a_run_of_the_last_timesteps_has_as_many_evaluations(name: str, form: str, remembers: bool):
    """As image-to-image makes it, where the scheduler is not told where it begins."""
    scheduler, toy = getattr(diffusers, f"{name}Scheduler")(), Toy()
    scheduler.set_timesteps(12)
    last = len(scheduler.timesteps) - 5
    schedule = planned_for([FORMS[form](t) for t in scheduler.timesteps[last:]])
    if not remembers:
        if form == "share that is done":
            pytest.skip("that time runs upwards is not known, where it does not begin at 0")
        schedule = schedule_of(row_of(5))
    with cached(toy, ADAPTER, schedule, scheduler=scheduler) as stats:
        for _ in range(2):
            scheduler.set_timesteps(12)
            loop(toy, [FORMS[form](t) for t in scheduler.timesteps[last:]])
    assert (stats.runs, stats.evaluations) == (2, 10)
    assert stats.reused["blocks.0.ff"] == 4


@pytest.mark.filterwarnings("ignore:the cached model was never called")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("begin", [0, 3, 8])
def test_another_number_of_last_timesteps_is_refused_before_it_is_computed(form: str, begin: int):
    scheduler, toy = DDIMScheduler(), Toy()
    scheduler.set_timesteps(12)
    schedule = planned_for([FORMS[form](t) for t in scheduler.timesteps[5:]])
    message = (
        f"DDIMScheduler is set to 12 evaluations.*the schedule is for 7; .*plan for {12 - begin}"
    )
    with cached(toy, ADAPTER, schedule, scheduler=scheduler):
        scheduler.set_timesteps(12)
        with pytest.raises(ScheduleError, match=message):
            loop(toy, [FORMS[form](t) for t in scheduler.timesteps[begin:]])
    assert toy.journal.call == -1


@pytest.mark.parametrize("form", FORMS)
def test_a_run_that_ends_early_by_plan_is_served(form: str):
    """As where another denoiser makes the last steps; a whole run is refused where it goes on."""
    scheduler, toy = DDIMScheduler(), Toy()
    scheduler.set_timesteps(12)
    schedule = planned_for([FORMS[form](t) for t in scheduler.timesteps[:7]])
    with cached(toy, ADAPTER, schedule, scheduler=scheduler):
        scheduler.set_timesteps(12)
        loop(toy, [FORMS[form](t) for t in scheduler.timesteps[:7]])
        scheduler.set_timesteps(12)
        with pytest.raises(ScheduleError, match="evaluation number 8"):
            loop(toy, [FORMS[form](t) for t in scheduler.timesteps])
    assert toy.journal.call == 13


def test_a_run_of_two_evaluations_per_timestep_is_served_as_it_was_planned():
    scheduler, toy = DDIMScheduler(), Toy()
    scheduler.set_timesteps(4)
    twice = [float(t) for t in scheduler.timesteps for _ in range(2)][:-1]
    evaluations = [twice[0], *twice[2:], 0.5]  # goes on to the next timestep, and to the end
    schedule = planned_for(evaluations[:-1])
    assert schedule.evaluations > 4
    with cached(toy, ADAPTER, schedule, scheduler=scheduler) as stats:
        scheduler.set_timesteps(4)
        loop(toy, evaluations[:-1])
    assert stats.runs >= 1


COPIES: dict[str, Callable[[Any], Any]] = {
    "deep copy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda scheduler: pickle.loads(pickle.dumps(scheduler)),
    "made of the configuration": lambda scheduler: type(scheduler).from_config(scheduler.config),
}


@pytest.mark.parametrize("before", [None, 3, 9])
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_the_scheduler_may_run_in_its_place(how: str, before: int | None):
    """As in a server that copies it for every request, whatever the original was set to."""
    scheduler, toy = DDIMScheduler(), Toy()
    if before:
        scheduler.set_timesteps(before)
    attachment = attach(toy, ADAPTER, schedule_of(row_of(6)), scheduler=scheduler)
    for _ in range(2):
        request = COPIES[how](scheduler)
        solve(toy, request, 6)
        assert len(scheduler.timesteps) == (before or 1000)
    attachment.detach()
    assert (attachment.stats.runs, attachment.stats.evaluations) == (2, 12)


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_of_the_schedulers_own_class_and_is_not_listened_to(how: str):
    scheduler, toy = DDIMScheduler(), Toy()
    attachment = attach(toy, ADAPTER, schedule_of(row_of(6)), scheduler=scheduler)
    copied = COPIES[how](scheduler)
    assert type(copied) is DDIMScheduler or how == "made of the configuration"
    sample(toy, (9.0, 7.0, 5.0))
    copied.set_timesteps(6)
    sample(toy, (4.0, 2.0, 1.0))
    attachment.detach()
    assert attachment.stats.runs == 1
    assert type(scheduler) is DDIMScheduler


def test_a_copy_set_to_another_number_of_steps_is_refused_where_that_shows():
    scheduler, toy = DDIMScheduler(), Toy()
    with (
        pytest.raises(ScheduleError, match="evaluation number 7"),
        cached(toy, ADAPTER, schedule_of(row_of(6)), scheduler=scheduler),
    ):
        solve(toy, copy.deepcopy(scheduler), 8)
    with (
        pytest.warns(SmoothCacheWarning, match="ended after 4"),
        cached(toy, ADAPTER, schedule_of(row_of(6)), scheduler=scheduler),
    ):
        solve(toy, copy.deepcopy(scheduler), 4)


def test_a_scheduler_that_was_set_before_the_cache_was_attached_is_refused_if_it_runs():
    scheduler, toy = DDIMScheduler(), Toy()
    scheduler.set_timesteps(8)
    with (
        pytest.raises(ScheduleError, match="is set to 8 evaluations"),
        cached(toy, ADAPTER, schedule_of(row_of(6)), scheduler=scheduler),
    ):
        loop(toy, list(scheduler.timesteps))
    assert toy.journal.call == -1


class Plain:
    """A scheduler of somebody else: a list of timesteps, and a method on the instance."""

    def __init__(self) -> None:
        self.timesteps: list[float] = []
        self.set_timesteps = self._set

    def _set(self, steps: int) -> None:
        self.timesteps = [float(step) for step in range(steps, 0, -1)]


def test_a_scheduler_may_have_its_methods_on_the_instance():
    scheduler, toy = Plain(), Toy()
    before = dict(vars(scheduler))
    with cached(toy, ADAPTER, schedule_of(row_of(6)), scheduler=scheduler) as stats:
        for _ in range(2):
            scheduler.set_timesteps(6)
            loop(toy, scheduler.timesteps)
        scheduler.set_timesteps(7)
        with pytest.raises(ScheduleError, match="Plain is set to 7 evaluations"):
            loop(toy, scheduler.timesteps)
    assert stats.runs == 2
    assert vars(scheduler).keys() == before.keys()
    assert scheduler.set_timesteps == before["set_timesteps"]


class Slotted:
    """A scheduler whose class cannot be changed."""

    __slots__ = ("timesteps",)

    def set_timesteps(self, steps: int) -> None:
        self.timesteps = list(range(steps))


def test_a_scheduler_that_cannot_be_listened_to_is_refused_and_the_model_restored():
    toy = Toy()
    with pytest.raises(AttachError, match="Slotted"):
        attach(toy, ADAPTER, schedule_of(row_of(6)), scheduler=Slotted())
    attach(toy, ADAPTER, schedule_of(row_of(6))).detach(quietly=True)
