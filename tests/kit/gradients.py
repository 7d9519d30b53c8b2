"""Sampling without gradients, as samplers do: with them nothing is filled."""

from collections.abc import Generator

import pytest
import torch


@pytest.fixture(autouse=True)
def without_gradients() -> Generator[None]:
    """Switch gradients off; a test that wants them says so by `torch.enable_grad`."""
    with torch.no_grad():
        yield
