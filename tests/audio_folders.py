"""Tiny random audio models of real classes, saved as folders that load as any model does."""

import json
from pathlib import Path
from typing import Any

from audio_models import stable_audio_tools_config, stable_audio_tools_model
from safetensors.torch import save_model


def save_stable_audio_tools(folder: Path, **settings: Any) -> Path:
    """Save a class-conditional model of ten classes in the layout of stable-audio-tools.

    Args:
        folder: Where to.
        settings: See `audio_models.stable_audio_tools_config`.
    """
    folder.mkdir(parents=True)
    config = stable_audio_tools_config(**settings)
    (folder / "model_config.json").write_text(json.dumps(config))
    save_model(stable_audio_tools_model(**settings), str(folder / "model.safetensors"))
    return folder
