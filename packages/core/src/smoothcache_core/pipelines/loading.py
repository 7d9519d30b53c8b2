"""What loading a model has in common, whatever library it is loaded with."""

import textwrap
import warnings
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from smoothcache_core.errors import PipelineError

Dtype = Literal["auto", "float32", "float16", "bfloat16"]
"""Data types of weights by name."""


def device_named(name: str) -> torch.device:
    """Return the device of a name; `"auto"` is CUDA if there is any, else the CPU.

    Raises:
        PipelineError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise PipelineError(f"device {name!r} cannot be used: {first_line(error)}") from error
    return place


def dtype_named(
    name: Dtype, device: torch.device, *, accelerated: torch.dtype = torch.bfloat16
) -> torch.dtype:
    """Return the data type of a name.

    Args:
        name: `"auto"` is float32 on the CPU.
        device: Where the weights will be.
        accelerated: What `"auto"` is elsewhere.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else accelerated
    return {
        "float32": torch.float32,
        "float16": torch.float16,
        "bfloat16": torch.bfloat16,
    }[name]


def folder_or_name(model: str | Path, shipped: Iterable[str], *, folder: str) -> Path | str:
    """Return where a model is: a folder that exists, or a name on the model hub.

    Args:
        model: What a user gave.
        shipped: Names of the models that come with the package, for the error.
        folder: What a folder is called in the error.

    Raises:
        PipelineError: It is neither.
    """
    path, name = Path(model).expanduser(), str(model)
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise PipelineError(
            f"there is no model folder {name!r}; give a {folder}, a name on the model hub "
            f"('owner/name'), or one of {quoted(shipped)}"
        )
    return name


def quoted(names: Iterable[str]) -> str:
    """Return names in quotes, separated by commas."""
    return ", ".join(repr(name) for name in names)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, shortened; its class if it says nothing."""
    lines = str(error).strip().splitlines()
    return textwrap.shorten(lines[0], 240) if lines else type(error).__name__


@contextmanager
def quietly(*logs: Any) -> Generator[None]:
    """Load without the progress bars and the remarks of the libraries that load.

    Args:
        logs: Their modules of logging, as diffusers and transformers have one.
    """
    before = [(log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch_dtype is dtype from 0.42 on
            yield
    finally:
        for log, verbosity, bars in before:
            log.set_verbosity(verbosity)
            if bars:
                log.enable_progress_bar()
