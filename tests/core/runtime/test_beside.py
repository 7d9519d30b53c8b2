"""A net that is called for the denoiser's sake, as a ControlNet is: skipped with the evaluation."""

from typing import Any

import pytest
import torch
from kit.helpers import anatomy
from kit.planning import OneStep, ToySampler
from smoothcache_core import (
    PatternAdapter,
    Schedule,
    SmoothCacheWarning,
    attach,
    cached,
    calibrate,
    fit,
    plan,
)
from smoothcache_core.errors import SamplerError
from smoothcache_core.metrics import relative_l2
from smoothcache_core.pipelines import Relay
from torch import Tensor, nn

EVALUATIONS = 8
ADAPTER = PatternAdapter(name="guided", patterns=(), guidance="cond-first")
ROW = (1, 1, 0, 1, 0, 0, 1, 1)


class Net(nn.Module):
    """Gives what the denoiser adds, as tensors in a list and one more."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4).requires_grad_(False)
        self.calls = 0

    def forward(self, hidden: Tensor, timestep: Any) -> tuple[list[Tensor], Tensor]:
        self.calls += 1
        done = self.linear(hidden).tanh() * (1 + float(timestep) / 8)
        return [done, done.mean(dim=1)], done.sum(dim=(1, 2))


class Guided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4).requires_grad_(False)
        self.calls = 0

    def forward(self, hidden_states: Tensor, timestep: Any, down: Any = (), mid: Any = 0) -> Tensor:
        self.calls += 1
        added = sum((each.reshape(len(each), -1, 4) for each in down), torch.zeros(()))
        out = self.linear(hidden_states).sin() + added + mid.reshape(-1, 1, 1) / 9
        return out * (1 + 0.1 * float(timestep))


class Run:
    """A sampler that calls a net before its denoiser, once for all passes or before each."""

    def __init__(self, *, passes: str = "one", each: bool = False, changed: bool = False) -> None:
        torch.manual_seed(0)
        self.net, self.denoiser = Net(), Guided()
        self.relay = Relay(self.denoiser, beside=(self.net,))
        self.each, self.changed = each, changed
        self.branches = ("cond", "uncond") if passes == "sequential" else ()
        self.batched = passes == "batched"

    def guided(self, latent: Tensor, timestep: Any, _: Any = None) -> Tensor:
        if self.batched:
            both = self.call(torch.cat((latent, latent)), timestep, None)
            return both[len(latent) :] + 2.0 * (both[: len(latent)] - both[len(latent) :])
        control = None if self.each else self.net(latent, timestep)
        one = self.call(latent, timestep, control)
        if not self.branches:
            return one
        other = self.call(latent, timestep, control) * 0.9
        return other + 2.0 * (one - other)

    def call(self, latent: Tensor, timestep: Any, control: Any) -> Tensor:
        down, mid = self.net(latent, timestep) if control is None else control
        if self.changed:
            mid = mid * 0.5
        return self.denoiser(latent, timestep, down=down, mid=mid)

    def __call__(self, seed: int, steps: int = EVALUATIONS) -> Tensor:
        return ToySampler(self.guided, lambda: OneStep(steps))(seed)

    def sampler(self) -> Any:
        toy = ToySampler(self.guided, lambda: OneStep(EVALUATIONS))
        return toy.value(ADAPTER, model=self.relay, branches=self.branches, run=self)

    def calls(self) -> tuple[int, int]:
        found = self.net.calls, self.denoiser.calls
        self.net.calls = self.denoiser.calls = 0
        return found


def schedule(row: tuple[int, ...] = ROW, **rows: tuple[int, ...]) -> Schedule:
    return Schedule(evaluations=len(row), rows={"denoiser": row, **rows})


def without(run: Run, made: Schedule, seed: int = 0) -> Tensor:
    """Return what comes where only the denoiser is skipped."""
    with cached(run.denoiser, ADAPTER, made, branches=run.branches):
        found = run(seed)
    run.calls()
    return found


@pytest.mark.parametrize("passes", ["one", "sequential", "batched"])
@pytest.mark.parametrize("each", [False, True])
def test_it_is_skipped_with_the_evaluation(passes: str, each: bool):
    run = Run(passes=passes, each=each)
    expected = without(run, schedule())
    before = anatomy(run.net)
    with cached(run.relay, ADAPTER, schedule(), branches=run.branches) as stats:
        first, second = run(0), run(0)
    net, denoiser = run.calls()
    assert torch.equal(first, expected)
    assert torch.equal(second, expected)
    times = 2 if run.branches else 1
    assert denoiser == 2 * times * sum(ROW)
    assert net == 2 * sum(ROW) * (times if each else 1)
    assert stats.recomputed == 0
    assert anatomy(run.net) == before


def test_it_is_called_after_all_where_the_evaluation_is_computed_after_all():
    run = Run()
    expected = run(1)
    made = schedule((1, 1, 0, 1, 1, 1, 1, 1))
    told = pytest.warns(SmoothCacheWarning, match="ended after")
    with told, cached(run.relay, ADAPTER, made) as stats:
        ToySampler(run.guided, lambda: OneStep(2))(0)  # it ends before what is skipped, unsaid
        run.calls()
        begun = run.guided(torch.ones(1, 3, 4), 0)
    assert run.calls() == (1, 1)
    assert torch.equal(begun, run.guided(torch.ones(1, 3, 4), 0))
    assert stats.recomputed == 0
    assert torch.equal(run(1), expected)


def test_it_is_called_after_all_for_a_half_of_the_batch():
    run = Run(passes="batched")
    rows = {"guidance": (1, 0, 1, 0, 1, 0, 1, 0)}
    made = schedule((1,) * EVALUATIONS, **rows)
    expected = without(run, made)
    with cached(run.relay, ADAPTER, made):
        assert torch.equal(run(0), expected)
    assert run.calls() == (EVALUATIONS, EVALUATIONS)


def test_it_is_called_always_where_its_outputs_are_changed_before_they_are_used():
    run = Run(changed=True)
    expected = without(run, schedule())
    with cached(run.relay, ADAPTER, schedule()):
        assert torch.equal(run(0), expected)
    assert run.calls() == (EVALUATIONS, sum(ROW))


def test_its_work_counts_as_the_denoisers():
    run = Run()
    alone = calibrate(
        ToySampler(run.guided, lambda: OneStep(EVALUATIONS)).value(ADAPTER, model=run.denoiser),
        seeds=[0],
        progress=False,
    )
    both = calibrate(run.sampler(), seeds=[0], progress=False)
    assert both.cost.total == 2 * alone.cost.total
    assert both.fingerprint.model_class == alone.fingerprint.model_class
    assert both.fingerprint.weights == alone.fingerprint.weights
    assert both.fingerprint.denoisers is None


def test_a_plan_errs_as_much_as_without_it_being_skipped():
    run = Run()
    known = calibrate(run.sampler(), seeds=range(6), progress=False)
    made = fit(run.sampler(), plan(known, compute=0.6), seeds=range(6), progress=False)
    plain, expected = run(20), without(run, made, 20)
    with cached(run.relay, ADAPTER, made):
        found = run(20)
    assert torch.equal(found, expected)
    assert relative_l2(plain, found).mean() < 0.1
    assert run.calls() == (sum(made.rows["denoiser"]),) * 2


def test_an_exception_and_requests_in_turn_leave_nothing_wrong():
    run = Run()
    alone = [without(run, schedule(), seed) for seed in (0, 1)]
    attachment = attach(run.relay, ADAPTER, schedule())
    with pytest.raises(RuntimeError):
        run.guided(torch.ones(1, 3, 7), 0)
    solver = OneStep(EVALUATIONS)
    latents = [torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    for step in range(EVALUATIONS + 3):
        for key, start in enumerate((0, 3)):
            if 0 <= step - start < EVALUATIONS:
                with attachment.run(key):
                    output = run.guided(latents[key], solver.timesteps[step - start])
                latents[key] = solver.step(output, step - start, latents[key])[0]
    attachment.detach()
    assert all(map(torch.equal, latents, alone))


def test_what_is_beside_a_denoiser_is_a_module_of_its_own():
    run = Run()
    with pytest.raises(SamplerError, match="occurs twice"):
        Relay(run.denoiser, beside=(run.denoiser,))
    with pytest.raises(SamplerError, match="two denoisers or more"):
        Relay(beside=(run.net, run.denoiser))
