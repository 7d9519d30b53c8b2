"""A cache on a live model: runs that take turns, schedules in turn, and what is refused."""

import copy
import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from kit.helpers import ADAPTER, ROW, STEPS, ContextToy, Toy, anatomy, noise, sample, schedule_of
from kit.planning import MIXTURE, Mixture, Noisy, OneStep, ToySampler
from smoothcache_core import (
    Schedule,
    SmoothCacheWarning,
    attach,
    cached,
    calibrate,
    fit,
    plan,
)
from smoothcache_core.errors import AttachError, ScheduleError
from smoothcache_core.runtime import attachment_of
from smoothcache_core.schedule import Fill
from torch import Tensor, nn

N = len(STEPS)
WHOLE = Schedule(evaluations=N, rows={"denoiser": ROW})
LINE = Schedule(
    evaluations=9,
    rows={"denoiser": (1, 1, 0) * 3},
    fills={"denoiser": Fill(terms={2: (2.0, -1.0)})},
)
TIMES = tuple(float(9 - step) for step in range(9))


class Request:
    """One request of a server: its latent, advanced evaluation by evaluation."""

    def __init__(self, model: nn.Module, seed: int, timesteps: Sequence[float] = STEPS) -> None:
        self.model, self.timesteps = model, iter(timesteps)
        self.latent = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed))

    def step(self) -> bool:
        """Make one evaluation; return whether there was one to make."""
        timestep = next(self.timesteps, None)
        if timestep is not None:
            self.latent = self.latent - self.model(self.latent, timestep) / 4
        return timestep is not None

    def finished(self) -> Tensor:
        """Return the final latent."""
        while self.step():
            pass
        return self.latent


def alone(schedule: Schedule, seed: int, timesteps: Sequence[float]) -> Tensor:
    model = Toy()
    with cached(model, ADAPTER, schedule):
        return Request(model, seed, timesteps).finished()


# ---------------------------------------------------------------------------- runs in turn


@pytest.mark.parametrize("first", [schedule_of(), WHOLE], ids=["sites", "whole"])
def test_requests_in_turn_are_as_alone_each_by_its_own_schedule(first: Schedule):
    model = Toy()
    before = anatomy(model)
    attachment = attach(model, ADAPTER, first)
    one, other = Request(model, 1), Request(model, 2, TIMES)
    for _ in range(9):
        with attachment.run("one"):
            one.step()
        with attachment.run("other", schedule=LINE):
            other.step()
    assert attachment.under_way == ()
    assert torch.equal(one.latent, alone(first, 1, STEPS))
    assert torch.equal(other.latent, alone(LINE, 2, TIMES))
    assert attachment.stats.runs == 2
    assert attachment.stats.bytes_held == 0
    attachment.detach()
    assert anatomy(model) == before


def test_a_third_request_may_come_while_two_are_served_and_one_may_be_dropped():
    model = Toy()
    attachment = attach(model, ADAPTER, schedule_of())
    requests = {key: Request(model, key) for key in range(3)}
    for turn in range(N + 2):
        for key, request in requests.items():
            if turn >= key and not (key == 1 and turn > 2):
                with attachment.run(key):
                    request.step()
    assert attachment.under_way == (1,)
    assert attachment.stats.bytes_held > 0
    attachment.forget(1)
    assert attachment.under_way == ()
    assert attachment.stats.bytes_held == 0
    for key in (0, 2):
        assert torch.equal(requests[key].latent, alone(schedule_of(), key, STEPS))
    attachment.detach()


def test_passes_of_their_own_are_told_apart_in_runs_that_take_turns():
    model = ContextToy()
    attachment = attach(model, ADAPTER, schedule_of())
    for timestep in STEPS[:2]:
        for key in ("a", "b"):
            for number, branch in enumerate(("cond", "uncond")):
                with attachment.run(key), model.cache_context(branch):
                    model(noise(number), timestep)
    assert attachment.under_way == ("a", "b")
    assert attachment.stats.runs == 2
    assert attachment.stats.evaluations == 8
    attachment.detach(quietly=True)


def test_a_key_serves_its_next_run_when_the_first_is_at_its_end():
    model = Toy()
    attachment = attach(model, ADAPTER, schedule_of())
    for seed in (1, 2):
        with attachment.run("slot"):
            latent = Request(model, seed).finished()
        assert torch.equal(latent, alone(schedule_of(), seed, STEPS))
    attachment.detach()


def test_a_run_under_way_cannot_change_its_schedule():
    model = Toy()
    attachment = attach(model, ADAPTER, schedule_of())
    with attachment.run("a"):
        Request(model, 0).step()
    with (
        pytest.raises(ScheduleError, match="run 'a' is in progress with another schedule"),
        attachment.run("a", schedule=LINE),
    ):
        pass
    attachment.detach(quietly=True)


def test_a_run_that_fails_leaves_the_others_as_they_are():
    class Broken(Toy):
        def forward(self, hidden_states: Tensor, timestep: Any, label: object = None) -> Tensor:
            if label == "bad":
                raise RuntimeError("out of luck")
            return super().forward(hidden_states, timestep)

    model = Broken()
    attachment = attach(model, ADAPTER, schedule_of())
    request = Request(model, 1)
    for turn in range(N):
        with attachment.run("good"):
            request.step()
        if turn == 2:
            with pytest.raises(RuntimeError, match="out of luck"), attachment.run("bad"):
                model(noise(), 9.0, "bad")
    assert torch.equal(request.latent, alone(schedule_of(), 1, STEPS))
    attachment.detach(quietly=True)


@pytest.mark.parametrize("schedule", [schedule_of(), WHOLE], ids=["sites", "whole"])
@pytest.mark.parametrize("late", [1, 3])
def test_requests_that_take_turns_without_keys_are_refused_at_the_first_mixed_call(
    schedule: Schedule, late: int
):
    model = Toy()
    one, other = Request(model, 1), Request(model, 2)
    attachment = attach(model, ADAPTER, schedule)
    for _ in range(late):
        one.step()
    with pytest.warns(SmoothCacheWarning, match="a run ended after"):
        other.step()
    with pytest.raises(AttachError, match=r"take turns .* attachment.run\(key\)"):
        one.step()
    attachment.detach(quietly=True)


def test_a_run_cut_off_is_no_run_that_takes_turns():
    model = Toy()
    attachment, cut = attach(model, ADAPTER, schedule_of()), Request(model, 1)
    cut.step()
    cut.step()
    with pytest.warns(SmoothCacheWarning, match="a run ended after 2"):
        latent = Request(model, 2).finished()
    attachment.detach()
    assert torch.equal(latent, alone(schedule_of(), 2, STEPS))


# ---------------------------------------------------------------------------- schedules in turn


def test_schedules_in_turn_are_as_attached_one_by_one():
    model = Toy()
    before = anatomy(model)
    attachment = attach(model, ADAPTER, schedule_of())
    kinds = Schedule(evaluations=9, rows={"ff": (1, 0, 0) * 3})
    for schedule, times in ((schedule_of(), STEPS), (LINE, TIMES), (kinds, TIMES), (WHOLE, STEPS)):
        attachment.use(schedule)
        assert attachment.schedule is schedule
        latent = Request(model, 4, times).finished()
        assert torch.equal(latent, alone(schedule, 4, times))
    attachment.detach()
    assert anatomy(model) == before


def test_a_schedule_that_does_not_fit_leaves_the_one_before_in_use():
    model = Toy()
    attachment = attach(model, ADAPTER, schedule_of())
    with pytest.raises(ScheduleError, match="names"):
        attachment.use(Schedule(evaluations=2, rows={"nothing": (1, 0)}))
    assert torch.equal(Request(model, 1).finished(), alone(schedule_of(), 1, STEPS))
    attachment.detach()
    with pytest.raises(AttachError, match="detached"):
        attachment.use(WHOLE)


# ---------------------------------------------------------------------------- handles and copies


def test_a_lost_handle_is_found_by_the_model():
    model = Toy()
    before = anatomy(model)
    attach(model, ADAPTER, schedule_of())
    with pytest.raises(AttachError, match=r"attachment_of\(model\).detach\(\)"):
        attach(model, ADAPTER, schedule_of())
    found = attachment_of(model)
    assert found is not None
    found.detach(quietly=True)
    assert attachment_of(model) is None
    assert anatomy(model) == before


def saved(model: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": saved,
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("make", [Toy, ContextToy])
@pytest.mark.parametrize("schedule", [schedule_of(), WHOLE], ids=["sites", "whole"])
def test_a_copy_of_a_model_with_a_cache_is_a_model_without(
    way: str, make: type[Toy], schedule: Schedule
):
    model = make()
    plain = shape_of(COPIES[way](model))
    with cached(model, ADAPTER, schedule) as stats:
        model(noise(), STEPS[0])
        twin = COPIES[way](model)
        zeros = make()
        for parameter in (*twin.parameters(), *zeros.parameters()):
            parameter.zero_()
        seen = stats.evaluations
        computed = slice(None, -1)  # the last channel is a signature
        expected = zeros(noise(), STEPS[0])[..., computed]
        assert torch.equal(twin(noise(), STEPS[0])[..., computed], expected)
        assert stats.evaluations == seen
        assert shape_of(twin) == plain
        with cached(twin, ADAPTER, schedule):
            sample(twin)
        for step in STEPS[1:]:
            model(noise(), step)
    assert shape_of(model) == plain


def shape_of(model: nn.Module) -> dict[str, tuple[type, list[str]]]:
    """Return the classes of all modules, and the names of what they have of their own."""
    return {name: (type(each), sorted(vars(each))) for name, each in model.named_modules()}


def test_a_copy_of_a_part_of_a_model_with_a_cache_has_none_either():
    model = Toy()
    plain = shape_of(model.blocks[0])
    with cached(model, ADAPTER, schedule_of()):
        assert shape_of(copy.deepcopy(model.blocks[0])) == plain
        sample(model)


# ---------------------------------------------------------------------------- gradients


def through(model: nn.Module, steps: int = 4) -> Tensor:
    """Return the gradient of a loss of the final latent by the first latent."""
    start = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    latent = start
    for step in range(steps):
        latent = latent - model(latent, float(steps - step)) / 4
    return torch.autograd.grad(latent.square().sum(), start)[0]


@pytest.mark.parametrize("key", ["attn", "denoiser"])
def test_a_filled_evaluation_is_refused_while_gradients_are_on(key: str):
    model = Toy()
    schedule = Schedule(evaluations=4, rows={key: (1, 1, 0, 1)})
    with (
        torch.enable_grad(),
        pytest.raises(AttachError, match=r"gradients are enabled.*no_grad"),
        cached(model, ADAPTER, schedule),
    ):
        through(model)


def test_weights_that_want_gradients_count_as_well():
    model = Toy()
    schedule = Schedule(evaluations=2, rows={"ff": (1, 0)})
    attachment = attach(model, ADAPTER, schedule)
    with torch.enable_grad():
        model(noise(), 2.0)
        with pytest.raises(AttachError, match="gradients are enabled"):
            model(noise(), 1.0)
    attachment.detach(quietly=True)


def test_gradients_that_nobody_wants_refuse_nothing():
    model = Toy().requires_grad_(False)
    with torch.enable_grad(), cached(model, ADAPTER, schedule_of()) as stats:
        sample(model)
    assert stats.reuse_fraction > 0.0


@pytest.mark.parametrize("key", ["attn", "denoiser"])
def test_gradients_flow_through_what_is_kept_where_that_is_asked_for(key: str):
    class Kept(nn.Module):
        """What the cache makes of four evaluations, written out: the third is as the second."""

        def __init__(self, toy: Toy) -> None:
            super().__init__()
            self.toy, self.output = toy, None

        def forward(self, latent: Tensor, timestep: float) -> Tensor:
            if timestep != 2.0:
                self.output = self.toy(latent, timestep)
            assert self.output is not None
            return self.output

    model = Toy().double()
    schedule = Schedule(evaluations=4, rows={key: (1, 1, 0, 1)})
    torch.set_default_dtype(torch.float64)
    try:
        with torch.enable_grad(), cached(model, ADAPTER, schedule, differentiable=True):
            found = through(model)
        with torch.enable_grad():
            plain, kept = through(model), through(Kept(model))
    finally:
        torch.set_default_dtype(torch.float32)
    if key == "denoiser":
        torch.testing.assert_close(found, kept)
    assert not torch.allclose(found, plain)
    assert torch.cosine_similarity(found.flatten(), plain.flatten(), 0) > 0.5


# ---------------------------------------------------------------------------- what differs inside


def test_a_text_of_another_length_in_a_run_is_computed_anew():
    class Joint(nn.Module):
        """A denoiser whose sites see the text as well."""

        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.ModuleDict({"attn": nn.Identity()})])

        def forward(self, hidden_states: Tensor, timestep: float, text: Tensor) -> Tensor:
            del timestep
            both = torch.cat((hidden_states, text), dim=1)
            return (both + self.blocks[0]["attn"](both))[:, : hidden_states.shape[1]]  # pyright: ignore[reportIndexIssue]

    model = Joint()
    schedule = Schedule(evaluations=6, rows={"attn": (1, 0) * 3})
    with cached(model, ADAPTER_OF_ATTN, schedule) as stats:
        for step in range(6):
            model(noise(), 6.0 - step, torch.ones(2, 5 if step < 3 else 9, 4))
    assert stats.recomputed == 1
    assert sum(stats.reused.values()) == 2


ADAPTER_OF_ATTN = type(ADAPTER)(name="joint", patterns=ADAPTER.patterns[:1])


def test_a_flag_that_changes_what_is_computed_inside_ends_reuse():
    class Modes(Toy):
        def forward(self, hidden_states: Tensor, timestep: Any, mode: str = "") -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            return super().forward(hidden_states, timestep)

    model = Modes()
    schedule = Schedule(evaluations=4, rows={"attn": (1, 0, 0, 0)})
    with cached(model, ADAPTER, schedule) as stats:
        for step, mode in enumerate(("extract", "cached", "cached", "cached")):
            model(noise(), 4.0 - step, mode=mode)
    assert stats.recomputed == 2  # each of the two sites once, when the mode changed
    assert stats.reused == {"blocks.0.attn": 2, "blocks.1.attn": 2}


def test_nothing_is_held_when_the_pipeline_says_it_is_over():
    model = ContextToy()
    attachment = attach(model, ADAPTER, schedule_of())
    sample(model, STEPS[:2])
    assert attachment.stats.bytes_held > 0
    model.end_of_pipeline()
    assert attachment.stats.bytes_held == 0
    attachment.detach(quietly=True)


def test_a_fill_that_makes_infinity_is_told():
    model = Toy().half()
    huge = Fill(terms={2: (6e4, 6e4)})
    schedule = Schedule(evaluations=3, rows={"denoiser": (1, 1, 0)}, fills={"denoiser": huge})
    with (
        pytest.warns(
            SmoothCacheWarning,
            match="filled output at evaluation 2 turned a finite latent into NaN",
        ),
        cached(model, ADAPTER, schedule),
    ):
        sample(model, STEPS[:3], latent=noise(dtype=torch.float16) * 64)


def test_infinity_that_the_model_makes_is_not_the_fills():
    class Overflowing(Toy):
        def forward(self, hidden_states: Tensor, timestep: Any, label: object = None) -> Tensor:
            return super().forward(hidden_states, timestep, label) * float("inf")

    model = Overflowing()
    with cached(model, ADAPTER, schedule_of()):
        sample(model)


# ---------------------------------------------------------------------------- in-place changes


@pytest.mark.parametrize("row", [(1, 0, 0, 0, 1, 0), (1, 0, 1, 0, 0, 1)])
def test_a_hook_that_changes_an_output_in_place_acts_once(row: Sequence[int]):
    def run(hook: Callable[[nn.Module, Any, Tensor], Tensor]) -> Tensor:
        model = Toy()
        handle = model.blocks[0].get_submodule("ff").register_forward_hook(hook)
        with cached(model, ADAPTER, schedule_of(ff=row)):
            outputs = sample(model)
        handle.remove()
        return outputs[-1]

    gate = torch.tensor([1.5, 1.5, 1.5, 1.0])
    in_place = run(lambda module, inputs, output: output.mul_(gate))
    assert torch.equal(in_place, run(lambda module, inputs, output: output * gate))


class InPlace(nn.Module):
    """A denoiser whose block changes the output of its site in place."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.blocks = nn.ModuleList([nn.ModuleDict({"attn": nn.Linear(4, 4, bias=False)})])
        nn.init.eye_(self.blocks[0]["attn"].weight)  # pyright: ignore[reportIndexIssue]

    def forward(self, hidden_states: Tensor, timestep: float) -> Tensor:
        output = self.blocks[0]["attn"](hidden_states)  # pyright: ignore[reportIndexIssue]
        if self.in_place:
            output.mul_(timestep)
        else:
            output = output * timestep
        return output


def test_a_block_that_changes_an_output_in_place_is_told_and_copied_from():
    schedule = Schedule(evaluations=6, rows={"attn": (1, 0, 0, 1, 0, 0)})
    model, twin = InPlace(in_place=True), InPlace(in_place=False)
    with cached(model, ADAPTER_OF_ATTN, schedule) as stats:
        with pytest.warns(SmoothCacheWarning, match="the output of 'blocks.0.attn' in place"):
            first = [model(noise(), 6.0 - step) for step in range(6)]
        again = [model(noise(), 6.0 - step) for step in range(6)]
    assert stats.recomputed == 1  # what was kept of the first evaluation was of no use
    with cached(twin, ADAPTER_OF_ATTN, schedule):
        expected = [twin(noise(), 6.0 - step) for step in range(6)]
    assert all(map(torch.equal, again, expected))
    assert all(map(torch.equal, first[1:], expected[1:]))


def test_calibration_measures_what_a_site_gave_not_what_its_block_made_of_it():
    def curves(*, in_place: bool) -> Any:
        model = InPlace(in_place=in_place)

        def run(seed: int) -> Tensor:
            latent = noise(seed)
            for step in range(4):
                latent = latent - model(latent, 4.0 - step) / 16
            return latent

        sampler = ToySampler(model, lambda: None).value(ADAPTER_OF_ATTN, run=run, branches=())
        calibration = calibrate(sampler, seeds=[0], max_lag=2, sensitivity=0, progress=False)
        return calibration.curves(per="site")["blocks.0.attn"]

    torch.testing.assert_close(curves(in_place=True), curves(in_place=False), equal_nan=True)


# ---------------------------------------------------------------------------- the solver


def calibrated(sampler: ToySampler, **changes: Any) -> Schedule:
    calibration = calibrate(sampler.value(**changes), seeds=range(3), sensitivity=1, progress=False)
    return plan(calibration, compute=0.6, target="denoiser")


class Halved(OneStep):
    """A solver of steps of another size."""

    def __init__(self, steps: int) -> None:
        super().__init__(steps)
        self.sizes = [size / 2 for size in self.sizes]


class Momentum(OneStep):
    """A solver whose first step is that of `OneStep`; later ones use the output before."""

    def __init__(self, steps: int) -> None:
        super().__init__(steps)
        self.before: Tensor | None = None

    def step(self, output: Tensor, timestep: Any, latent: Tensor) -> tuple[Tensor]:
        used = output if self.before is None else 1.5 * output - 0.5 * self.before
        self.before = output
        return super().step(used, timestep, latent)


STEPPED = 10


@pytest.mark.parametrize("passes", ["one", "batched", "sequential"])
@pytest.mark.parametrize("other", [Halved, Momentum, Noisy])
def test_another_solver_is_told_before_the_second_fill(passes: Any, other: type[OneStep]):
    model = Mixture([1.0, 0.5], STEPPED)
    sampler = ToySampler(model, lambda: OneStep(STEPPED), passes=passes)
    schedule = calibrated(sampler)
    second = [e for e in range(STEPPED) if schedule.fills_at(e)][1]
    stranger = ToySampler(model, lambda: Until(other(STEPPED), second), passes=passes)
    with (
        pytest.warns(SmoothCacheWarning, match="solver"),
        pytest.raises(StopIteration),
        cached(model, MIXTURE, schedule, branches=sampler.branches),
    ):
        stranger(7)


class Until:
    """A solver that is cut off when the denoiser has said what it says of one evaluation."""

    def __init__(self, solver: OneStep, evaluation: int) -> None:
        self.solver, self.evaluation, self.timesteps = solver, evaluation, solver.timesteps

    def step(self, output: Tensor, timestep: Any, latent: Tensor) -> tuple[Tensor]:
        if int(timestep) == self.evaluation:
            raise StopIteration
        return self.solver.step(output, timestep, latent)


@pytest.mark.parametrize("passes", ["batched", "sequential"])
def test_another_strength_of_guidance_is_measured(passes: Any):
    model = Mixture([1.0, 0.5], STEPPED)
    planned = ToySampler(model, lambda: OneStep(STEPPED), passes=passes, scale=1.5)
    schedule = calibrated(planned)
    other = ToySampler(model, lambda: OneStep(STEPPED), passes=passes, scale=4.0)
    with (
        pytest.warns(SmoothCacheWarning, match=r"use guidance scale 4, but .* planned for 1\.5"),
        cached(model, MIXTURE, schedule, branches=planned.branches),
    ):
        other(7)


def test_noise_that_was_planned_for_and_does_not_come_is_told():
    model = Mixture([1.0], STEPPED)
    schedule = calibrated(ToySampler(model, lambda: Noisy(STEPPED)))
    with (
        pytest.warns(SmoothCacheWarning, match="planned for a stochastic solver"),
        cached(model, MIXTURE, schedule),
    ):
        ToySampler(model, lambda: OneStep(STEPPED))(7)


@pytest.mark.parametrize("solver", [OneStep, Noisy, Momentum])
@pytest.mark.parametrize("passes", ["one", "batched", "sequential"])
@pytest.mark.parametrize("samples", [1, 3])
def test_the_planned_solver_is_told_nothing_of(solver: type[OneStep], passes: Any, samples: int):
    model = Mixture([1.0, 0.5], STEPPED)
    schedule = calibrated(ToySampler(model, lambda: solver(STEPPED), passes=passes))
    sampler = ToySampler(model, lambda: solver(STEPPED), passes=passes, samples=samples)
    with cached(model, MIXTURE, schedule, branches=sampler.branches):
        sampler(7)
        sampler(8)


def test_runs_in_turn_are_refused_by_what_their_solver_should_make():
    model = Mixture([1.0], STEPPED)
    sampler = ToySampler(model, lambda: OneStep(STEPPED))
    schedule = calibrated(sampler)
    one, other = torch.randn(2, 8, 3, 4, generator=torch.Generator().manual_seed(0))
    attachment = attach(model, MIXTURE, schedule)
    model(one, 0)
    with pytest.raises(AttachError, match="take turns"):
        model(other, 1)
    attachment.detach(quietly=True)


def test_a_fitted_schedule_knows_its_solver():
    model = Mixture([1.0], STEPPED)
    sampler = ToySampler(model, lambda: OneStep(STEPPED), samples=8)
    schedule = calibrated(sampler)
    fitted = fit(sampler.value(), schedule, seeds=range(2), progress=False)
    assert fitted.solver_steps == schedule.solver_steps
