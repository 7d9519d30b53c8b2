"""Seeding torch's global generators for a while, for samplers that draw from them."""

from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def seeded_globally(devices: Iterable[torch.device], seed: int) -> Generator[None]:
    """Seed the global generators of devices, and put them back where they were at the end.

    Args:
        devices: Devices whose generators are seeded, each once.
        seed: The seed of all of them, at least 0.
    """
    with ExitStack() as stack:
        for device in devices:
            stack.enter_context(_seeded(device, seed))
        yield


@contextmanager
def _seeded(device: torch.device, seed: int) -> Generator[None]:
    module: Any = torch.random if device.type == "cpu" else torch.get_device_module(device)
    where = () if device.type in ("cpu", "mps") else (device,)  # these two have one generator
    before = module.get_rng_state(*where)
    module.set_rng_state(torch.Generator(device).manual_seed(seed).get_state(), *where)
    try:
        yield
    finally:
        module.set_rng_state(before, *where)


def devices_of(modules: Iterable[nn.Module], *more: torch.device) -> list[torch.device]:
    """Return the CPU, the devices that modules are on, and `more` devices, each once.

    Args:
        modules: Modules whose parameters are looked at; meta devices are left out.
        more: Devices to be there as well.
    """
    found = {parameter.device for module in modules for parameter in module.parameters()}
    found |= {torch.device("cpu"), *more}
    return sorted((device for device in found if device.type != "meta"), key=str)
