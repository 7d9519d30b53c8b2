"""Loading a diffusers pipeline of videos. Nothing heavy is loaded before a call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from smoothcache_core.pipelines.loading import Dtype

MOVING_DIGITS = "moving-digits"
SHIPPED: Mapping[str, str] = MappingProxyType({MOVING_DIGITS: "moving-digits"})
"""The small model that comes with this package, by name, and the folder it is in."""

SHIPPED_GUIDANCE = 2.0
"""Guidance that the shipped model looks best with."""

OPEN_SORA_PIPELINE = "OpenSoraPipeline"
"""The class of pipelines that is this package's own, by its name in `model_index.json`."""


def shipped_folder(model: str = MOVING_DIGITS) -> Path:
    """Return the pipeline folder of a shipped model.

    Raises:
        PipelineError: No such model comes with this package.
    """
    from smoothcache_core.pipelines import loading

    return loading.shipped_folder("smoothcache_video", SHIPPED, model)


def load_pipeline(
    model: str | Path = MOVING_DIGITS, *, device: str = "auto", dtype: Dtype = "auto"
) -> DiffusionPipeline:
    """Load a pipeline of videos as diffusers does, or Open-Sora's, onto a device.

    Example:
        >>> pipe = load_pipeline("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")

    Args:
        model: `"moving-digits"` (the shipped model), a pipeline folder, or a name on the model hub.
        device: A torch device, or `"auto"`: CUDA if there is any, else the CPU.
        dtype: Data type of the weights; `"auto"` is float32 on the CPU and bfloat16 elsewhere.

    Raises:
        PipelineError: There is no such model or device, or the pipeline cannot be loaded.
    """
    from diffusers.utils import logging as diffusers_log
    from smoothcache_core.pipelines.loading import loaded_pipeline
    from transformers.utils import logging as transformers_log

    return loaded_pipeline(
        _ByClass,
        model,
        package="smoothcache_video",
        shipped=SHIPPED,
        device=device,
        dtype=dtype,
        logs=(diffusers_log, transformers_log),
    )


class _ByClass:
    """Loads what a folder says that it is: a pipeline of diffusers, or Open-Sora's."""

    @staticmethod
    def from_pretrained(source: str, *, local_files_only: bool, **options: Any) -> Any:
        """Load a pipeline.

        Args:
            source: A folder, or a name on the model hub.
            local_files_only: Whether nothing may be downloaded.
            options: Whatever else diffusers is told.
        """
        from diffusers.pipelines.pipeline_utils import DiffusionPipeline

        config: Any = DiffusionPipeline.load_config(source, local_files_only=local_files_only)
        kind: Any = DiffusionPipeline
        if config["_class_name"] == OPEN_SORA_PIPELINE:
            from smoothcache_video.open_sora import OpenSoraPipeline as kind
        return kind.from_pretrained(source, local_files_only=local_files_only, **options)
