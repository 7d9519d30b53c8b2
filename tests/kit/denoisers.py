"""Every denoiser class that diffusers exports, at tiny size: `denoisers.json` has configurations.

An entry is a class, what it is made with, and what it is called with: tensors by their shapes
(their entries are random), whole numbers and flags as they are. A class of a new diffusers that is
not there shows as untested.
"""

import copy
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import diffusers.models
import torch
from smoothcache_core import PatternAdapter, Sampler
from smoothcache_core.adapters import whole_evaluations
from smoothcache_core.adapters.sites import names_of
from torch import Tensor, nn

EVALUATIONS = 10

_FAMILIES = ("transformers", "unets")

NOT_DENOISERS: Mapping[str, str] = {
    "MiniMaxMusic3RVQDepthDecoder": "decodes tokens one after the other, and has no timestep",
    "MotionAdapter": "holds weights for a `UNetMotionModel`, and is not called",
    "UVit2DModel": "unmasks tokens (aMUSEd), and is told no timestep",
}
"""Classes that stand among the denoisers and are none."""


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """One class and how to call it.

    Attributes:
        name: Name of the class.
        config: What it is made with.
        inputs: What it is called with, as data.
        end: The largest timestep, 1000 or 1.
        latent: Name of its latent, where that is unusual.
        timestep: Name of its timestep, where that is unusual.
        reason: Why it is not tried, if it is not.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    inputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    end: int = 1000
    latent: str | None = None
    timestep: str | None = None
    reason: str = ""

    def model(self) -> nn.Module:
        """Return the model in eval mode, with no parameter left at zero."""
        torch.manual_seed(0)
        model = getattr(diffusers.models, self.name)(**self.config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.1)
        return model.requires_grad_(False)

    def adapter(self, model: nn.Module) -> PatternAdapter:
        """Return the adapter for whole evaluations."""
        return whole_evaluations(model, latent=self.latent, timestep=self.timestep)

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """What it is called with, but for latent and timestep, which `run` changes."""
        torch.manual_seed(0)
        return {name: _made(value) for name, value in self.inputs.items()}

    @torch.no_grad()
    def run(self, model: nn.Module, seed: int, evaluations: int = EVALUATIONS) -> Any:
        """Run Euler's method of so many steps, and return the final latent."""
        adapter = self.adapter(model)
        (name,) = names_of(adapter.latent)
        latent = _noise(self.arguments[name], seed)
        for step in range(evaluations):
            arguments = {**copy.deepcopy(self.arguments), name: latent}
            time = self.end * (1 - step / evaluations) * 0.9
            arguments[adapter.timestep] = _filled(arguments[adapter.timestep], time)
            latent = _moved(latent, _first(model(**arguments)), 1 / evaluations)
        return latent

    def sampler(self, model: nn.Module, adapter: PatternAdapter) -> Sampler:
        """Return a sampler of it; of a list of tensors the final latent is a batch."""

        def run(seed: int) -> Tensor:
            latent = self.run(model, seed)
            return latent if isinstance(latent, Tensor) else torch.stack(latent)

        (name,) = names_of(adapter.latent)
        latent = self.arguments[name]
        return Sampler(model=model, adapter=adapter, run=run, solver="euler", samples=len(latent))


def exported() -> list[str]:
    """Return the names of all denoiser classes that the installed diffusers exports."""
    found = {name: getattr(diffusers.models, name) for name in dir(diffusers.models)}
    return sorted(
        name
        for name, kind in found.items()
        if inspect.isclass(kind)
        and issubclass(kind, nn.Module)
        and kind.__module__.split(".")[2] in _FAMILIES
    )


def _read() -> dict[str, Denoiser]:
    known = json.loads(Path(__file__).with_suffix(".json").read_text())
    return {name: Denoiser(name=name, **fields) for name, fields in known.items()}


DENOISERS: Mapping[str, Denoiser] = _read()
"""All denoisers with a configuration, by the name of their class."""


# ---------------------------------------------------------------------------- values


def _made(value: Any) -> Any:
    """Return what an entry of `inputs` stands for."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "float":
        return torch.randn(content)
    if kind == "full":
        return torch.full(*content)
    if kind in ("int", "bool"):
        return torch.tensor(content)
    if kind == "dict":
        return {name: _made(item) for name, item in content.items()}
    return (tuple if kind == "tuple" else list)(map(_made, content))


def _noise(latent: Any, seed: int) -> Any:
    """Return noise in the layout of a latent, a tensor or a list of them."""
    random = torch.Generator().manual_seed(seed)
    if isinstance(latent, Tensor):
        return torch.randn(latent.shape, generator=random)
    return [torch.randn(each.shape, generator=random) for each in latent]


def _filled(timestep: Any, value: float) -> Any:
    if not isinstance(timestep, Tensor):
        return value
    return torch.full_like(timestep, value if timestep.is_floating_point() else int(value))


def _moved(latent: Any, output: Any, size: float) -> Any:
    """Return the latent after a step along the output, or of its part that is like it."""
    if isinstance(latent, list):
        return [_moved(one, other, size) for one, other in zip(latent, output, strict=True)]
    if output.shape == latent.shape:
        return latent - size * output
    if output.dim() == latent.dim() > 1 and len(output) == len(latent):
        small = [slice(min(a, b)) for a, b in zip(output.shape, latent.shape, strict=True)]
        moved = latent.clone()
        moved[tuple(small)] -= size * output[tuple(small)]
        return moved
    return latent * (1 - size)


def _first(output: Any) -> Any:
    """Return the prediction in what a denoiser returns: the first tensor, or the list of them."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        return _first(next(iter(output.values())))
    if isinstance(output, list) and all(isinstance(each, Tensor) for each in output):
        return output
    return _first(output[0])
