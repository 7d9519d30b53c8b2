"""The adapters of the video package: the contract, and what is special about single ones."""

import pytest
import smoothcache_video
import torch
from kit.adapter_contract import AdapterContract, Case, GuidanceContract
from kit.video_models import CASES
from smoothcache_video import ADAPTERS, OPEN_SORA, WAN, adapter_for

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")  # Mochi asks for float32
BATCHED = [case for case in CASES if case.adapter.guidance is not None]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(params=BATCHED, ids=lambda case: case.name)
def batched_case(request: pytest.FixtureRequest) -> Case:
    return request.param


class TestAdapters(AdapterContract):
    find = staticmethod(adapter_for)


class TestGuidance(GuidanceContract):
    pass


def test_every_adapter_is_tested():
    assert [case.adapter for case in CASES] == list(ADAPTERS)
    assert len({adapter.name for adapter in ADAPTERS}) == len(ADAPTERS)


def test_every_adapter_is_public():
    public = [getattr(smoothcache_video, name) for name in smoothcache_video.__all__]
    assert all(any(adapter is value for value in public) for adapter in ADAPTERS)


def test_open_sora_of_its_first_implementation_has_the_same_adapter():
    class STDiT3(torch.nn.Module):
        """A class of that name from elsewhere."""

    assert adapter_for(STDiT3()) is OPEN_SORA


def test_a_model_built_upon_a_known_one_is_known():
    (case,) = (case for case in CASES if case.adapter is WAN)
    model = case.model()
    model.__class__ = type("MyWan", (type(model),), {})
    assert adapter_for(model) is WAN
