"""What a calibration and a schedule are for, and whether something else is the same."""

from typing import Any

import pytest
import torch
from kit.helpers import ADAPTER, STEPS, Toy, noise, sample, schedule_of
from smoothcache_core import (
    PatternAdapter,
    Sampler,
    Schedule,
    SmoothCacheWarning,
    attach,
    cached,
    calibrate,
)
from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.calls.fingerprints import model_fingerprint
from smoothcache_core.calls.weights import weight_projections
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule import Fingerprint
from smoothcache_core.sources import interval
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

FULL: dict[str, Any] = {
    "model_class": "Toy",
    "config_hash": "abc",
    "adapter": "toy",
    "solver": "Euler",
    "evaluations": 6,
    "timesteps": STEPS,
    "branches": ("cond",),
    "latent_shape": (3, 4),
    "dtype": "float32",
    "guidance": {"guidance_scale": 1.5},
}
OTHER: dict[str, Any] = {
    "model_class": "DiT",
    "config_hash": "def",
    "adapter": "dit",
    "solver": "Heun",
    "evaluations": 7,
    "branches": (),
    "latent_shape": (4, 4),
    "dtype": "float16",
    "guidance": {"guidance_scale": 4.0},
}


@pytest.mark.parametrize("field", OTHER)
def test_every_field_is_compared_by_one_of_the_two(field: str):
    known = {**FULL, "timesteps": None if field == "evaluations" else STEPS}
    one, other = Fingerprint(**known), Fingerprint(**{**known, field: OTHER[field]})
    difference = f"{field} is {OTHER[field]!r} instead of {FULL[field]!r}"
    assert one.conflicts(other) + one.remarks(other) == [difference]
    assert one.mismatches(other) == [difference]
    assert bool(one.conflicts(other)) == (
        field in ("model_class", "config_hash", "adapter", "evaluations")
    )


@pytest.mark.parametrize("field", OTHER)
def test_what_is_unknown_is_not_compared_unless_it_must_be_the_same(field: str):
    one, other = Fingerprint(**FULL), Fingerprint(**{**FULL, field: None})
    for left, right in ((one, other), (other, one)):
        assert left.conflicts(right) == left.remarks(right) == []
        assert len(left.mismatches(right)) == 1


def test_versions_never_matter():
    one = Fingerprint(**FULL, versions={"torch": "2.6"})
    other = Fingerprint(**FULL, versions={"torch": "2.11"})
    assert one.conflicts(other) == one.remarks(other) == one.mismatches(other) == []


def calibrated(toy: Toy, width: int = 4) -> Fingerprint:
    def run(seed: int) -> None:
        sample(toy, latent=noise(seed, (2, 3, width)))

    sampler = Sampler(model=toy, adapter=ADAPTER, run=run)
    return calibrate(sampler, seeds=[0], progress=False).fingerprint


class Configured(Toy):
    """Has a configuration, as the models of diffusers do."""

    def __init__(self, **config: object) -> None:
        super().__init__()
        self.config = config


def test_a_model_is_known_by_its_configuration():
    known = calibrated(Configured(heads=2, _class_name="A"))
    assert known == calibrated(Configured(heads=2, _class_name="B", _name_or_path="x"))
    assert known.config_hash != calibrated(Configured(heads=3)).config_hash


def trained_otherwise() -> Toy:
    toy = Toy()
    for parameter in toy.parameters():
        nn.init.normal_(parameter)
    return toy


def test_a_model_without_configuration_is_known_by_its_parameters():
    known = calibrated(Toy())
    assert known == calibrated(Toy())
    assert known.config_hash == calibrated(trained_otherwise()).config_hash
    assert known.config_hash != calibrated(Toy(width=5), width=5).config_hash
    assert known.config_hash != calibrated(Toy(blocks=3)).config_hash


@pytest.mark.parametrize("compiled", [False, True])
def test_a_schedule_is_checked_against_the_model(compiled: bool):
    schedule = interval(2, evaluations=6, kinds=["ff"], fingerprint=calibrated(Toy()))
    toy = Toy(blocks=3)
    model: Any = torch.compile(toy, backend="eager") if compiled else toy
    with pytest.raises(ScheduleError, match="another model: config_hash is"):
        attach(model, ADAPTER, schedule)
    renamed = PatternAdapter(name="other", patterns=ADAPTER.patterns)
    with pytest.raises(ScheduleError, match="adapter is 'other' instead of 'toy'"):
        attach(Toy(), renamed, schedule)
    with cached(fitting := Toy(), ADAPTER, schedule):
        sample(fitting)


def test_a_schedule_without_fingerprint_goes_on_anything():
    toy = Toy(blocks=5)
    with cached(toy, ADAPTER, schedule_of()):
        sample(toy)


# ---------------------------------------------------------------------------- weights

OTHER_WEIGHTS = ["the weights are those of another model"]


def linears(dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Linear(64, 64) for _ in range(20))).to(dtype)


def printed(model: nn.Module) -> Fingerprint:
    weights = weight_projections(model)
    return Fingerprint(weights=weights.values or None, weights_rounding=weights.rounding or None)


def test_other_weights_are_told_apart():
    one, other = printed(linears()), printed(linears(seed=1))
    assert one == printed(linears())
    assert one.remarks(other) == one.mismatches(other) == OTHER_WEIGHTS
    assert one.conflicts(other) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_another_data_type_are_the_same(dtype: torch.dtype):
    assert printed(linears()).remarks(printed(linears(dtype))) == []


def test_a_little_tuning_is_no_other_model():
    model = linears()
    before = printed(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * parameter.std() * torch.randn_like(parameter))
    assert before.remarks(printed(model)) == []


def test_projections_are_few_and_of_size_1():
    weights = weight_projections(nn.Sequential(*(linears(seed=seed) for seed in range(8)))).values
    assert len(weights) == 8
    assert all(abs(value) < 5.0 for value in weights.values())
    assert len(set(weights.values())) == 8


def test_compiled_blocks_have_the_same_names():
    model = linears()
    before = printed(model)
    for index, block in enumerate(model):
        compiled: Any = torch.compile(block, backend="eager")
        model[index] = compiled
    assert printed(model) == before


def test_what_has_no_readable_weights_is_not_compared():
    with torch.device("meta"):
        offloaded = linears()
    assert printed(offloaded).weights is None
    assert not weight_projections(nn.Identity()).values
    assert printed(linears()).remarks(printed(offloaded)) == []
    zero = linears()
    with torch.no_grad():
        zero.get_parameter("0.weight").zero_()
    assert "0.weight" not in weight_projections(zero).values


STORED = (torch.float8_e4m3fn, torch.float8_e5m2)


def in_8_bits(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Store the matrices of a model in 8 bits, as `enable_layerwise_casting` does."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.to(dtype)
    return model


def normal(seed: int, deviation: float) -> nn.Sequential:
    model = linears(seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=deviation)
    return model


@pytest.mark.parametrize("deviation", [1.0, 0.02, 0.005, 0.0005])
@pytest.mark.parametrize("dtype", STORED)
def test_a_model_in_8_bits_is_the_same_and_others_are_others(dtype: torch.dtype, deviation: float):
    """Whatever the size of its weights; what 8 bits cannot tell apart is not compared."""
    told = 0
    for seed in range(20):
        one = printed(normal(seed, deviation))
        same = printed(in_8_bits(normal(seed, deviation), dtype))
        other = printed(in_8_bits(normal(seed + 100, deviation), dtype))
        assert one.remarks(same) == same.remarks(one) == one.mismatches(same) == []
        told += one.remarks(other) == OTHER_WEIGHTS
    readable = deviation > 0.01 or dtype is torch.float8_e5m2
    assert told == (20 if readable else 0)


class Packed(nn.Parameter):
    """A weight of 4 bits, packed into bytes, as bitsandbytes has it."""

    class quant_state:
        shape = (64, 64)


def quantised(model: nn.Sequential) -> nn.Sequential:
    """Quantise every third layer."""
    for layer in list(model)[::3]:
        packed = torch.zeros((2048, 1), dtype=torch.uint8)
        layer.weight = Packed(packed, requires_grad=False)
    return model


def test_a_quantised_model_is_the_same_by_what_can_still_be_read():
    plain, quantisation = linears(), {"quantization_config": {"load_in_4bit": True}}
    one = model_fingerprint(plain, "any")
    same = model_fingerprint(quantised(linears()), "any")
    assert one.conflicts(same) == one.remarks(same) == []
    assert same.weights is not None
    other = model_fingerprint(quantised(linears(seed=1)), "any")
    assert one.remarks(other) == OTHER_WEIGHTS
    known = calibrated(Configured(heads=2))
    assert known == calibrated(Configured(heads=2, **quantisation, torch_dtype="float16"))


@pytest.fixture
def one_process(tmp_path: Any) -> Any:
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.parametrize("configured", [False, True])
def test_a_sharded_model_is_the_same_and_is_served(one_process: Any, configured: bool):
    """FSDP gives it another class, and parameters of another kind."""
    plain: Toy = Configured(heads=2) if configured else Toy()
    sharded: Toy = Configured(heads=2) if configured else Toy()
    for block in sharded.blocks:
        fully_shard(block, mesh=one_process)
    fully_shard(sharded, mesh=one_process)
    assert type(sharded).__name__.startswith("FSDP")
    known = model_fingerprint(plain, ADAPTER.name)
    assert model_fingerprint(sharded, ADAPTER.name) == known
    assert known.weights
    schedule = interval(2, evaluations=6, kinds=["ff"], fingerprint=known)
    expected, served = sample_by(schedule, plain), sample_by(schedule, sharded)
    assert all(torch.equal(one, other) for one, other in zip(expected, served, strict=True))


def sample_by(schedule: Schedule, toy: Toy) -> list[Tensor]:
    with cached(toy, ADAPTER, schedule):
        return sample(toy)


def test_a_subclass_that_somebody_made_is_of_the_same_family():
    toy = Toy()
    known = model_fingerprint(toy, ADAPTER.name)
    toy.__class__ = type("WrappedToy", (type("Mixin", (), {}), Toy), {})
    assert known.conflicts(model_fingerprint(toy, ADAPTER.name)) == []

    class OtherToy(Toy):
        def forward(self, hidden_states: Tensor, timestep: Any, label: object = None) -> Tensor:
            return -super().forward(hidden_states, timestep, label)

    assert known.conflicts(model_fingerprint(OtherToy(), ADAPTER.name))


@pytest.mark.parametrize("how", ["whole", "blocks"])
def test_a_compiled_model_is_the_same(how: str):
    known = model_fingerprint(linears(), "any")
    model: Any = linears()
    if how == "whole":
        model = torch.compile(model, backend="eager")
    else:
        for index, block in enumerate(model):
            model[index] = torch.compile(block, backend="eager")
    assert model_fingerprint(denoiser(model), "any") == known


def test_a_schedule_for_other_weights_is_told():
    schedule = interval(2, evaluations=6, kinds=["ff"], fingerprint=calibrated(Toy()))
    with pytest.warns(
        SmoothCacheWarning, match="what the schedule was planned for: the weights are"
    ):
        attach(trained_otherwise(), ADAPTER, schedule).detach(quietly=True)
