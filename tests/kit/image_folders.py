"""Tiny random pipelines of real classes, saved as folders that load as any model does."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.models.transformers.transformer_lumina2 import Lumina2Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.dit.pipeline_dit import DiTPipeline
from diffusers.pipelines.lumina2.pipeline_lumina2 import Lumina2Pipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
    StableDiffusionPipeline,
)
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
)

CLASSES = {0: "fox", 1: "hen, chicken", 2: "owl"}
PIXELS = 16
SIZE = 64
"""Size to ask the text-conditional pipeline for; its autoencoder then gives 16 x 16 pixels."""


def save_dit(folder: Path, *, layers: int = 2, clip: bool = False) -> Path:
    """Save a class-conditional pipeline of three classes; its pictures have 16 x 16 pixels.

    With `clip`, its solver clips what it predicts, and is not affine.
    """
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=layers,
        sample_size=8,
    )
    scheduler: Any = DDIMScheduler(clip_sample=clip)
    pipe = DiTPipeline(_random(transformer), _autoencoder(), scheduler)
    pipe.save_pretrained(folder)
    index = folder / "model_index.json"  # save_pretrained forgets the names of the classes
    index.write_text(json.dumps({**json.loads(index.read_text()), "id2label": CLASSES}))
    return folder


def save_lumina2(folder: Path) -> Path:
    """Save a text-conditional, flow-matching pipeline whose guidance makes two calls."""
    torch.manual_seed(0)
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=24,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(300, 16, 16),
        cap_feat_dim=12,
    )
    encoder = Gemma2Model(
        Gemma2Config(
            vocab_size=8,
            hidden_size=12,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=6,
        )
    )
    pipe = Lumina2Pipeline(
        transformer=_random(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_autoencoder(),
        text_encoder=encoder.eval(),
        tokenizer=_tokenizer(),
    )
    pipe.save_pretrained(folder)
    return folder


def stable_diffusion() -> StableDiffusionPipeline:
    """Return a text-conditional pipeline with a UNet, which no package has an adapter for."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=12,
        norm_num_groups=4,
    )
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=8,
            hidden_size=12,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=4,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    scheduler: Any = DDIMScheduler(clip_sample=False, steps_offset=1)
    unchecked: dict[str, Any] = {"safety_checker": None, "feature_extractor": None}
    return StableDiffusionPipeline(
        vae=_autoencoder(),
        text_encoder=encoder.eval(),
        tokenizer=_tokenizer(model_max_length=4),
        unet=_random(unet),
        scheduler=scheduler,
        requires_safety_checker=False,
        **unchecked,
    )


def _tokenizer(**settings: Any) -> Any:
    words = {word: index for index, word in enumerate(("[UNK]", "[PAD]", "fox", "hen", "owl"))}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", **settings
    )


def _autoencoder() -> AutoencoderKL:
    torch.manual_seed(1)
    settings: dict[str, Any] = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "sample_size": PIXELS,
        "scaling_factor": 0.5,
        "shift_factor": 0.1,
    }
    return AutoencoderKL(**settings).eval()


def _random(model: Any) -> Any:
    """Leave no parameter at zero, so that every site matters."""
    with torch.no_grad():
        for parameter in nn.Module.parameters(model):
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model.eval()
