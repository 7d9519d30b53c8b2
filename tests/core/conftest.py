from collections.abc import Generator

import pytest
import torch


@pytest.fixture(autouse=True)
def without_gradients() -> Generator[None]:
    """Sample as samplers do: without gradients, with which nothing is filled."""
    with torch.no_grad():
        yield
