"""What loading a model has in common, whatever library it is loaded with."""

import textwrap
import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
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


def pipeline_place(package: str, shipped: Mapping[str, str], model: str | Path) -> Path | str:
    """Return where a pipeline is: a folder, or a name on the model hub.

    Args:
        package: Import name of the package.
        shipped: Folders inside its `data`, by the names of the models that come with it.
        model: What a user gave: one of these names, a folder, or a name on the hub.

    Raises:
        PipelineError: It is none of them, or the folder is no pipeline.
    """
    if str(model) in shipped:
        return shipped_folder(package, shipped, str(model))
    place = folder_or_name(model, shipped, folder="pipeline folder")
    if isinstance(place, Path) and not (place / "model_index.json").exists():
        raise PipelineError(f"{str(model)!r} is not a pipeline folder: it has no model_index.json")
    return place


def loaded_pipeline(
    loader: Any,
    model: str | Path,
    *,
    package: str,
    shipped: Mapping[str, str],
    device: str,
    dtype: Dtype,
    logs: Sequence[Any],
) -> Any:
    """Load a pipeline as diffusers does, onto a device.

    Args:
        loader: Class with a method `from_pretrained`.
        model: See `pipeline_place`, as for `package` and `shipped`.
        package: Import name of the package.
        shipped: Folders of the models that come with it.
        device: A torch device, or `"auto"`: CUDA if there is any, else the CPU.
        dtype: Data type of the weights; `"auto"` is float32 on the CPU and bfloat16 elsewhere.
        logs: Loggers that are kept quiet, see `load_diffusers`.

    Raises:
        PipelineError: There is no such model or device, or the model cannot be loaded.
    """
    place = device_named(device)
    source, kind = pipeline_place(package, shipped, model), dtype_named(dtype, place)
    with told_in_one_line(model, shipped):
        return load_diffusers(loader, source, dtype=kind, logs=logs).to(place)


def quoted(names: Iterable[str]) -> str:
    """Return names in quotes, separated by commas."""
    return ", ".join(repr(name) for name in names)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, shortened; its class if it says nothing."""
    lines = str(error).strip().splitlines()
    return textwrap.shorten(lines[0], 240) if lines else type(error).__name__


def shipped_folder(package: str, shipped: Mapping[str, str], model: str) -> Path:
    """Return the folder of a model that comes with a package.

    Args:
        package: Import name of the package.
        shipped: Folders inside its `data`, by the names of the models.
        model: Name of the model.

    Raises:
        PipelineError: No such model comes with the package.
    """
    if model not in shipped:
        raise PipelineError(f"the shipped models are {quoted(shipped)}, not {model!r}")
    return Path(str(resources.files(package) / "data" / shipped[model]))


@contextmanager
def told_in_one_line(
    model: str | Path, shipped: Iterable[str], *, library: str | None = None
) -> Generator[None]:
    """Say in one line that a model cannot be loaded, whatever the libraries raise.

    Args:
        model: What a user gave.
        shipped: Names of the models that come with the package.
        library: What it is loaded with, if there is a choice.

    Raises:
        PipelineError: It cannot.
    """
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:  # the libraries, the hub's client and its transport have one each
        by = "" if library is None else f" with {library}"
        raise PipelineError(
            f"cannot load model {str(model)!r}{by} (a folder, a name on the model hub, or one of "
            f"{quoted(shipped)}): {first_line(error)}"
        ) from error


def load_diffusers(
    loader: Any, source: str | Path, *, dtype: torch.dtype, logs: Sequence[Any]
) -> Any:
    """Load a pipeline in the manner of diffusers, without a word.

    Args:
        loader: Class with a method `from_pretrained`.
        source: A folder, or a name on the model hub.
        dtype: Data type of the weights.
        logs: Modules of logging of the libraries that load, which are to say nothing meanwhile.
    """
    with quietly(*logs):
        return loader.from_pretrained(
            str(source), torch_dtype=dtype, local_files_only=isinstance(source, Path)
        )


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
