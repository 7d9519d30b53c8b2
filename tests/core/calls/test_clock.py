"""Which evaluation of which run a call is, under real solvers and everything that goes wrong."""

import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any

import diffusers
import pytest
import torch
from kit.helpers import (
    ADAPTER,
    ROW,
    STEPS,
    ContextToy,
    Toy,
    anatomy,
    assert_followed,
    noise,
    places,
    sample,
    schedule_of,
    solve,
)
from smoothcache_core import Schedule, SmoothCacheWarning, attach, cached
from smoothcache_core.errors import AttachError, ScheduleError
from smoothcache_core.patching import replaced
from smoothcache_core.schedule import Fingerprint
from torch import Tensor
from torch.utils._pytree import tree_map

N = len(STEPS)
PAIR = ("cond", "uncond")
SOLVER_STEPS = 6
SOLVERS = {
    "DDIM": 6,
    "DPMSolverMultistep": 6,
    "HeunDiscrete": 11,
    "KDPM2Discrete": 11,
    "KDPM2AncestralDiscrete": 11,
    "PNDM": 15,  # begins with Runge-Kutta steps
    "FlowMatchEulerDiscrete": 6,
    "FlowMatchHeunDiscrete": 11,
    "EDMEuler": 6,
    "DPMSolverSDE": 11,
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),  # diffusers
    pytest.mark.filterwarnings("ignore:Should have t:UserWarning"),  # torchsde
]
SHORT = "ignore:a run ended after:smoothcache_core.SmoothCacheWarning"


@functools.cache  # some take a second to make
def scheduler_of(name: str) -> Any:
    options = {}
    if name == "DPMSolverSDE":
        pytest.importorskip("torchsde")
        options = {"noise_sampler_seed": 0}
    return getattr(diffusers, f"{name}Scheduler")(**options)


@pytest.fixture(params=SOLVERS)
def solver(request: pytest.FixtureRequest) -> tuple[Any, int]:
    return scheduler_of(request.param), SOLVERS[request.param]


def row_of(evaluations: int) -> tuple[int, ...]:
    """Return a row without a period, that ends on a reuse."""
    return tuple(int(e % 5 in (0, 3) and e < evaluations - 1) for e in range(evaluations))


# ---------------------------------------------------------------------------- timesteps


class OnDevice(Tensor):
    """A tensor that says it is on an accelerator, and notes every operation on it."""

    host: Tensor
    operations: list[str]

    @staticmethod
    def __new__(cls: Any, host: Tensor, operations: list[str]) -> "OnDevice":
        made = Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=torch.device("meta"),
        )
        made.host, made.operations = host, operations
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: object, args: Any = (), kwargs: Any = None
    ) -> object:
        del types
        operations: list[str] = args[0].operations
        operations.append(func.overloadpacket.__name__)
        output = func(*tree_map(_on_host, args), **tree_map(_on_host, kwargs or {}))
        return tree_map(lambda x: cls(x, operations) if isinstance(x, Tensor) else x, output)

    def untyped_storage(self) -> Any:
        return self.host.untyped_storage()


def _on_host(item: object) -> object:
    return item.host if isinstance(item, OnDevice) else item


def on_device(values: Sequence[float] = STEPS) -> OnDevice:
    return OnDevice(torch.tensor(values), [])


def new_on_device(values: Sequence[float] = STEPS) -> list[Tensor]:
    """Return timesteps on an accelerator that share nothing: nobody can tell their order."""
    return [on_device([value])[0] for value in values]


FORMS: dict[str, Callable[[Tensor], Any]] = {
    "view": lambda t: t,
    "expanded view": lambda t: t.expand(2),
    "rows": lambda t: t.repeat(2),
    "new tensor": lambda t: t.clone(),
    "view on a device": lambda t: t,
    "expanded view on a device": lambda t: t.expand(2),
    "new tensor on a device": lambda t: t.clone(),
    "float": float,
    "numpy": lambda t: t.numpy()[()],
}


def giving(toy: Toy, form: str, scheduler: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Return `toy` as a function that is handed the scheduler's timesteps in another form."""

    def call(latent: Tensor, timestep: Tensor) -> Tensor:
        if form.endswith("device"):
            index = timestep.storage_offset() - scheduler.timesteps.storage_offset()
            timestep = OnDevice(scheduler.timesteps, [])[index]
        return toy(latent, FORMS[form](timestep))

    return call


# ---------------------------------------------------------------------------- real solvers


@pytest.mark.parametrize(
    ("form", "told"),
    [*((form, False) for form in FORMS), ("view", True), ("new tensor on a device", True)],
)
def test_back_to_back_runs_of_every_solver(solver: tuple[Any, int], form: str, told: bool):
    scheduler, evaluations = solver
    toy, schedule = Toy(), schedule_of(row_of(evaluations))
    model = giving(toy, form, scheduler)
    with cached(toy, ADAPTER, schedule, scheduler=scheduler if told else None) as stats:
        first = solve(model, scheduler, SOLVER_STEPS)
        second = solve(model, scheduler, SOLVER_STEPS)
        solve(model, scheduler, SOLVER_STEPS, seed=1)
    assert all(map(torch.equal, first, second))
    assert (stats.runs, stats.evaluations, stats.recomputed) == (3, 3 * evaluations, 0)
    assert_followed(toy, schedule, places(0, 1, 2, evaluations=evaluations))


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ("view", False),
        ("float", False),
        ("float", True),
        ("view on a device", False),
        ("new tensor on a device", False),
    ],
)
def test_two_calls_per_evaluation_of_every_solver(solver: tuple[Any, int], form: str, told: bool):
    scheduler, evaluations = solver
    toy, schedule = Toy(), schedule_of(row_of(evaluations))
    model = giving(toy, form, scheduler)
    announced = scheduler if told else None
    with cached(toy, ADAPTER, schedule, branches=PAIR, scheduler=announced) as stats:
        for _ in range(2):
            solve(model, scheduler, SOLVER_STEPS, branches=PAIR)
    assert (stats.runs, stats.recomputed) == (2, 0)
    assert_followed(toy, schedule, places(0, 1, evaluations=evaluations, branches=PAIR))


@pytest.mark.parametrize("form", ["view", "float", "view on a device"])
def test_one_evaluation_too_many_is_refused_before_it_is_computed(
    solver: tuple[Any, int], form: str
):
    scheduler, evaluations = solver
    toy, schedule = Toy(), schedule_of(row_of(evaluations - 1))
    message = (
        f"evaluation number {evaluations} .*of a run, but the schedule is for {evaluations - 1}"
    )
    with cached(toy, ADAPTER, schedule), pytest.raises(ScheduleError, match=message):
        solve(giving(toy, form, scheduler), scheduler, SOLVER_STEPS)
    assert_followed(toy, schedule, places(0, evaluations=evaluations - 1))


@pytest.mark.filterwarnings(SHORT)
def test_another_number_of_steps_is_refused_before_anything_is_computed(solver: tuple[Any, int]):
    """After a whole run, and after one that was cut."""
    scheduler, evaluations = solver
    toy, schedule = Toy(), schedule_of(row_of(evaluations))
    message = f"is set to [0-9]+ evaluations, but the schedule is for {evaluations}"
    with cached(toy, ADAPTER, schedule, scheduler=scheduler) as stats:
        for calls in (evaluations, 2):
            with pytest.raises(Cut):
                solve_again(cut_after(calls, toy), scheduler)
            with pytest.raises(ScheduleError, match=message):
                solve(toy, scheduler, SOLVER_STEPS + 1)
        solve(toy, scheduler, SOLVER_STEPS)
    assert stats.runs == 3
    calls = [*places(0, evaluations=evaluations), *places(1, evaluations=2)]
    assert_followed(toy, schedule, [*calls, *places(2, evaluations=evaluations)])


def solve_again(model: Callable[..., Tensor], scheduler: Any) -> None:
    """Sample until the model raises."""
    while True:
        solve(model, scheduler, SOLVER_STEPS)


# ---------------------------------------------------------------------------- runs cut short


class Cut(Exception):
    pass


def cut_after(calls: int, model: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return `model` as a function that raises in the sampler, not in the model, after `calls`."""
    left = [calls]

    def limited(*arguments: object) -> Tensor:
        if not left[0]:
            raise Cut
        left[0] -= 1
        return model(*arguments)

    return limited


@pytest.mark.filterwarnings(SHORT)
@pytest.mark.parametrize(("form", "branches"), [("view", ("",)), ("float", ("",)), ("float", PAIR)])
def test_a_cut_run_never_reaches_the_next(
    solver: tuple[Any, int], form: str, branches: tuple[str, ...]
):
    """Cut after every number of calls, with nothing but the timesteps to tell."""
    scheduler, evaluations = solver
    schedule = schedule_of(row_of(evaluations))
    first, second = (places(r, evaluations=evaluations, branches=branches) for r in (0, 1))
    for calls in range(len(branches), len(first)):
        toy = Toy(blocks=1)
        model = giving(toy, form, scheduler)
        with cached(toy, ADAPTER, schedule, branches=branches if len(branches) > 1 else ()):
            with pytest.raises(Cut):
                solve(cut_after(calls, model), scheduler, SOLVER_STEPS, branches=branches)
            solve(model, scheduler, SOLVER_STEPS, branches=branches)
        assert_followed(toy, schedule, [*first[:calls], *second])


@pytest.mark.filterwarnings(SHORT)
def test_a_run_cut_before_its_second_call_never_reaches_the_next():
    """The next run's first call looks like the missing one. It costs one evaluation, no more."""
    toy = Toy()
    with cached(toy, ADAPTER, schedule_of(), branches=PAIR) as stats:
        sample(toy, STEPS[:1], branches=("cond",))
        sample(toy, branches=PAIR)
    for delivered in toy.journal.delivered.values():
        assert delivered == [0, 1, 2, 3, 4, 3, 4, 7, 8, 7, 8, 11, 12]
    assert stats.recomputed == 2 * 4


@pytest.mark.filterwarnings(SHORT)
@pytest.mark.parametrize(("calls", "form"), [(2, "views"), (3, "views"), (3, "floats")])
@pytest.mark.parametrize("steps", [(7.0, 5.0, 4.0, 2.0, 1.0, 0.5), (8.0, 6.0, 4.0, 3.0, 2.0, 1.0)])
def test_a_run_that_begins_elsewhere_is_recognised(steps: Sequence[float], calls: int, form: str):
    """As image-to-image does at another strength."""
    toy = Toy()
    give = list if form == "floats" else lambda values: list(torch.tensor(values))
    with cached(toy, ADAPTER, schedule_of()):
        sample(toy, give(STEPS)[:calls])
        sample(toy, give(steps))
    assert_followed(toy, schedule_of(), [*places(0, evaluations=calls), *places(1)])


@pytest.mark.filterwarnings(SHORT)
@pytest.mark.parametrize("calls", [2, 5])
def test_a_run_over_the_same_views_is_recognised_on_a_device(calls: int):
    toy, steps = Toy(), list(on_device())
    with cached(toy, ADAPTER, schedule_of()):
        sample(toy, steps[:calls])
        sample(toy, steps)
    assert_followed(toy, schedule_of(), [*places(0, evaluations=calls), *places(1)])


@pytest.mark.filterwarnings(SHORT)
@pytest.mark.parametrize("announce", ["scheduler", "end of pipeline", "new_run"])
def test_an_announced_run_is_recognised_where_nothing_else_shows_it(announce: str):
    toy, scheduler = ContextToy(), scheduler_of("FlowMatchEulerDiscrete")
    attachment = attach(toy, ADAPTER, schedule_of(), scheduler=scheduler)
    announcements = {
        "scheduler": lambda: scheduler.set_timesteps(N),
        "end of pipeline": toy.end_of_pipeline,
        "new_run": attachment.new_run,
    }
    scheduler.set_timesteps(N)
    for calls in (2, N, 3, N):
        sample(toy, new_on_device(STEPS[:calls]))
        announcements[announce]()
    attachment.detach()
    parts = [places(run, evaluations=calls) for run, calls in enumerate((2, N, 3, N))]
    assert_followed(toy, schedule_of(), [place for part in parts for place in part])


@pytest.mark.filterwarnings(SHORT)
@pytest.mark.parametrize(
    "latent",
    [noise(1, (3, 3, 4)), noise(1, (2, 5, 4)), noise(1, dtype=torch.float64)],
    ids=["batch", "size", "dtype"],
)
@pytest.mark.parametrize("calls", [2, N])
def test_another_latent_is_another_run_where_timesteps_cannot_be_seen(latent: Tensor, calls: int):
    toy = Toy().to(latent.dtype)
    with cached(toy, ADAPTER, schedule_of()):
        toy.to(torch.float32)
        sample(toy, new_on_device(STEPS[:calls]))
        toy.to(latent.dtype)
        sample(toy, new_on_device(), latent=latent)
    assert_followed(toy, schedule_of(), [*places(0, evaluations=calls), *places(1)])


@pytest.mark.filterwarnings(SHORT)
@pytest.mark.parametrize("rest", [STEPS[:2], STEPS[:5]])
def test_a_run_that_ends_early_is_told(rest: Sequence[float]):
    attachment = attach(toy := Toy(), ADAPTER, schedule_of())
    sample(toy)
    sample(toy, rest)
    with pytest.warns(
        SmoothCacheWarning, match=f"ended after {len(rest)} evaluations, but the schedule is for 6"
    ):
        attachment.detach()


def test_a_run_that_the_pipeline_ends_early_is_told():
    attachment = attach(toy := ContextToy(), ADAPTER, schedule_of())
    sample(toy, STEPS[:4])
    toy.end_of_pipeline()
    with pytest.warns(
        SmoothCacheWarning, match="ended after 4 evaluations, but the schedule is for 6"
    ):
        attachment.detach()


# ---------------------------------------------------------------------------- inside a run


@pytest.mark.parametrize("branches", [("",), PAIR], ids=["one call", "two calls"])
@pytest.mark.parametrize("device", [False, True], ids=["host", "device"])
@pytest.mark.parametrize(
    "latent",
    [noise(1, (3, 3, 4)), noise(1, (2, 5, 4)), noise(1, dtype=torch.float64)],
    ids=["batch", "size", "dtype"],
)
def test_a_latent_that_changes_inside_a_run_is_computed_anew(
    latent: Tensor, device: bool, branches: tuple[str, ...]
):
    toy, schedule = Toy(), schedule_of((1, 0, 0, 0, 1, 0))
    steps: Sequence[Any] = list(on_device()) if device else STEPS
    with cached(toy, ADAPTER, schedule, branches=branches if len(branches) > 1 else ()) as stats:
        sample(toy, steps[:2], branches=branches)
        sample(toy.to(latent.dtype), steps[2:], latent=latent, branches=branches)
    calls = places(0, branches=branches)
    changed = 2 * len(branches)
    calls[changed:] = [("changed", *place[1:]) for place in calls[changed:]]
    assert_followed(toy, schedule, calls)
    assert stats.recomputed == 4 * len(branches)


@pytest.mark.parametrize("way", ["declared", "declared on a device", "announced"])
def test_guidance_for_a_part_of_the_run_never_mixes_the_branches(way: str):
    """The unconditional pass pauses: what it kept before the pause is too old to be reused."""
    toy, schedule = ContextToy(), schedule_of((1, 0, 0, 0, 1, 0))
    steps: Sequence[Any] = list(on_device()) if way == "declared on a device" else STEPS
    announce = way == "announced"
    with cached(toy, ADAPTER, schedule, branches=() if announce else PAIR):
        for evaluations, branches in ((slice(0, 1), PAIR), (slice(1, 3), PAIR[:1])):
            sample(toy, steps[evaluations], branches=branches, announce=announce)
        sample(toy, steps[3:], branches=PAIR, announce=announce)
    calls = [p for p in places(0, branches=PAIR) if p[1] not in (1, 2) or p[2] == "cond"]
    assert_followed(toy, schedule, calls)
    assert toy.journal.delivered["blocks.0.attn"] == [0, 1, 0, 0, 0, 5, 6, 7, 6, 7]


@pytest.mark.parametrize("device", [False, True], ids=["host", "device"])
def test_branches_may_be_handed_parts_of_one_tensor_of_timesteps(device: bool):
    toy = Toy()
    with cached(toy, ADAPTER, schedule_of(), branches=PAIR):
        for step in (*STEPS, *STEPS):
            pair = on_device((step, step)) if device else torch.tensor((step, step))
            for timestep in pair.chunk(2):
                toy(noise(), timestep)
    assert_followed(toy, schedule_of(), places(0, 1, branches=PAIR))


def test_an_announced_branch_is_forgotten_after_an_exception():
    toy = ContextToy()
    with cached(toy, ADAPTER, schedule_of(), branches=PAIR):
        with pytest.raises(Cut), toy.cache_context("uncond"):
            raise Cut
        sample(toy, branches=PAIR)
        sample(toy, branches=PAIR, announce=True)
    assert_followed(toy, schedule_of(), places(0, 1, branches=PAIR))


@pytest.mark.parametrize("steps", [(0.0, 0.2, 0.4, 0.6, 0.8, 1.0), (9.0, 9.5, 7.0, 7.5, 1.0, 1.5)])
def test_calibrated_timesteps_say_what_a_run_is(steps: tuple[float, ...]):
    """Whatever they do, upwards or up and down."""
    toy = Toy()
    schedule = schedule_of().changed(fingerprint=Fingerprint(timesteps=steps))
    with cached(toy, ADAPTER, schedule):
        sample(toy, steps)
        sample(toy, steps)
    assert_followed(toy, schedule, places(0, 1))


OTHER_STEPS = "ignore:the timesteps are not those of the calibration"


@pytest.mark.filterwarnings(OTHER_STEPS)
def test_where_a_run_leaves_the_calibrated_timesteps_nothing_that_was_kept_is_reused():
    """It may be another run that begins there; else one evaluation was computed for nothing."""
    toy = Toy()
    schedule = schedule_of().changed(fingerprint=Fingerprint(timesteps=STEPS))
    with cached(toy, ADAPTER, schedule) as stats:
        sample(toy, (9.0, 7.0, 6.0, 5.0, 4.0, 3.0))
    assert stats.runs == 1
    for delivered in toy.journal.delivered.values():
        assert delivered == [0, 0, 2, 3, 3, 5]


def spread(steps: int) -> list[float]:
    """Return timesteps of which all begin with the same, whatever their number."""
    return torch.linspace(9.0, 0.0, steps + 1)[:-1].tolist()


@pytest.mark.filterwarnings(OTHER_STEPS)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("steps", [2, 5])
def test_too_few_steps_are_told_with_their_number(steps: int, known: bool):
    fingerprint = Fingerprint(timesteps=tuple(spread(6)) if known else None)
    toy, schedule = Toy(), schedule_of().changed(fingerprint=fingerprint)
    with (
        pytest.warns(
            SmoothCacheWarning, match=f"ended after {steps} evaluations, but the schedule is for 6"
        ),
        cached(toy, ADAPTER, schedule) as stats,
    ):
        sample(toy, spread(steps))
    assert stats.runs == 1


@pytest.mark.filterwarnings(OTHER_STEPS)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("steps", [7, 12, 13])
def test_too_many_steps_are_refused(steps: int, known: bool):
    fingerprint = Fingerprint(timesteps=tuple(spread(6)) if known else None)
    toy, schedule = Toy(), schedule_of().changed(fingerprint=fingerprint)
    with (
        pytest.raises(ScheduleError, match=r"evaluation number 7 .* the schedule is for 6"),
        cached(toy, ADAPTER, schedule),
    ):
        sample(toy, spread(steps))
    assert toy.journal.call == 5


@pytest.mark.filterwarnings(SHORT)
@pytest.mark.parametrize("calls", [1, 4, N])
def test_time_may_run_upwards_from_zero(calls: int):
    toy, steps = Toy(), [1.0 - step / STEPS[0] for step in STEPS]
    with cached(toy, ADAPTER, schedule_of()):
        sample(toy, steps[:calls])
        sample(toy, steps)
        sample(toy, steps)
    assert_followed(toy, schedule_of(), [*places(0, evaluations=calls), *places(1, 2)])


# ---------------------------------------------------------------------------- exceptions


@pytest.mark.parametrize("device", [False, True], ids=["host", "device"])
@pytest.mark.parametrize("branches", [("",), PAIR], ids=["one call", "two calls"])
def test_a_run_after_an_exception_in_the_model_is_new(device: bool, branches: tuple[str, ...]):
    """At every call, and nobody warns: the exception said it all."""
    for failing in range(N * len(branches)):
        toy = Toy(blocks=1)

        def fail(*_: object, toy: Toy = toy, failing: int = failing) -> None:
            if toy.journal.call == failing:
                raise Cut

        toy.blocks[0].get_submodule("ff").register_forward_pre_hook(fail)
        declared = branches if len(branches) > 1 else ()
        with cached(toy, ADAPTER, schedule_of(attn=ROW), branches=declared) as stats:
            with pytest.raises(Cut):
                sample(toy, new_on_device() if device else STEPS, branches=branches)
            assert stats.bytes_held == 0
            sample(toy, new_on_device() if device else STEPS, branches=branches)
        calls = [*places(0, branches=branches)[: failing + 1], *places(1, branches=branches)]
        toy.journal.delivered["blocks.0.ff"].insert(failing, failing)
        toy.journal.computed["blocks.0.ff"].insert(failing, failing)
        assert_followed(toy, schedule_of(attn=ROW), calls)


def test_a_run_after_one_too_long_is_new():
    toy = Toy()
    with cached(toy, ADAPTER, schedule_of()):
        with pytest.raises(ScheduleError, match="evaluation number 7"):
            sample(toy, (*STEPS, 0.5))
        sample(toy)
    assert_followed(toy, schedule_of(), places(0, 1))


def test_forgotten_branches_are_named_in_the_error():
    with (
        cached(toy := Toy(), ADAPTER, schedule_of()),
        pytest.raises(ScheduleError, match=r"branches=.* if guidance makes two calls"),
        pytest.warns(SmoothCacheWarning, match="ended after 1"),
    ):
        sample(toy, branches=PAIR)


# ---------------------------------------------------------------------------- several at once


def test_two_models_take_turns():
    toys, schedules = (Toy(), Toy(blocks=1)), (schedule_of(), schedule_of((1, 1, 0, 0, 0, 1)))
    with cached(toys[0], ADAPTER, schedules[0]), cached(toys[1], ADAPTER, schedules[1]):
        for step in (*STEPS, *STEPS):
            for toy in toys:
                toy(noise(), step)
    for toy, schedule in zip(toys, schedules, strict=True):
        assert_followed(toy, schedule, places(0, 1))


def test_two_threads_have_a_model_each():
    toys, runs = (Toy().requires_grad_(False), Toy().requires_grad_(False)), 20

    def serve(toy: Toy) -> None:
        with cached(toy, ADAPTER, schedule_of()):
            for seed in range(runs):
                sample(toy, latent=noise(seed))

    threads = [threading.Thread(target=serve, args=(toy,)) for toy in toys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for toy in toys:
        assert_followed(toy, schedule_of(), places(*range(runs)))


@pytest.mark.parametrize("same_thread", [True, False])
def test_a_call_while_one_is_under_way_is_refused_and_does_it_no_harm(same_thread: bool):
    toy, refused = Toy(), []

    def intrude() -> None:
        with pytest.raises(AttachError, match="called while a call was under way"):
            toy(noise(), STEPS[0])
        refused.append(toy.journal.call)

    def interfere(*_: object) -> None:
        if same_thread:
            intrude()
        else:
            thread = threading.Thread(target=intrude)
            thread.start()
            thread.join()

    toy.blocks[1].register_forward_pre_hook(interfere)
    with cached(toy, ADAPTER, schedule_of()):
        sample(toy)
    assert refused == list(range(N))
    assert_followed(toy, schedule_of(), places(0))


# ---------------------------------------------------------------------------- no waiting

LAZY = {"amax", "alias", "clone", "detach", "expand", "select", "unbind", "view"}


@pytest.mark.parametrize("branches", [("",), PAIR], ids=["one call", "two calls"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_a_timestep_on_a_device_is_not_waited_for(calibrated: bool, branches: tuple[str, ...]):
    """The timesteps are read once, after the last evaluation, and only to be compared."""
    fingerprint = Fingerprint(timesteps=STEPS if calibrated else None)
    schedule = schedule_of().changed(fingerprint=fingerprint)
    toy, steps = Toy(), on_device()
    with cached(toy, ADAPTER, schedule, branches=branches if len(branches) > 1 else ()):
        sample(toy, [step.expand(2) for step in steps][:-1], branches=branches)
        assert set(steps.operations) <= LAZY
        toy(noise(), steps[-1].expand(2))
        reads = steps.operations.count("_local_scalar_dense")
        assert set(steps.operations) <= LAZY | {"_local_scalar_dense"}
        for _ in branches[1:]:
            toy(noise(), steps[-1].expand(2))
    assert steps.operations.count("_local_scalar_dense") == reads == (N if calibrated else 0)
    assert_followed(toy, schedule, places(0, branches=branches))


def test_other_timesteps_on_a_device_are_told_after_the_run():
    fingerprint = Fingerprint(timesteps=(*STEPS[:-1], 1.5))
    schedule = schedule_of().changed(fingerprint=fingerprint)
    attachment = attach(toy := Toy(), ADAPTER, schedule)
    steps = list(on_device())
    sample(toy, steps[:-1])
    with pytest.warns(SmoothCacheWarning, match="evaluation 5: 1, calibrated 1.5"):
        sample(toy, steps[-1:])
    attachment.detach()


# ---------------------------------------------------------------------------- schedulers


def test_a_scheduler_that_begins_later_has_fewer_evaluations():
    toy, schedule = Toy(), schedule_of(ROW[:4])
    scheduler = scheduler_of("DPMSolverMultistep")
    with cached(toy, ADAPTER, schedule, scheduler=scheduler):
        for _ in range(2):
            scheduler.set_timesteps(6)
            scheduler.set_begin_index(2)
            sample(toy, list(scheduler.timesteps[2:]))
    assert_followed(toy, schedule, places(0, 1, evaluations=4))


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_scheduler_is_left_as_it_was(interrupted: bool):
    scheduler, toy = scheduler_of("FlowMatchEulerDiscrete"), Toy()
    solve(toy, scheduler, N)
    before, signature = set(vars(scheduler)), inspect.signature(scheduler.set_timesteps)
    attachment = attach(toy, ADAPTER, schedule_of(), scheduler=scheduler)
    assert inspect.signature(scheduler.set_timesteps) == signature
    solve(toy, scheduler, N)
    if interrupted:
        with pytest.raises(Cut):
            solve(cut_after(2, toy), scheduler, N)
    attachment.detach(quietly=interrupted)
    assert set(vars(scheduler)) == before


def test_a_cache_waits_for_what_replaced_an_announcing_method():
    scheduler, toy = scheduler_of("DDIM"), Toy()
    before = set(vars(scheduler)), anatomy(toy)
    attachment = attach(toy, ADAPTER, schedule_of(), scheduler=scheduler)
    cached_toy = anatomy(toy)
    with replaced(scheduler, "set_timesteps", functools.partial(scheduler.set_timesteps)):
        with pytest.raises(AttachError, match="something replaced `set_timesteps`"):
            attachment.detach(quietly=True)
        assert anatomy(toy) == cached_toy
    attachment.detach(quietly=True)
    assert (set(vars(scheduler)), anatomy(toy)) == before


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_models_that_share_a_scheduler_may_be_detached_in_any_order(order: tuple[int, int]):
    scheduler = scheduler_of("DDIM")
    toys = Toy(), Toy()
    before = set(vars(scheduler)), [anatomy(toy) for toy in toys]
    attachments = [attach(toy, ADAPTER, schedule_of(), scheduler=scheduler) for toy in toys]
    attachments[order[0]].detach(quietly=True)
    solve(toys[order[1]], scheduler, N)
    solve(toys[order[1]], scheduler, N)
    attachments[order[1]].detach()
    assert_followed(toys[order[1]], schedule_of(), places(0, 1))
    assert (set(vars(scheduler)), [anatomy(toy) for toy in toys]) == before


def test_a_schedule_may_be_longer_than_what_other_models_see():
    """Two denoisers of one pipeline each count their own evaluations."""
    toys = Toy(), Toy()
    schedule: Schedule = schedule_of(ROW[:3])
    with cached(toys[0], ADAPTER, schedule), cached(toys[1], ADAPTER, schedule):
        for _ in range(2):
            sample(toys[0], STEPS[:3])
            sample(toys[1], STEPS[3:])
    for toy in toys:
        assert_followed(toy, schedule, places(0, 1, evaluations=3))
