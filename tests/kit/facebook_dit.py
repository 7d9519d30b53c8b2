"""Modules with the names of facebookresearch/DiT, around a small model: written for these tests."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from kit.image_models import DiT
from torch import Tensor


class Diffusion:
    """What facebook's `create_diffusion` gives, as far as it is sampled with here."""

    def __init__(self, respacing: str) -> None:
        self.timesteps = torch.linspace(999, 0, int(respacing)).round()

    def ddim_sample_loop(
        self, model: Any, shape: Any, noise: Tensor, *, model_kwargs: dict[str, Any], **_: Any
    ) -> Tensor:
        assert noise.shape == shape
        for timestep in self.timesteps:
            output = model(noise, timestep.expand(len(noise)), **model_kwargs)
            noise = noise - output[:, :4] / len(self.timesteps)
        return noise

    def p_sample_loop(
        self, model: Any, shape: Any, noise: Tensor, *, model_kwargs: dict[str, Any], **_: Any
    ) -> Tensor:
        assert noise.shape == shape
        for timestep in self.timesteps:
            output = model(noise, timestep.expand(len(noise)), **model_kwargs)
            noise = noise - output[:, :4] / len(self.timesteps) + 0.01 * torch.randn_like(noise)
        return noise


def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put the modules where they are imported from; return their model."""
    model = DiT()
    modules = {
        "models": {"DiT_models": {"DiT-XL/2": lambda **_: model}},
        "diffusion": {"create_diffusion": Diffusion},
        "download": {"find_model": lambda _: model.state_dict()},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return model
