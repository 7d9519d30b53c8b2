import pytest
import torch
from hypothesis import settings

torch.set_num_threads(2)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)
