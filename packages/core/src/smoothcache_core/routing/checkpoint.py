"""Checkpoints of router trainings, which hold tensors and numbers only."""

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from smoothcache_core.errors import RouterError
from smoothcache_core.files import write_atomically
from smoothcache_core.routing.router import Routers
from smoothcache_core.routing.settings import RouterSettings


class State(Protocol):
    """What is kept of a training."""

    routers: Routers
    optimizer: torch.optim.AdamW
    weights: Tensor
    update: int
    trajectory: int
    measured: int


_COUNTS = ("update", "trajectory", "measured")


def write_state(path: str | Path, state: State, settings: RouterSettings) -> None:
    """Write a training, in one step.

    Args:
        path: The file to write.
        state: How far it has come.
        settings: How it trains.
    """
    buffer = io.BytesIO()
    content: dict[str, Any] = {
        "routers": state.routers.routers.state_dict(),
        "opt": state.optimizer.state_dict(),
        "args": asdict(settings),
        "sites": [site.path for site in state.routers.sites],
        "weights": state.weights,
        **{name: getattr(state, name) for name in _COUNTS},
    }
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def read_state(path: str | Path, state: State, settings: RouterSettings) -> None:
    """Go on from a training that was written.

    Args:
        path: The file that was written.
        state: What is set to what was written.
        settings: How it is to train: as before, but for the number of updates.

    Raises:
        RouterError: The file is no such training, or one of another model or other settings.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        sites, old = list(saved["sites"]), dict(saved["args"])
    except (OSError, KeyError, TypeError, RuntimeError, ValueError, EOFError) as error:
        raise RouterError(f"{str(path)!r} is no training of routers: {error}") from None
    except Exception as error:  # torch raises what the bytes lead to
        said = str(error).splitlines()[0][:120]
        raise RouterError(f"{str(path)!r} is no training of routers: {said}") from None
    here = [site.path for site in state.routers.sites]
    if sites != here or len(saved["weights"]) != state.routers.evaluations:
        raise RouterError(
            f"{str(path)!r} trains routers of {len(sites)} sites and {len(saved['weights'])} "
            f"evaluations, not those of this model and run ({len(here)} and "
            f"{state.routers.evaluations})"
        )
    new = asdict(settings)
    old = {"on": RouterSettings.on} | old  # trainings of before knew samples only
    unlike = [key for key in new if key != "updates" and new[key] != old.get(key)]
    if unlike:
        said = ", ".join(f"{key} is {new[key]!r} instead of {old.get(key)!r}" for key in unlike)
        raise RouterError(f"{str(path)!r} was trained otherwise: {said}")
    state.routers.routers.load_state_dict(saved["routers"])
    state.optimizer.load_state_dict(saved["opt"])
    state.weights = saved["weights"]
    for name in _COUNTS:
        setattr(state, name, saved[name])
