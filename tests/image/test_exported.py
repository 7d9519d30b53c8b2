"""The digits model exported to ONNX and run by ONNX Runtime: planned and skipped as in torch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from smoothcache_core import Calibration, Sampler, cached, calibrate, evaluate, plan
from smoothcache_core.adapters import whole_evaluations
from smoothcache_core.calls import FunctionDenoiser
from smoothcache_image import load_pipeline
from smoothcache_image.sampling import prompt_sampler
from torch import Tensor, nn

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
runtime = pytest.importorskip("onnxruntime")

pytestmark = [
    pytest.mark.zoo,  # a small export is always tested, with the other functions
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore"),  # what exporters say of themselves
]

STEPS = 8
LABELS = (3, 7)


class Exported(nn.Module):
    """What is exported: tensors in, a tensor out."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, hidden_states: Tensor, timestep: Tensor, class_labels: Tensor) -> Tensor:
        return self.transformer(
            hidden_states, timestep=timestep, class_labels=class_labels, return_dict=False
        )[0]


@dataclass
class Session:
    """Runs the exported model, and is called as diffusers' pipeline calls its transformer."""

    session: Any
    calls: int = 0

    def __call__(
        self, hidden_states: Tensor, timestep: Tensor, class_labels: Tensor
    ) -> Transformer2DModelOutput:
        self.calls += 1
        given = {
            "hidden_states": hidden_states.numpy(),
            "timestep": timestep.numpy(),
            "class_labels": class_labels.numpy(),
        }
        (output,) = self.session.run(None, given)
        return Transformer2DModelOutput(sample=torch.from_numpy(output))


@pytest.fixture(scope="module")
def pipe() -> Any:
    found = load_pipeline("digits", device="cpu")
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Session]:
    """Export once; give a session of the file."""
    file = tmp_path_factory.mktemp("onnx") / "digits.onnx"
    transformer = load_pipeline("digits", device="cpu").transformer
    rows, config = 2 * len(LABELS), transformer.config
    latent = torch.randn(rows, config.in_channels, config.sample_size, config.sample_size)
    labels = torch.zeros(rows, dtype=torch.long)
    with torch.no_grad():
        program = torch.onnx.export(
            Exported(transformer).eval(), (latent, torch.full((rows,), 500), labels),
            dynamo=True, optimize=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    program.save(str(file))
    return lambda: Session(session_of(file))


def session_of(file: Path) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def sampler_of(pipe: Any, model: nn.Module) -> Sampler:
    """Return the sampler of the pipeline with another denoiser in it."""
    plain = prompt_sampler(pipe, conditions=LABELS, steps=STEPS, samples=len(LABELS))
    known = plain.plain_sampler()

    def run(seed: int) -> Tensor:
        before, pipe.transformer = pipe.transformer, model
        try:
            return plain.latents(seed)
        finally:
            pipe.transformer = before

    return replace(known, model=model, adapter=whole_evaluations(model), run=run)


def calibrated(sampler: Sampler) -> Calibration:
    return calibrate(sampler, seeds=range(2), sensitivity=1, progress=False)


def test_onnx_runtime_is_planned_and_skipped_as_torch(pipe: Any, exported: Callable[[], Session]):
    session = exported()
    model = FunctionDenoiser(session, like=pipe.transformer)
    torch_sampler, onnx_sampler = (sampler_of(pipe, each) for each in (pipe.transformer, model))
    plans = []
    for sampler in (torch_sampler, onnx_sampler):
        half = plan(calibrated(sampler), compute=0.5)
        report = evaluate(sampler, {"half": half}, seeds=[10], warmup=0, progress=False)
        plans.append((half, report))
    (of_torch, torch_report), (of_onnx, onnx_report) = plans
    assert of_onnx.rows == of_torch.rows
    assert of_onnx.compute_fraction() == of_torch.compute_fraction() == 0.5
    assert (torch_report.compute_unit, onnx_report.compute_unit) == ("MACs", "evaluations")
    expected = torch_report.row("half").rel_l2
    assert onnx_report.row("half").rel_l2 == pytest.approx(expected, rel=1e-3)
    assert of_torch.prediction is not None
    assert of_onnx.prediction is not None
    assert of_onnx.prediction.error == pytest.approx(of_torch.prediction.error, rel=1e-3)
    for half in (of_torch, of_onnx):  # a schedule of the one is good for the other
        session.calls = 0
        with cached(model, onnx_sampler.adapter, half, scheduler=onnx_sampler.scheduler) as stats:
            latent = onnx_sampler.final_latent(11)
        assert session.calls == stats.computed["denoiser"] == STEPS // 2
        with cached(
            pipe.transformer, torch_sampler.adapter, half, scheduler=torch_sampler.scheduler
        ):
            torch.testing.assert_close(torch_sampler.final_latent(11), latent, rtol=0, atol=1e-4)
