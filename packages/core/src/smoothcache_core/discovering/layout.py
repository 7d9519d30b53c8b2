"""Which modules of a denoiser are looked at: what stands in lists of blocks, as it was built."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn

CONTAINERS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)
"""What denoisers keep their blocks in."""

_UNCALLED = (nn.ModuleList, nn.ModuleDict)  # a Sequential is called as a module

NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
"""A segment of a path that is a number."""

_MATRIX = 2  # dimensions of the weight of a linear layer; a convolution or experts have more


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The modules of a denoiser that may be sites, or blocks with sites inside.

    Attributes:
        modules: All that are looked at, by their paths: what is in a list, and what is inside that.
        listed: Paths of those that are children of a list.
        layers: Paths of those that are a single layer, with one weight.
        shared: Paths that lead to a module with several paths.
    """

    modules: Mapping[str, nn.Module]
    listed: frozenset[str]
    layers: frozenset[str]
    shared: frozenset[str]


def layout_of(model: nn.Module) -> Layout:
    """Return the modules of a denoiser that may be sites, or blocks with sites inside.

    Args:
        model: The denoiser, not its compiled wrapper.
    """
    named = dict(model.named_modules(remove_duplicate=False))
    paths = Counter(id(module) for module in named.values())
    listed = {path for path in named if _is_listed(path, named)}
    sizes = {path: _matrices(named[path]) for path in _inside(named, listed)}
    return Layout(
        modules={path: named[path] for path, size in sizes.items() if size},
        listed=frozenset(listed & sizes.keys()),
        layers=frozenset(path for path, size in sizes.items() if size == 1),
        shared=frozenset(path for path in sizes if paths[id(named[path])] > 1),
    )


def parents(path: str) -> Iterator[str]:
    """Yield the paths of all modules that a module is inside of, the nearest first."""
    while "." in path:
        path = path.rpartition(".")[0]
        yield path


def general(path: str) -> str:
    """Return a path with `*` for every segment that is a number."""
    return NUMBER.sub("*", path)


def _is_listed(path: str, named: Mapping[str, nn.Module]) -> bool:
    """Whether a module is a child of a list, and no list itself."""
    if not path or isinstance(named[path], _UNCALLED):
        return False
    return isinstance(named[path.rpartition(".")[0]], CONTAINERS)


def _inside(named: Mapping[str, nn.Module], listed: set[str]) -> list[str]:
    """Return the paths of what is in a list, directly or deeper; lists are not called."""
    callable_ = (path for path, module in named.items() if not isinstance(module, _UNCALLED))
    return [p for p in callable_ if p in listed or any(each in listed for each in parents(p))]


def _matrices(module: nn.Module) -> int:
    """Return how many weights of layers a module has; what is put around a layer is one with it."""
    wrapped = dict(module.named_children()).get("base_layer")  # as PEFT puts LoRA around a layer
    if wrapped is not None:
        return _matrices(wrapped)
    own = [] if isinstance(module, nn.Embedding) else module.parameters(recurse=False)
    inside = sum(_matrices(child) for child in module.children())
    return inside + sum(parameter.dim() >= _MATRIX for parameter in own)
