"""Tiny random pipelines of videos, saved as folders that load as any model does."""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from kit.video_models import WAN_SIZE
from smoothcache_video.open_sora import OpenSoraPipeline, RectifiedFlowScheduler, STDiT3
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel, UMT5Config
from transformers.models.umt5.modeling_umt5 import UMT5EncoderModel

SIDE, FRAMES = 16, 3
"""Pixels and frames of what the pipelines make here."""

WORDS = ("<pad>", "</s>", "<unk>", "a", "seven", "two", "moving", "left", "up", "fox")


def save_open_sora(folder: Path) -> Path:
    """Save a pipeline of Open-Sora's kind; its autoencoder decodes frame by frame."""
    torch.manual_seed(0)
    denoiser = STDiT3(
        hidden_size=16,
        depth=2,
        num_heads=2,
        caption_channels=12,
        model_max_length=4,
        input_sq_size=SIDE,
    )
    encoder = T5EncoderModel(T5Config(**_TEXT))
    scheduler = RectifiedFlowScheduler(base_resolution=SIDE * SIDE)
    pipe = OpenSoraPipeline(tokenizer(), encoder.eval(), _pictures(), _lively(denoiser), scheduler)
    pipe.save_pretrained(folder)
    return folder


def save_wan(folder: Path) -> Path:
    """Save a pipeline whose guidance makes two calls, with an autoencoder of videos."""
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True], latents_mean=[0.1] * 4, latents_std=[1.2] * 4,
    )  # fmt: skip
    encoder: Any = UMT5EncoderModel(UMT5Config(**_TEXT)).eval()
    pipe = WanPipeline(
        tokenizer=tokenizer(),
        text_encoder=encoder,
        vae=vae.eval(),
        transformer=_lively(WanTransformer3DModel(**WAN_SIZE)),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    pipe.save_pretrained(folder)
    return folder


_TEXT: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "d_model": 12,
    "d_kv": 6,
    "d_ff": 16,
    "num_layers": 1,
    "num_heads": 2,
}


def tokenizer() -> Any:
    """Return a tokenizer of a few words."""
    words = {word: index for index, word in enumerate(WORDS)}
    made = Tokenizer(WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", pad_token="<pad>", eos_token="</s>"
    )


def _pictures() -> AutoencoderKL:
    settings: dict[str, Any] = {
        "block_out_channels": (8, 8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "scaling_factor": 0.5,
    }
    return AutoencoderKL(**settings).eval()


def _lively(model: Any) -> Any:
    """Return a model with weights that do something."""
    for parameter in nn.Module.parameters(model):
        if parameter.ndim > 1 and parameter.requires_grad:
            parameter.detach().normal_(std=0.2)
    return model.eval()
