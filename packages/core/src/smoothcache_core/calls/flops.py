"""Counting FLOPs: torch's counter, with attention on CPUs and products of integers counted too."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

_ATTENTION = (
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_efficient_attention,
    torch.ops.aten._scaled_dot_product_cudnn_attention,
)


def flop_counter() -> FlopCounterMode:
    """Return torch's flop counter, taught what it omits or refuses.

    That is the attention kernel of CPUs, keys and values of fewer heads than the queries, and the
    product of matrices of integers, which quantised activations take.
    """
    omitted = {torch.ops.aten._int_mm: _product_flops}
    return FlopCounterMode(
        display=False, custom_mapping=dict.fromkeys(_ATTENTION, _attention_flops) | omitted
    )


def _product_flops(one: Sequence[int], other: Sequence[int], **kwargs: Any) -> int:
    del kwargs
    return 2 * one[0] * one[1] * other[1]


def _attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *args: Any, **kwargs: Any
) -> int:
    del args, kwargs
    heads = query[1]
    return sdpa_flop_count(query, (key[0], heads, *key[2:]), (value[0], heads, *value[2:]))
