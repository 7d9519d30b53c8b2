"""A tiny random T5 encoder with a tokenizer of whole words, saved as a folder of transformers."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel


def save_text_encoder(
    folder: Path, *, width: int, words: Sequence[str] = ("rain", "dog", "a"), longest: int = 6
) -> Path:
    """Save an encoder of so many channels, for texts of so many words at most."""
    torch.manual_seed(1)
    numbers = {word: index for index, word in enumerate(("[UNK]", "[PAD]", *words))}
    tokenizer = Tokenizer(WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    config = T5Config(
        vocab_size=8, d_model=width, d_kv=4, d_ff=16, num_layers=1, num_heads=2, use_cache=False
    )
    T5EncoderModel(config).eval().save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", model_max_length=longest
    ).save_pretrained(folder)
    return folder
