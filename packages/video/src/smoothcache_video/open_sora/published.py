"""The published Open-Sora v1.2: its checkpoints as models of ours, and the pipeline of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from smoothcache_core.errors import PipelineError
from smoothcache_core.pipelines.loading import first_line, quietly
from torch import Tensor

from smoothcache_video.open_sora.autoencoder import AutoencoderKLOpenSora
from smoothcache_video.open_sora.checkpoint import filled, read_checkpoint
from smoothcache_video.open_sora.pipeline import OpenSoraPipeline
from smoothcache_video.open_sora.scheduler import RectifiedFlowScheduler
from smoothcache_video.open_sora.stdit3 import STDiT3

DENOISER = "hpcai-tech/OpenSora-STDiT-v3"
AUTOENCODER = "hpcai-tech/OpenSora-VAE-v1.2"
TEXT_ENCODER = "DeepFloyd/t5-v1_1-xxl"
"""Names of the published parts on the model hub, as upstream's own settings have them."""


def load_denoiser(
    source: str | Path = DENOISER, *, dtype: torch.dtype | None = None, **settings: Any
) -> STDiT3:
    """Load a checkpoint of upstream's `STDiT3`, of any size: its shapes say which.

    Args:
        source: A folder, a file or a name on the model hub.
        dtype: Data type of the weights; that of the checkpoint if not given.
        settings: Settings of `STDiT3` that shapes do not say, such as `input_sq_size`.

    Raises:
        PipelineError: There is no such checkpoint, or a parameter is missing or surplus.
    """
    weights = read_checkpoint(source)
    sizes = _sizes_of_denoiser(_Shapes(weights, source, STDiT3.__name__))
    with torch.device("meta"):
        model = STDiT3(**sizes | settings)
    return filled(model, _in(weights, dtype), source)


def load_autoencoder(
    source: str | Path = AUTOENCODER, *, dtype: torch.dtype | None = None, **settings: Any
) -> AutoencoderKLOpenSora:
    """Load a checkpoint of upstream's `OpenSoraVAE_V1_2`, of any size: its shapes say which.

    Args:
        source: A folder, a file or a name on the model hub.
        dtype: Data type of the weights; that of the checkpoint if not given.
        settings: Settings of `AutoencoderKLOpenSora` that shapes do not say, such as
            `micro_frame_size`.

    Raises:
        PipelineError: There is no such checkpoint, or a parameter is missing or surplus.
    """
    weights = read_checkpoint(source)
    sizes = _sizes_of_autoencoder(_Shapes(weights, source, AutoencoderKLOpenSora.__name__))
    with torch.device("meta"):
        model = AutoencoderKLOpenSora(**sizes | settings)
    config: Any = model.config  # upstream has these two in its settings as well
    settled = {"scale": _by_channel(config.latents_std), "shift": _by_channel(config.latents_mean)}
    return filled(model, _in(settled | weights, dtype), source)


def load_published(
    denoiser: str | Path = DENOISER,
    autoencoder: str | Path | None = AUTOENCODER,
    text_encoder: str | Path | None = TEXT_ENCODER,
    *,
    dtype: torch.dtype = torch.bfloat16,
) -> OpenSoraPipeline:
    """Load the published Open-Sora v1.2 as a pipeline, on the CPU.

    Example:
        Fetched from the model hub, 27 GB::

            pipe = load_published().to("cuda")
            frames = pipe("a lighthouse at night", height=240, width=424, num_frames=51).frames

    Args:
        denoiser: Checkpoint of the denoiser: a folder, a file or a name on the model hub.
        autoencoder: Checkpoint of the video autoencoder; None leaves it out, for latents only.
        text_encoder: T5 encoder and its tokenizer, a folder of transformers or a name on the model
            hub; None leaves them out, for texts given as embeddings.
        dtype: Data type of all weights.

    Raises:
        PipelineError: A part cannot be loaded, or a parameter is missing or surplus.
    """
    transformer = load_denoiser(denoiser, dtype=dtype)
    vae = None if autoencoder is None else load_autoencoder(autoencoder, dtype=dtype)
    tokenizer, encoder = (
        (None, None) if text_encoder is None else _text_encoder(text_encoder, dtype)
    )
    return OpenSoraPipeline(tokenizer, encoder, vae, transformer, RectifiedFlowScheduler())


def _text_encoder(source: str | Path, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoTokenizer, T5EncoderModel
    from transformers.utils import logging as transformers_log

    try:
        with quietly(transformers_log):
            tokenizer = AutoTokenizer.from_pretrained(str(source))
            encoder = T5EncoderModel.from_pretrained(str(source), dtype=dtype)
    except Exception as error:  # transformers, the hub's client and its transport have one each
        raise PipelineError(
            f"cannot load text encoder {str(source)!r} (a folder of transformers, or a name on the "
            f"model hub): {first_line(error)}"
        ) from error
    return tokenizer, encoder.eval()


def _by_channel(numbers: Any) -> Tensor:
    return torch.tensor(numbers)[None, :, None, None, None]


def _in(weights: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in weights.items()
    }


# ---------------------------------------------------------------------- sizes


class _Shapes:
    """The shapes in a checkpoint, which say how large the model is.

    Args:
        weights: Its tensors by name.
        source: Where they are from, for the error.
        model: Name of the model, likewise.
    """

    def __init__(self, weights: Mapping[str, Tensor], source: str | Path, model: str) -> None:
        self._weights, self._source, self._model = weights, source, model

    def __getitem__(self, name: str) -> tuple[int, ...]:
        if name not in self._weights:
            raise PipelineError(
                f"checkpoint {str(self._source)!r} is not one of {self._model}: {name!r} is missing"
            )
        return tuple(self._weights[name].shape)

    def __contains__(self, name: str) -> bool:
        return name in self._weights

    def count(self, name: str) -> int:
        """Return how many numbers, from 0 without a gap, the star in a name may be."""
        number = 0
        while name.replace("*", str(number)) in self._weights:
            number += 1
        return number


def _sizes_of_denoiser(shapes: _Shapes) -> dict[str, Any]:
    channels, in_channels, *patch = shapes["x_embedder.proj.weight"]
    (frequencies,) = shapes["rope.freqs"]
    words, text_channels = shapes["y_embedder.y_embedding"]
    out = shapes["final_layer.linear.weight"][0]
    return {
        "in_channels": in_channels,
        "hidden_size": channels,
        "depth": shapes.count("spatial_blocks.*.attn.qkv.weight"),
        "num_heads": channels // (2 * frequencies),
        "patch_size": tuple(patch),
        "mlp_ratio": shapes["spatial_blocks.0.mlp.fc1.weight"][0] / channels,
        "pred_sigma": out == 2 * in_channels * patch[0] * patch[1] * patch[2],
        "caption_channels": text_channels,
        "model_max_length": words,
        "qk_norm": "spatial_blocks.0.attn.q_norm.weight" in shapes,
    }


def _sizes_of_autoencoder(shapes: _Shapes) -> dict[str, Any]:
    spatial, temporal = "spatial_vae.module.encoder.down_blocks", "temporal_vae.encoder"
    levels = shapes.count(f"{spatial}.*.resnets.0.conv1.weight")
    filters = shapes[f"{temporal}.conv_in.conv.weight"][0]
    block = f"{temporal}.block_res_blocks.*.0.conv1.conv.weight"
    wider = [shapes[block.replace("*", str(n))][0] // filters for n in range(shapes.count(block))]
    return {
        "latent_channels": shapes["temporal_vae.post_quant_conv.conv.weight"][0],
        "block_out_channels": tuple(
            shapes[f"{spatial}.{level}.resnets.0.conv1.weight"][0] for level in range(levels)
        ),
        "layers_per_block": shapes.count(f"{spatial}.0.resnets.*.conv1.weight"),
        "filters": filters,
        "channel_multipliers": tuple(wider),
        "temporal_downsample": tuple(
            f"{temporal}.conv_blocks.{level}.conv.weight" in shapes
            for level in range(len(wider) - 1)
        ),
        "num_res_blocks": shapes.count(f"{temporal}.res_blocks.*.conv1.conv.weight"),
    }
