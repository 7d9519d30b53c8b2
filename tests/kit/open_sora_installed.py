"""Stand-ins for installations of Open-Sora: modules of its names, with the doubles in them."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from kit.open_sora_upstream import RFLOW, MMDiTModel, STDiT3, TextEncoder, denoise, video_info
from torch import Tensor, nn


def _module(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    vars(module).update(__path__=[], **content)
    monkeypatch.setitem(sys.modules, name, module)


def _lively(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = kind()
    for parameter in model.parameters():
        if parameter.ndim > 1 and parameter.requires_grad:
            parameter.detach().normal_(std=0.15)
    return model


class Decoder(nn.Module):
    """Decodes by repeating entries of the latent, 8 pixels a side."""

    out_channels = 4

    def get_latent_size(self, input_size: Any) -> list[int]:
        frames, height, width = input_size
        return [-(-frames // 17) * 5, height // 8, width // 8]

    def decode(self, x: Tensor, num_frames: int | None = None) -> Tensor:
        pixels = x[:, :3].repeat_interleave(8, 3).repeat_interleave(8, 4)
        return pixels.repeat_interleave(4, 2)[:, :, :num_frames]


def install_version_1(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Install version 1.2; returns a list of what its registries are asked for."""
    asked: list[dict[str, Any]] = []
    words = TextEncoder(SimpleNamespace(y_embedder=None))
    vars(words).update(output_dim=12, model_max_length=5)
    parts = {
        "t5": lambda _: words,
        "OpenSoraVAE_V1_2": lambda _: Decoder(),
        "STDiT3-XL/2": lambda _: _lively(STDiT3),
        "rflow": lambda of: RFLOW(of["num_sampling_steps"], of["cfg_scale"]),
    }

    def build_module(settings: dict[str, Any], registry: object) -> Any:
        asked.append(settings)
        assert (settings["type"] == "rflow") == (registry == "schedulers")
        return parts[settings["type"]](settings)

    def info(kind: str, batch: int, size: Any, frames: int, *_: Any) -> dict[str, Tensor]:
        assert kind == "STDiT2"
        height, width = size
        return video_info(frames, height, width, batch)

    for name in ("opensora", "opensora.models", "opensora.models.text_encoder", "opensora.utils"):
        _module(monkeypatch, name)
    _module(
        monkeypatch,
        "opensora.registry",
        MODELS="models",
        SCHEDULERS="schedulers",
        build_module=build_module,
    )
    _module(monkeypatch, "opensora.models.text_encoder.t5", text_preprocessing=str.lower)
    _module(monkeypatch, "opensora.utils.inference_utils", prepare_multi_resolution_info=info)
    return asked


def install_version_2(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Install version 2.0; returns a list of what its sampling function is asked for."""
    asked: list[dict[str, Any]] = []
    config = SimpleNamespace(model={"in_channels": 16}, sampling_option={"method": "i2v"})

    class Config(dict[str, Any]):
        model, sampling_option = config.model, config.sampling_option

        @staticmethod
        def fromfile(_: str) -> "Config":
            return Config(motion_score="4")

    def prepare_api(model: Any, vae: Any, *_: Any) -> Any:
        def api(option: Any, kind: str, **given: Any) -> Tensor:
            asked.append({**vars(option), **given, "kind": kind})
            latent = denoise(model, given["seed"], steps=option.num_steps)
            return vae.decode(latent.reshape(1, 4, 3, 4, 4), num_frames=option.num_frames)

        return api

    for name in ("opensora", "opensora.utils", "mmengine"):
        _module(monkeypatch, name)
    _module(monkeypatch, "mmengine.config", Config=Config)
    _module(
        monkeypatch,
        "opensora.utils.sampling",
        prepare_models=lambda *_: (_lively(MMDiTModel).eval(), Decoder(), None, None, {}),
        prepare_api=prepare_api,
        SamplingOption=SimpleNamespace,
        sanitize_sampling_option=lambda option: option,
    )
    _module(
        monkeypatch,
        "opensora.utils.inference",
        add_fps_info_to_text=lambda texts, fps: [f"{text} {fps} FPS." for text in texts],
        add_motion_score_to_text=lambda texts, score: [f"{t} {score} motion score." for t in texts],
    )
    return asked
