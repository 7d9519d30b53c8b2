"""Recording, replaying and changing the calls that a sampler makes of its denoiser."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from diffusers.utils.outputs import BaseOutput
from kit.helpers import anatomy, silent
from kit.planning import PAIR, WAVE, OneStep, Passes, ToySampler, Wave
from smoothcache_core import PatternAdapter, Sampler
from smoothcache_core.calls.clock import Tick
from smoothcache_core.calls.stopping import Stop
from smoothcache_core.errors import AdapterError, CalibrationError
from smoothcache_core.outputs.structures import Structure
from smoothcache_core.sampling.recording import record, recorded_calls
from smoothcache_core.wrapping.modules import layered
from torch import Tensor, nn

STEPS = 4


@dataclass
class Output(BaseOutput):
    """What models of diffusers return."""

    sample: Tensor
    extra: Any = None


class Dressed(nn.Module):
    """A wave whose output is dressed up as other models do."""

    def __init__(self, dress: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.wave, self.dress = Wave(), dress

    def forward(self, hidden_states: Any, timestep: Any, label: Tensor | None = None) -> Any:
        latent = hidden_states if isinstance(hidden_states, Tensor) else torch.stack(hidden_states)
        return self.dress(self.wave(latent, timestep, label))


DRESSES: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "tensor": (lambda y: y, lambda o: o),
    "tuple": (lambda y: (y, None), lambda o: o[0]),
    "dataclass": (lambda y: Output(sample=y), lambda o: o.sample),
    "dict": (lambda y: {"sample": y, "steps": 3}, lambda o: o["sample"]),
    "learned sigma": (
        lambda y: Output(sample=torch.cat((y, y * 0 + 7.0), dim=1)),
        lambda o: o.sample.chunk(2, dim=1)[0],
    ),
    "list": (lambda y: list(y), torch.stack),
}


def dressed(name: str, passes: Passes = "one") -> tuple[Sampler, ToySampler, Dressed]:
    dress, undress = DRESSES[name]
    model = Dressed(dress)

    def call(*args: Any) -> Tensor:
        return undress(model(*args))

    toy = ToySampler(call, lambda: OneStep(STEPS), passes)
    return toy.value(WAVE, model=model), toy, model


def by_hand(sampler: ToySampler, seed: int) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Return the latents and outputs of all calls of a plain run, and the final latent."""
    latents, outputs = [], []

    def call(latent: Tensor, *rest: Any) -> Tensor:
        latents.append(latent.clone())
        outputs.append(model(latent, *rest).clone())
        return outputs[-1]

    model, sampler.model = sampler.model, call
    final = sampler(seed)
    sampler.model = model
    return latents, outputs, final


# ---------------------------------------------------------------------------- layers


class Failed(Exception):
    pass


def plus_one(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return call(*args, **kwargs) + 1.0


@pytest.mark.parametrize("error", [Failed, Stop, KeyboardInterrupt])
def test_a_layer_is_taken_off_after_anything(error: type[BaseException]):
    model = Wave()
    before, plain = anatomy(model), model(torch.ones(1), 5)
    with pytest.raises(error), layered(model, plus_one):  # noqa: PT012
        assert torch.equal(model(torch.ones(1), timestep=5), plain + 1.0)
        assert torch.equal(model.forward(torch.ones(1), 5), plain + 1.0)
        raise error
    model.calls = 0
    assert anatomy(model) == before


def test_layers_are_taken_off_one_by_one():
    model = Wave()
    before, plain = anatomy(model), model(torch.ones(1), 5)
    with layered(model, plus_one):
        with layered(model, plus_one):
            assert torch.equal(model(torch.ones(1), 5), plain + 2.0)
        assert torch.equal(model(torch.ones(1), 5), plain + 1.0)
    model.calls = 0
    assert anatomy(model) == before


def test_a_layer_goes_below_a_hook_of_accelerate():
    """`_old_forward` is what accelerate calls; the hook sees what the layer made."""

    class Double(ModelHook):
        def post_forward(self, module: nn.Module, output: Tensor) -> Tensor:
            return 2.0 * output

    model = Wave()
    plain = model(torch.ones(1), 5)
    add_hook_to_module(model, Double())
    before = anatomy(model)
    with layered(model, plus_one):
        assert torch.equal(model(torch.ones(1), 5), 2.0 * (plain + 1.0))
    model.calls = 1
    assert anatomy(model) == before
    assert torch.equal(model(torch.ones(1), 5), 2.0 * plain)
    remove_hook_from_module(model)
    assert torch.equal(model(torch.ones(1), 5), plain)


def test_a_layer_keeps_a_forward_of_the_instance():
    model = Wave()
    own = functools.partial(type(model).forward, model)
    model.forward = own  # as other libraries do
    with layered(model, plus_one):
        assert torch.equal(model(torch.ones(1), 5), own(torch.ones(1), 5) + 1.0)
    assert vars(model)["forward"] is own


# ---------------------------------------------------------------------------- recording


@pytest.mark.parametrize("passes", ["one", "batched", "sequential"])
@pytest.mark.parametrize("name", DRESSES)
def test_a_run_is_recorded_as_it_was(name: str, passes: Passes):
    sampler, toy, model = dressed(name, passes)
    before, (latents, outputs, final) = anatomy(model.wave), by_hand(toy, 3)
    model.wave.calls = 0
    run = record(sampler, 3)
    assert model.wave.calls == len(outputs) == len(run.calls)
    assert run.evaluations == STEPS
    assert run.parts == (1 if passes == "one" else 2)
    halves = [x.chunk(2) if passes == "batched" else (x,) for x in latents]
    several = 2 if passes == "sequential" else 1
    expected = torch.stack([half[0].flatten() for half in halves[::several]])
    assert torch.equal(run.latents, expected)
    flat = torch.stack([y.flatten() for y in outputs]).reshape(STEPS, run.parts, -1)
    assert torch.equal(run.outputs, flat)
    assert run.final is not None
    assert torch.equal(run.final, final.flatten())
    assert torch.equal(run.end, run.final)
    branches = [call.branch for call in run.calls]
    assert branches == list(toy.branches or ("",)) * STEPS
    model.wave.calls = 0
    assert anatomy(model.wave) == before


@pytest.mark.parametrize("name", DRESSES)
def test_what_was_recorded_replays_without_the_model(name: str):
    sampler, toy, model = dressed(name, "batched")
    plain = record(sampler, 3)
    model.wave.calls = 0
    again = record(sampler, 3, lambda number, tick, ask: plain.calls[number].answer)
    assert model.wave.calls == 0
    assert torch.equal(again.latents, plain.latents)
    assert torch.equal(again.outputs, plain.outputs)
    assert torch.equal(again.end, toy(3).flatten())


def test_outputs_may_be_changed_after_they_were_given():
    """A sampler that works in place must not spoil the record."""
    model = Wave()

    def sample(seed: int) -> Tensor:
        latent = torch.tensor([[1.0], [2.0]]) * torch.full((2, 3), float(seed))
        for timestep in (2, 1):
            latent -= model(latent, timestep).mul_(0.5)
        return latent

    sampler = Sampler(model=model, adapter=WAVE, run=sample, samples=2)
    plain = record(sampler, 1)
    once = record(sampler, 1, lambda number, tick, ask: plain.calls[number].answer)
    again = record(sampler, 1, lambda number, tick, ask: plain.calls[number].answer)
    assert torch.equal(plain.outputs, again.outputs)
    assert torch.equal(plain.latents, again.latents)
    assert torch.equal(once.end, again.end)


@pytest.mark.parametrize("passes", ["one", "sequential"])
def test_a_reply_may_ask_the_model_and_stop_the_run(passes: Passes):
    sampler, _, model = dressed("tensor", passes)
    places = []

    def reply(number: int, tick: Tick, ask: Callable[[], Any]) -> Structure | None:
        places.append((number, tick.evaluation, tick.branch))
        if tick.evaluation == 2:
            raise Stop
        return Structure.of(ask()).copied() if tick.evaluation else None

    calls, final = recorded_calls(sampler, 3, reply)
    several = 2 if passes == "sequential" else 1
    assert final is None
    assert len(calls) == model.wave.calls == 2 * several
    branches = PAIR if several == 2 else ("",)
    expected = [(e * several + b, e, name) for e in (0, 1) for b, name in enumerate(branches)]
    assert places == [*expected, (2 * several, 2, branches[0])]
    assert torch.equal(record(sampler, 3).latents[:2].flatten(), _latents(calls, several))
    assert "forward" not in vars(model)


def _latents(calls: list[Any], several: int) -> Tensor:
    return torch.cat([call.latent.flatten() for call in calls[::several]])


def test_an_exception_of_the_sampler_passes_and_leaves_nothing():
    model = Wave()
    before = anatomy(model)

    def sample(seed: int) -> None:
        model(torch.ones(2, 3), seed)
        raise Failed

    with pytest.raises(Failed):
        record(Sampler(model=model, adapter=WAVE, run=sample), 1)
    model.calls = 0
    assert anatomy(model) == before


def test_the_latent_may_be_a_list_of_rows():
    model = Dressed(list)

    def sample(seed: int) -> Tensor:
        latent = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed))
        for timestep in (2, 1):
            latent = latent - torch.stack(model(list(latent), timestep))
        return latent

    run = record(Sampler(model=model, adapter=WAVE, run=sample, samples=2), 3)
    assert run.latents.shape == (2, 6)
    assert torch.equal(run.latents[0] - run.outputs[0, 0], run.latents[1])


# ---------------------------------------------------------------------------- answers


@pytest.mark.parametrize("name", DRESSES)
def test_an_answer_is_a_copy_that_can_be_changed(name: str):
    dress, undress = DRESSES[name]
    latent = torch.arange(24.0).reshape(2, 3, 4)
    output = dress(latent.clone())
    answer = Structure.of(output).copied()
    undress(output).zero_()
    assert torch.equal(undress(answer.copied().output()), latent)
    assert torch.equal(answer.signal(latent), latent)
    change = torch.ones(2, 3, 4)
    changed = answer.plus(change, latent)
    assert torch.equal(changed.signal(latent), answer.signal(latent) + 1.0)
    assert type(changed.output()) is type(output)
    given = answer.copied().output()
    undress(given).add_(5.0)
    assert torch.equal(answer.signal(latent), answer.plus(change, latent).signal(latent) - 1.0)
    if name == "learned sigma":
        assert (changed.output().sample[:, 3:] == 7.0).all()
        assert answer.bytes == 2 * 24 * 4
    else:
        assert answer.bytes == 24 * 4


@pytest.mark.parametrize(
    ("dress", "message"),
    [
        (
            lambda y: y[:, :2],
            r"shape \(2, 3, 4\), whose output has shape \(2, 2, 4\), changes every",
        ),
        (lambda y: y[:1], r"shape \(1, 3, 4\) is not like its latent"),
        (lambda y: y[..., None], "is not like its latent"),
        (lambda y: y.long(), "holds no floating-point tensor"),
        (lambda y: {"text": "none"}, "holds no floating-point tensor"),
    ],
    ids=["fewer channels", "fewer rows", "more dimensions", "whole numbers", "nothing"],
)
def test_an_output_unlike_the_latent_is_refused(dress: Callable[[Tensor], Any], message: str):
    model = Dressed(dress)
    with pytest.raises(CalibrationError, match=message):
        record(silent(model, lambda _: model(torch.ones(2, 3, 4), 1), adapter=WAVE), 0)


def test_rows_of_several_shapes_are_refused():
    class Ragged(nn.Module):
        def forward(self, hidden_states: list[Tensor], timestep: int) -> list[Tensor]:
            del timestep
            return hidden_states

    model = Ragged()
    message = r"one shape, got \[\(2, 3\), \(3, 3\)\]"
    with pytest.raises(CalibrationError, match=message):
        record(
            silent(model, lambda _: model([torch.ones(2, 3), torch.ones(3, 3)], 1), adapter=WAVE), 0
        )
    with pytest.raises(CalibrationError, match=r"one shape, got \[\]"):
        record(silent(model, lambda _: model([], 1), adapter=WAVE), 0)


def test_a_sampler_that_never_calls_the_model_is_refused():
    with pytest.raises(CalibrationError, match="`run` never called the Wave"):
        record(Sampler(model=Wave(), adapter=WAVE, run=lambda seed: None), 0)
    strange = PatternAdapter(name="strange", patterns=(), latent="pixels")
    with pytest.raises(AdapterError, match="expects an argument 'pixels'"):
        record(Sampler(model=Wave(), adapter=strange, run=lambda seed: None), 0)


def test_a_pass_that_is_left_out_is_refused():
    model = Wave()

    def sample(seed: int) -> None:
        for timestep in (3, 2, 1):
            for _ in PAIR[: 1 if timestep == 2 else 2]:
                model(torch.full((2, 3), float(seed)), timestep)

    with pytest.raises(CalibrationError, match="5 calls in 3 evaluations of 2 conditioning passes"):
        record(Sampler(model=model, adapter=WAVE, run=sample, branches=PAIR), 0)
