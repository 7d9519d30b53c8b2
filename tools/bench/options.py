"""Options of benchmarks that are no plain values."""

import torch


def set_threads(threads: int) -> None:
    """Set torch's threads; 0 leaves them."""
    if threads:
        torch.set_num_threads(threads)


def dtype_of(name: str) -> torch.dtype:
    """Return a data type by its name.

    Raises:
        ValueError: There is none of this name.
    """
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"torch has no data type {name!r}; give float32, float16 or bfloat16")
    return found
