"""A tiny random CLAP network, saved as a folder in the layout of `laion/clap-htsat-fused`."""

from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer


def save_clap(folder: Path) -> Path:
    """Save the network, its tokenizer and its feature extractor."""
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet())]
    vocabulary = {name: index for index, name in enumerate(names)}
    RobertaTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    ClapFeatureExtractor().save_pretrained(folder)
    config = ClapConfig(
        text_config={
            "vocab_size": len(vocabulary), "hidden_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 64,
            "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "projection_dim": 8,
        },
        audio_config={
            "enable_fusion": True, "depths": [1, 1], "num_attention_heads": [1, 2],
            "patch_embeds_hidden_size": 8, "hidden_size": 16, "projection_dim": 8,
            "aff_block_r": 2,
        },
        projection_dim=8,
    )  # fmt: skip
    torch.manual_seed(0)
    ClapModel(config).save_pretrained(folder)
    return folder
