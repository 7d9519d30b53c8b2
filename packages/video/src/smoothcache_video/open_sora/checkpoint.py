"""Reading the weights of a checkpoint, wherever it is, and putting them into a model of ours."""

import json
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from smoothcache_core.errors import PipelineError
from smoothcache_core.pipelines.loading import first_line, quoted
from torch import Tensor, nn

_SAFE, _PICKLED = (".safetensors",), (".bin", ".pt", ".pth")
_KINDS = (
    "a folder, a file (.safetensors, .bin, .pt, .pth) or a name on the model hub ('owner/name')"
)


def read_checkpoint(source: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name. No code of a file is run.

    Args:
        source: A folder with one file of weights or the index of several, such a file, or a name on
            the model hub, from which weights are fetched if they are not here yet.

    Raises:
        PipelineError: There is no such checkpoint, or it holds something else than tensors.
    """
    place = _here(source)
    files = [place] if place.is_file() else _files_in(place)
    return {name: tensor for file in files for name, tensor in _tensors_in(file).items()}


def filled(model: nn.Module, weights: Mapping[str, Tensor], source: str | Path) -> Any:
    """Return a model with the weights of a checkpoint, in eval mode.

    Args:
        model: The model, on the meta device maybe: its tensors are replaced.
        weights: A tensor for each of the model's parameters and buffers, and no others.
        source: Where they are from, for the error.

    Raises:
        PipelineError: A name or a shape is another one.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = [
        f"{name!r} is {found[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    reasons = [
        _some((repr(n) for n in expected if n not in found), "missing"),
        _some((repr(n) for n in found if n not in expected), "not one of its parameters"),
        _some(wrong, ""),
    ]
    if any(reasons):
        raise PipelineError(
            f"checkpoint {str(source)!r} is not one of {type(model).__name__}: "
            f"{'; '.join(filter(None, reasons))}"
        )
    model.load_state_dict(dict(weights), assign=True)
    return model.eval()


def _some(names: Iterable[str], what: str) -> str:
    """Return the first of some names with what is wrong with it, and how many more there are."""
    first, *others = [*names, ""]
    if not first:
        return ""
    more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
    return f"{first} is {what}{more}" if what else f"{first}{more}"


# ---------------------------------------------------------------------- finding files


def _here(source: str | Path) -> Path:
    """Return the file or folder of a checkpoint, fetched from the model hub if it is a name."""
    path, name = Path(source).expanduser(), str(source)
    if path.exists():
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise PipelineError(f"there is no checkpoint {name!r}; give {_KINDS}")
    return _fetched(name)


def _fetched(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        for kinds in (_SAFE, _PICKLED):  # the second only where the first are not there
            patterns = [f"*{kind}{more}" for kind in kinds for more in ("", ".index.json")]
            folder = Path(snapshot_download(name, allow_patterns=patterns))
            if any(folder.glob(f"*{kind}") for kind in kinds):
                break
    except Exception as error:  # the hub's client and its transport have one each
        raise PipelineError(
            f"cannot load checkpoint {name!r} ({_KINDS}): {first_line(error)}"
        ) from error
    return folder


def _files_in(folder: Path) -> list[Path]:
    """Return the files of weights in a folder: what an index lists, else the only one."""
    for kind in (*_SAFE, *_PICKLED):
        index = sorted(folder.glob(f"*{kind}.index.json"))
        if index:
            return _listed(index[0])
    for kinds in (_SAFE, _PICKLED):
        files = sorted(file for file in folder.iterdir() if file.suffix in kinds)
        if len(files) == 1:
            return files
        if files:
            raise PipelineError(
                f"folder {str(folder)!r} has several files of weights and no index of them, "
                f"{quoted(file.name for file in files)}; give one of them"
            )
    raise PipelineError(f"folder {str(folder)!r} has no file of weights (.safetensors, .bin, .pt)")


def _listed(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise PipelineError(
            f"{str(index)!r} is no index of weights: {first_line(error)}"
        ) from error
    lacking = [name for name in names if not (index.parent / name).is_file()]
    if lacking:
        raise PipelineError(f"{str(index)!r} lists {quoted(lacking)}, which is not beside it")
    return [index.parent / name for name in names]


# ---------------------------------------------------------------------- reading one


def _tensors_in(file: Path) -> dict[str, Tensor]:
    if file.suffix not in (*_SAFE, *_PICKLED):
        raise PipelineError(f"{str(file)!r} is no checkpoint; give {_KINDS}")
    try:
        if file.suffix in _SAFE:
            return load_file(file)
        held = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PipelineError(
            f"{str(file)!r} holds more than tensors and is not read, as that would run its code"
        ) from error
    except Exception as error:  # a broken file makes torch's reader fail in many ways
        raise PipelineError(f"cannot read {str(file)!r}: {first_line(error)}") from error
    return _only_tensors(held, file)


def _only_tensors(held: object, file: Path) -> dict[str, Tensor]:
    """Return the tensors that a file holds, at its top or under the one name it has."""
    if isinstance(held, Mapping) and len(held) == 1:
        (only,) = held.values()
        held = only if isinstance(only, Mapping) else held
    if isinstance(held, Mapping) and all(isinstance(each, Tensor) for each in held.values()):
        return dict(held)
    raise PipelineError(f"{str(file)!r} does not hold tensors by name, as a checkpoint does")
