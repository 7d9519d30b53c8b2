"""The progress bar of a calibration, which also counts calls of the model inside a run."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from torch import nn
from tqdm import tqdm

from smoothcache_core.wrapping.modules import layered

_SECONDS = 0.2  # between two pictures of the bar; nobody reads faster


@contextmanager
def counting_calls(model: nn.Module, bar: tqdm) -> Generator[None]:
    """Show in `bar` how often the model was called, since a run with sensitivities takes long.

    Args:
        model: The denoiser that is calibrated.
        bar: A bar of runs; nothing is done if it is disabled.
    """
    if bar.disable:
        yield
        return
    calls, shown = 0, 0.0

    def count(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal calls, shown
        calls += 1
        if time.monotonic() - shown > _SECONDS:
            shown = time.monotonic()
            bar.set_postfix_str(f"{calls} calls of the model")
        return call(*args, **kwargs)

    with layered(model, count):
        yield
