"""Quantised, cast, offloaded and tuned denoisers: skipped as any other, whole or in parts."""

import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import accelerate
import pytest
import torch
from accelerate.hooks import AlignDevicesHook
from diffusers.hooks.group_offloading import ModuleGroup
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from kit.adapter_contract import Case, same
from kit.image_models import CASES, dit
from peft import LoraConfig, inject_adapter_in_model
from smoothcache_core import (
    PatternAdapter,
    Sampler,
    Schedule,
    SitePattern,
    SmoothCacheWarning,
    attach,
    cached,
    calibrate,
    plan,
)
from smoothcache_core.adapters import whole_evaluations
from smoothcache_core.calls.fingerprints import model_fingerprint
from smoothcache_core.errors import AttachError
from smoothcache_image import DIT, SD3
from torch import Tensor, nn
from torchao.quantization import (
    Int8DynamicActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    quantize_,
)

pytestmark = pytest.mark.usefixtures("one_thread", "without_gradients")

STEPS = 7  # from 6 down, plans warn that little can be skipped
ROW = (1, 0, 1, 0, 1, 1, 1)
CPU = torch.device("cpu")


def model() -> DiTTransformer2DModel:
    torch.manual_seed(0)
    made = dit().eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.data = torch.randn_like(parameter) * 0.15
    return made


def run(denoiser: Any, seed: int = 0) -> Tensor:
    latent = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    for step in range(STEPS):
        time = torch.full((2,), 900 - 100 * step)
        output = denoiser(
            latent, timestep=time, class_labels=torch.tensor([1, 2]), return_dict=False
        )[0]
        latent = latent - 0.1 * output[:, :4]
    return latent


# ---------------------------------------------------------------------------- what is done to it


def grouped(denoiser: DiTTransformer2DModel, kind: str) -> None:
    vars(denoiser)["_supports_group_offloading"] = True
    denoiser.enable_group_offload(
        onload_device=CPU, offload_device=CPU, offload_type=kind,
        num_blocks_per_group=1 if kind == "block_level" else None,
    )  # fmt: skip


def cast(denoiser: DiTTransformer2DModel) -> None:
    denoiser.enable_layerwise_casting(
        storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32
    )


SURROUNDINGS: dict[str, Callable[[DiTTransformer2DModel], object]] = {
    "int8 weights": lambda m: quantize_(m, Int8WeightOnlyConfig()),
    "int8 activations": lambda m: quantize_(m, Int8DynamicActivationInt8WeightConfig()),
    "float8 storage": cast,
    "groups of blocks offloaded": lambda m: grouped(m, "block_level"),
    "groups of leaves offloaded": lambda m: grouped(m, "leaf_level"),
    "offloaded one by one": lambda m: accelerate.cpu_offload(m, execution_device=CPU),
    "offloaded to disk": lambda m: accelerate.disk_offload(
        m, tempfile.mkdtemp(), execution_device=CPU
    ),
    "offloaded whole": lambda m: accelerate.cpu_offload_with_hook(m, execution_device=CPU),
}


ALWAYS = {"int8 weights", "float8 storage", "groups of blocks offloaded", "offloaded one by one"}
LISTED = [
    pytest.param(name, marks=() if name in ALWAYS else pytest.mark.zoo) for name in SURROUNDINGS
]


@pytest.mark.parametrize("name", LISTED)
@pytest.mark.parametrize("of_sites", [False, True], ids=["whole", "sites"])
def test_it_is_skipped_and_restored(name: str, of_sites: bool):
    denoiser = model()
    fingerprint = model_fingerprint(denoiser, DIT.name)
    SURROUNDINGS[name](denoiser)
    plain = run(denoiser)
    adapter = DIT if of_sites else whole_evaluations(denoiser)
    rows = {"attn1": ROW, "ff": ROW} if of_sites else {"denoiser": ROW}
    schedule = Schedule(evaluations=STEPS, rows=rows, fingerprint=fingerprint)
    with cached(denoiser, adapter, schedule) as stats:
        outcome = run(denoiser)
        again = run(denoiser)
    assert torch.equal(outcome, again)
    assert 0.0 < (outcome - plain).norm() / plain.norm() < 0.1
    assert stats.reused == {site: 4 for site in stats.reused}
    assert len(stats.reused) == (4 if of_sites else 1)
    assert torch.equal(run(denoiser), plain)


@pytest.mark.parametrize("name", LISTED)
def test_computing_everything_is_bit_identical(name: str):
    denoiser = model()
    SURROUNDINGS[name](denoiser)
    plain = run(denoiser)
    schedule = Schedule(evaluations=STEPS, rows={"attn1": (1,) * STEPS, "ff": (1,) * STEPS})
    with (
        pytest.warns(SmoothCacheWarning, match="computes everything"),
        cached(denoiser, DIT, schedule),
    ):
        assert torch.equal(run(denoiser), plain)


@pytest.mark.parametrize(
    "name",
    [
        "int8 activations",
        pytest.param("float8 storage", marks=pytest.mark.zoo),
        pytest.param("offloaded one by one", marks=pytest.mark.zoo),
    ],
)
@pytest.mark.parametrize("of_sites", [False, True], ids=["whole", "sites"])
def test_it_is_calibrated_and_planned(name: str, of_sites: bool):
    denoiser, plain = model(), model()
    SURROUNDINGS[name](denoiser)
    adapter = DIT if of_sites else whole_evaluations(denoiser)
    found = []
    for each in (plain, denoiser):
        sampler = Sampler(
            model=each, adapter=adapter, run=lambda seed, each=each: run(each, seed), samples=2
        )
        calibration = calibrate(sampler, seeds=range(2), sensitivity=1, progress=False)
        target = "site" if of_sites else "denoiser"
        found.append((calibration, plan(calibration, compute=0.6, target=target)))
    (known, expected), (calibration, planned) = found
    assert calibration.cost.total == known.cost.total
    assert [site.macs for site in calibration.cost.sites] == [s.macs for s in known.cost.sites]
    assert planned.prediction is not None
    assert expected.prediction is not None
    assert planned.prediction.error == pytest.approx(expected.prediction.error, rel=0.5)
    with cached(denoiser, adapter, planned) as stats:
        run(denoiser, 5)
    assert sum(stats.reused.values()) > 0


# ---------------------------------------------------------------------------- weights on their way


@contextmanager
def counted(kind: type, name: str) -> Generator[list[object]]:
    """Count the calls of a method, of all objects of a class."""
    calls: list[object] = []
    original = getattr(kind, name)

    def count(self: object, *args: Any, **kwargs: Any) -> Any:
        calls.append(self)
        return original(self, *args, **kwargs)

    setattr(kind, name, count)
    try:
        yield calls
    finally:
        setattr(kind, name, original)


@pytest.mark.parametrize(
    ("name", "kind", "method", "always"),
    [
        ("groups of blocks offloaded", ModuleGroup, "onload_", 0),
        ("groups of leaves offloaded", ModuleGroup, "onload_", 0),
        ("offloaded one by one", AlignDevicesHook, "pre_forward", 1),  # of the denoiser itself
    ],
)
def test_a_skipped_evaluation_fetches_no_weights(name: str, kind: type, method: str, always: int):
    denoiser = model()
    SURROUNDINGS[name](denoiser)
    run(denoiser)
    with counted(kind, method) as plain:
        run(denoiser)
    per_evaluation = len(plain) // STEPS
    assert per_evaluation > 10 or "blocks" in name
    schedule = Schedule(evaluations=STEPS, rows={"denoiser": ROW})
    with cached(denoiser, whole_evaluations(denoiser), schedule), counted(kind, method) as calls:
        run(denoiser)
    assert len(calls) == ROW.count(1) * per_evaluation + ROW.count(0) * always


# ---------------------------------------------------------------------------- LoRA


SD3_CASE = next(case for case in CASES if case.adapter is SD3)
QUARTER = {
    "whole": Schedule(evaluations=4, rows={"denoiser": (1, 0, 1, 1)}),
    "sites": Schedule(evaluations=4, rows={"attn": (1, 0, 1, 1), "ff": (1, 0, 1, 1)}),
}


def tune(denoiser: nn.Module, name: str, seed: int, targets: Sequence[str]) -> None:
    config = LoraConfig(r=2, target_modules=list(targets), init_lora_weights=False)
    if isinstance(denoiser, PeftAdapterMixin):
        denoiser.add_adapter(config, adapter_name=name)
    else:
        inject_adapter_in_model(config, denoiser, adapter_name=name)
    generator = torch.Generator().manual_seed(seed)
    for path, parameter in denoiser.named_parameters():
        if f".{name}." in path:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)


def outcomes(case: Case, denoiser: Any, schedule: Schedule, adapter: Any) -> Sequence[Tensor]:
    with cached(denoiser, adapter, schedule):
        return case.run(denoiser)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
@pytest.mark.parametrize("kind", QUARTER)
def test_lora_comes_changes_and_goes_while_a_cache_is_attached(kind: str):
    case, schedule = SD3_CASE, QUARTER[kind]
    denoiser: Any = case.model()
    adapter = SD3 if kind == "sites" else whole_evaluations(denoiser)
    plain, targets = case.run(denoiser), ("to_q", "to_k", "ff.net.0.proj")
    before = outcomes(case, denoiser, schedule, adapter)
    expected = []
    for name, seed in (("one", 1), ("two", 2)):
        tuned = case.model()
        tune(tuned, name, seed, targets)
        expected.append(outcomes(case, tuned, schedule, adapter))
    assert not same(before, expected[0])
    assert not same(expected[0], expected[1])

    handle = attach(denoiser, adapter, schedule)
    assert same(case.run(denoiser), before)
    tune(denoiser, "one", 1, targets)
    assert same(case.run(denoiser), expected[0])
    tune(denoiser, "two", 2, targets)
    denoiser.set_adapter("two")
    assert same(case.run(denoiser), expected[1])
    denoiser.set_adapter("one")
    assert same(case.run(denoiser), expected[0])
    denoiser.disable_adapters()
    assert same(case.run(denoiser), before)
    denoiser.enable_adapters()
    denoiser.delete_adapters("two")
    assert same(case.run(denoiser), expected[0])
    denoiser.delete_adapters("one")
    assert same(case.run(denoiser), before)
    assert handle.stats.recomputed == 0
    assert set(handle.stats.reused.values()) == {handle.stats.runs}
    handle.detach()
    assert same(case.run(denoiser), plain)


class Layers(nn.Module):
    """A model without a configuration: it is known by the shapes of its weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor, t: float) -> Tensor:
        for layer in self.layers:
            x = x + layer(x).tanh() * t
        return x


LAYERS = PatternAdapter(
    name="layers", patterns=(SitePattern("layers.*", "layer"),), latent="x", timestep="t"
)


@pytest.mark.parametrize("make", [Layers, SD3_CASE.model], ids=["shapes", "configuration"])
def test_a_tuned_model_is_the_model_that_was_tuned(make: Callable[[], nn.Module]):
    denoiser = make()
    known = model_fingerprint(denoiser, "any")
    tune(denoiser, "one", 1, ["layers.0", "to_q"])
    tuned = model_fingerprint(denoiser, "any")
    assert known.weights
    assert tuned.weights == known.weights
    assert tuned.config_hash == known.config_hash


def test_a_site_that_is_replaced_under_a_cache_is_told():
    denoiser = Layers()
    tune(denoiser, "one", 1, ["layers.0"])
    schedule = Schedule(evaluations=2, rows={"layer": (1, 0)})
    handle = attach(denoiser, LAYERS, schedule)
    denoiser.layers[0] = denoiser.get_submodule("layers.0.base_layer")
    with pytest.raises(AttachError, match=r"'layers.0' was not called .* LoRA put on or taken"):
        denoiser(torch.ones(1, 8), 1.0)
    handle.detach(quietly=True)
    assert [type(layer) for layer in denoiser.layers] == [nn.Linear] * 3
