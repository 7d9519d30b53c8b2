from collections.abc import Generator

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # models are small, and pytest-xdist fills the cores
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def one_thread() -> Generator[None]:
    """Compute in one thread: as the processes of a launcher do, and faster on small matrices."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
