"""Seeding torch's global generators for a while, for samplers that draw from them."""

import operator
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from typing import Any, SupportsIndex

import torch
from torch import nn

from smoothcache_core.arguments import listed_seeds
from smoothcache_core.documents import LEAST, MOST
from smoothcache_core.errors import SmoothCacheError


def checked_seeds(seeds: Iterable[object], what: str, error: type[SmoothCacheError]) -> list[int]:
    """Return seeds as integers, those of numpy and torch too.

    Args:
        seeds: Integers of 64 bits, at least one, and none of them twice.
        what: What needs them, for the message, such as `"calibration"`.
        error: Class of the error to raise.

    Raises:
        SmoothCacheError: They are something else; of the class `error`.
    """
    try:
        found = [_seed(seed) for seed in listed_seeds(seeds, error)]
    except (TypeError, ValueError, RuntimeError) as problem:
        raise error(f"{what} needs seeds that are integers of 64 bits: {problem}") from problem
    if not found or len(set(found)) != len(found):
        raise error(f"{what} needs distinct seeds, got {found}")
    return found


def _seed(seed: object) -> int:
    if isinstance(seed, bool) or not isinstance(seed, SupportsIndex):
        raise TypeError(f"got {seed!r}, a {type(seed).__name__}")
    found = operator.index(seed)
    if not LEAST <= found <= MOST:
        raise ValueError(f"got {found}")
    return found


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
