"""Denoisers that are no torch modules: a function stands in a module that can be skipped."""

import copy
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from kit.planning import SHAPE, OneStep, ToySampler
from smoothcache_core import (
    PatternAdapter,
    Sampler,
    Schedule,
    SitePattern,
    attach,
    cached,
    calibrate,
    evaluate,
    plan,
    transfer,
)
from smoothcache_core.adapters import whole_evaluations
from smoothcache_core.adapters.signature import argument_names
from smoothcache_core.calls import FunctionDenoiser
from smoothcache_core.errors import AdapterError, SamplerError, ScheduleError
from smoothcache_core.schedule import Fill
from torch import Tensor, nn

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 8


class Denoised:
    """Counts how often it is called, as k-diffusion's samplers call a model."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor, sigma: Tensor, *, strength: float = 1.0) -> Tensor:
        self.calls += 1
        noise = sigma.reshape(-1, 1)
        return strength * torch.sin(x / (1 + noise**2).sqrt()) / (1 + noise**2)


class AsModule(nn.Module):
    def forward(self, x: Tensor, sigma: Tensor, **extra: Any) -> Tensor:
        return Denoised()(x, sigma, **extra)


def euler(model: Any, x: Tensor, sigmas: Tensor, extra_args: dict[str, Any]) -> Tensor:
    """Sample as `k_diffusion.sampling.sample_euler` does."""
    ones = x.new_ones(len(x))
    for sigma, following in pairwise(sigmas):
        denoised = model(x, sigma * ones, **extra_args)
        x = x + (x - denoised) / sigma * (following - sigma)
    return x


def sampler_of(model: Any) -> Sampler:
    sigmas = torch.cat((torch.logspace(1, -1, STEPS), torch.zeros(1)))

    def run(seed: int) -> Tensor:
        noise = torch.randn(2, 32, generator=torch.Generator().manual_seed(seed))
        return euler(model, noise * sigmas[0], sigmas, {"strength": 0.9})

    return Sampler(model=model, adapter=whole_evaluations(model), run=run, samples=2, solver="k")


def test_a_function_is_calibrated_planned_and_skipped():
    function = Denoised()
    sampler = sampler_of(FunctionDenoiser(function))
    calibration = calibrate(sampler, seeds=range(3), progress=False)
    assert calibration.fingerprint.model_class == "Denoised"
    assert calibration.evaluations == STEPS
    half = plan(calibration, compute=0.5)
    report = evaluate(sampler, {"half": half}, seeds=[10, 11], progress=False)
    assert report.row("half").rel_l2 < 0.05
    before = function.calls
    with cached(sampler.model, sampler.adapter, half, solver="k") as stats:
        sampler.run(10)
    assert function.calls - before == STEPS // 2 == stats.computed["denoiser"]


def test_it_gives_what_the_function_gives():
    plain, model = sampler_of(AsModule()), sampler_of(FunctionDenoiser(Denoised()))
    assert torch.equal(plain.final_latent(0), model.final_latent(0))
    assert repr(model.model) == "FunctionDenoiser(Denoised)"
    copied = copy.deepcopy(model.model)
    assert isinstance(copied, FunctionDenoiser)
    assert copied(torch.ones(1, 2), torch.ones(1)).shape == (1, 2)


def test_an_engine_may_write_every_output_to_the_same_memory():
    function, buffer = Denoised(), torch.empty(2, 32)

    def engine(x: Tensor, sigma: Tensor, strength: float) -> Tensor:
        return buffer.copy_(function(x, sigma, strength=strength))

    fill = Fill(terms={3: (1.5, -0.5), 5: (1.5, -0.5)})
    schedule = Schedule(
        evaluations=STEPS, rows={"denoiser": (1, 1, 1, 0, 1, 0, 1, 1)}, fills={"denoiser": fill}
    )
    found = []
    for each in (function, engine):
        sampler = sampler_of(FunctionDenoiser(each))
        with cached(sampler.model, sampler.adapter, schedule):
            found.append(sampler.final_latent(0))
    assert torch.equal(*found)


def test_gradients_flow_through_a_function():
    model = FunctionDenoiser(Denoised())
    latent = torch.ones(1, 4, requires_grad=True)
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(model(latent, torch.ones(1)).sum(), latent)
    assert slope.abs().min() > 0


def test_a_schedule_of_one_function_is_refused_by_another():
    def first(x: Tensor, sigma: Tensor) -> Tensor:
        return x * sigma

    def second(x: Tensor, sigma: Tensor) -> Tensor:
        return x - sigma

    known = FunctionDenoiser(first)
    fingerprint = plan_for(known).fingerprint
    assert fingerprint.model_class == "first"
    with pytest.raises(ScheduleError, match="model_class is 'second' instead of 'first'"):
        use(FunctionDenoiser(second), plan_for(known))
    use(FunctionDenoiser(second, name="first"), plan_for(known))


def plan_for(model: nn.Module) -> Schedule:
    toy = ToySampler(lambda latent, timestep, _: model(latent, timestep), lambda: OneStep(STEPS))
    sampler = Sampler(model=model, adapter=whole_evaluations(model), run=toy, samples=2)
    fingerprint = calibrate(sampler, seeds=[0], sensitivity=0, progress=False).fingerprint
    return Schedule(
        evaluations=STEPS, rows={"denoiser": (1, 0) * (STEPS // 2)}, fingerprint=fingerprint
    )


def use(model: nn.Module, schedule: Schedule) -> None:
    attach(model, whole_evaluations(model), schedule).detach(quietly=True)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.config = {"width": 4}

    def forward(self, x: Tensor, t: Any) -> Tensor:
        return self.linear(x) * t


def test_what_a_model_was_exported_to_is_the_model_for_schedules_and_pipelines():
    net = Net().requires_grad_(False)

    def run(x: Tensor, t: Any) -> Tensor:
        return net(x, t)

    exported = FunctionDenoiser(run, like=net)
    assert exported.config == {"width": 4}
    assert list(exported.parameters()) == []
    for made, used in ((net, exported), (exported, net)):
        use(used, plan_for(made))
    with pytest.raises(ScheduleError, match="model_class is 'Net' instead of 'run'"):
        use(net, plan_for(FunctionDenoiser(run)))
    with pytest.raises(AttributeError, match="nothing"):
        _ = exported.nothing
    compiled: Any = torch.compile(net, backend="eager")
    again = FunctionDenoiser(run, like=compiled)
    with cached(again, whole_evaluations(again), plan_for(net)) as stats:
        for step in range(STEPS):
            again(torch.ones(2, *SHAPE), step)
    assert stats.reused == {"denoiser": STEPS // 2}


def test_an_exported_program_is_a_denoiser():
    net = Net().requires_grad_(False)
    program = torch.export.export(net, (torch.ones(2, 3, 4), torch.ones(())))
    model = program.module()
    adapter = whole_evaluations(model)
    assert (adapter.latent, adapter.timestep) == ("x", "t")
    toy = ToySampler(lambda x, t, _: model(x, 0.1 * t), lambda: OneStep(STEPS))
    sampler = Sampler(model=model, adapter=adapter, run=toy, samples=2)
    half = plan(calibrate(sampler, seeds=range(3), progress=False), compute=0.5)
    with cached(model, adapter, half) as stats:
        toy(0)
    assert stats.reused == {"denoiser": STEPS // 2}
    with pytest.raises(AdapterError, match=r"an ExportedProgram cannot be; .*program.module\(\)"):
        FunctionDenoiser(program)


def test_torchscript_is_a_denoiser_by_a_function():
    with pytest.warns(DeprecationWarning, match="torch.jit.trace"):
        net: Any = torch.jit.trace(
            Net().requires_grad_(False), (torch.ones(2, 3, 4), torch.ones(()))
        )
    model = FunctionDenoiser(lambda x, t: net(x, t), name="Net")
    schedule = Schedule(evaluations=2, rows={"denoiser": (1, 0)})
    with cached(model, whole_evaluations(model), schedule) as stats:
        for time in (1.0, 0.5):
            model(torch.ones(2, 3, 4), torch.tensor(time))
    assert stats.reused == {"denoiser": 1}


def test_what_a_function_takes_is_its_own_word_or_named():
    bound = partial(lambda scale, x, t: scale * x * t, 2.0)
    assert argument_names(FunctionDenoiser(bound)) == ["x", "t"]
    given = FunctionDenoiser(lambda *args: args[0], arguments=("noisy", "progress"))
    adapter = whole_evaluations(given, latent="noisy", timestep="progress")
    assert (adapter.latent, adapter.timestep) == ("noisy", "progress")
    with pytest.raises(AdapterError, match=r"takes nothing by name, only \*args and \*\*kwargs"):
        whole_evaluations(FunctionDenoiser(lambda *args: args[0]))
    with pytest.raises(AdapterError, match=r"nothing says what .* takes; name it, such as"):
        FunctionDenoiser(min)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (nn.Linear(1, 1), "this Linear is a torch module; give it to the sampler as it is"),
        (3, "a denoiser is called, but an int cannot be; write a function that calls it"),
    ],
)
def test_what_is_no_function_is_refused(function: Any, message: str):
    with pytest.raises(AdapterError, match=message):
        FunctionDenoiser(function)


def test_a_sampler_says_how_a_function_becomes_a_model():
    adapter = PatternAdapter(name="x", patterns=(SitePattern("a", "a"),))
    with pytest.raises(SamplerError, match=r"not a function; make a module of it: .*FunctionDen"):
        Sampler(model=euler, adapter=adapter, run=print)  # pyright: ignore[reportArgumentType]


@pytest.mark.filterwarnings("ignore")  # of what k-diffusion imports
@pytest.mark.parametrize("name", ["sample_heun", "sample_dpmpp_2m"])
def test_samplers_of_k_diffusion_call_it(name: str):
    sampling = pytest.importorskip("k_diffusion.sampling")
    model = FunctionDenoiser(Denoised())
    sigmas = sampling.get_sigmas_karras(STEPS, 0.05, 10.0)

    def run(seed: int) -> Tensor:
        noise = torch.randn(2, 32, generator=torch.Generator().manual_seed(seed))
        extra = {"strength": 0.9}
        return getattr(sampling, name)(
            model, noise * sigmas[0], sigmas, extra_args=extra, disable=True
        )

    sampler = Sampler(
        model=model, adapter=whole_evaluations(model), run=run, samples=2, solver=name
    )
    calibration = calibrate(sampler, seeds=range(2), sensitivity=1, progress=False)
    assert calibration.evaluations == (2 * STEPS - 1 if name == "sample_heun" else STEPS)
    part = plan(calibration, compute=0.6)
    report = evaluate(sampler, {"part": part}, seeds=[10], warmup=0, progress=False)
    assert report.row("part").rel_l2 < 0.01


@pytest.mark.filterwarnings("ignore")  # what exporters say of themselves
def test_a_session_of_onnx_runtime_is_a_denoiser_by_a_function(tmp_path: Path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    net, file = Net().requires_grad_(False), tmp_path / "net.onnx"
    given = (torch.ones(2, *SHAPE), torch.ones(()))
    program = torch.onnx.export(net, given, dynamo=True, optimize=False, verbose=False)
    assert program is not None
    program.save(str(file))
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def run(x: Tensor, t: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"x": x.numpy(), "t": t.numpy()})[0])

    reports = []
    for model in (net, FunctionDenoiser(run, like=net)):
        toy = ToySampler(partial(called, model), lambda: OneStep(STEPS))
        sampler = Sampler(model=model, adapter=whole_evaluations(model), run=toy, samples=2)
        half = plan(calibrate(sampler, seeds=range(3), progress=False), compute=0.5)
        reports.append(evaluate(sampler, {"half": half}, seeds=[10], warmup=0, progress=False))
    of_torch, of_onnx = (report.row("half") for report in reports)
    assert of_onnx.rel_l2 == pytest.approx(of_torch.rel_l2, rel=1e-3)
    assert of_onnx.computed == of_torch.computed == STEPS // 2
    with pytest.raises(AdapterError, match="an InferenceSession cannot be; write a function that"):
        FunctionDenoiser(session)


def test_a_function_that_names_its_output_is_transferred():
    class Output(NamedTuple):
        sample: Tensor

    def run(x: Tensor, t: Tensor) -> Output:
        return Output(torch.sin(x) * t)

    model = FunctionDenoiser(run)

    def sampler_at(steps: int) -> Sampler:
        toy = ToySampler(lambda x, t, _: model(x, t / steps).sample, lambda: OneStep(steps))
        return Sampler(model=model, adapter=whole_evaluations(model), run=toy, samples=2)

    calibration = calibrate(sampler_at(STEPS), seeds=range(3), progress=False)
    assert calibration.remark == ""
    assert transfer(calibration, sampler_at(STEPS + 2)).evaluations == STEPS + 2


def called(model: nn.Module, latent: Tensor, timestep: Tensor, label: Tensor) -> Tensor:
    del label
    return model(latent, 0.1 * timestep.float())
