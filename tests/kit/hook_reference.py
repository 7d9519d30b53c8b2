"""What a cache must do, said again with plain forward hooks, and ways to look at a model."""

import inspect
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from smoothcache_core.adapters import Site
from torch import Tensor, nn

Tensors = tuple[Tensor, ...]


class HookedSite:
    """A forward hook that computes everything and gives earlier outputs where the row says reuse.

    It counts its own calls, so it holds for models that call every site once per evaluation.

    Attributes:
        reused: The tensors it gave instead of the computed ones.
    """

    def __init__(self, site: Site, row: Sequence[int], branches: int) -> None:
        self.site = site
        self.row = row
        self.branches = branches
        self.calls = 0
        self.kept: dict[int, Tensors] = {}
        self.reused: list[Tensors] = []

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        evaluation, branch = divmod(self.calls, self.branches)
        self.calls += 1
        single = isinstance(output, Tensor)
        outputs: Tensors = (output,) if single else output
        inputs = self._inputs(module, args, kwargs, outputs)
        if self.row[evaluation % len(self.row)]:
            self.kept[branch] = tuple(o - i for o, i in zip(outputs, inputs, strict=True))
            return output
        given = tuple(i + k for i, k in zip(inputs, self.kept[branch], strict=True))
        self.reused.append(given)
        return given[0] if single else given

    def _inputs(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Tensors
    ) -> Tensors:
        """Return what a delta is relative to: the named arguments, or zeros for a plain output."""
        if self.site.target == "output":
            return tuple(torch.zeros_like(output) for output in outputs)
        bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments
        return tuple(bound[name] for name in self.site.inputs)


@contextmanager
def hooked(
    model: nn.Module, sites: Sequence[Site], row: Sequence[int], *, branches: int = 1
) -> Generator[list[HookedSite]]:
    """Reuse outputs of `sites` by forward hooks; an evaluation has `branches` calls."""
    hooks = [HookedSite(site, row, branches) for site in sites]
    handles = [
        model.get_submodule(hook.site.path).register_forward_hook(hook, with_kwargs=True)
        for hook in hooks
    ]
    try:
        yield hooks
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def counted(model: nn.Module, sites: Sequence[Site]) -> Generator[Counter[tuple[str, int]]]:
    """Count the calls of the innermost modules of every site, keyed by (site path, module)."""
    calls: Counter[tuple[str, int]] = Counter()

    def counter(path: str, index: int) -> Any:
        return lambda *_: calls.update([(path, index)])

    handles = [
        leaf.register_forward_pre_hook(counter(site.path, index))
        for site in sites
        for index, leaf in enumerate(leaves(model.get_submodule(site.path)))
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def leaves(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules inside `module` that have no children."""
    return (inner for inner in module.modules() if not any(True for _ in inner.children()))


Snapshot = dict[str, tuple[type, dict[str, Any], dict[str, int]]]


def snapshot(model: nn.Module) -> Snapshot:
    """Return class, attributes and the contents of every dictionary attribute of every module."""
    return {
        name: (type(module), dict(vars(module)), _contents(module))
        for name, module in model.named_modules()
    }


def _contents(module: nn.Module) -> dict[str, int]:
    dictionaries = {name: value for name, value in vars(module).items() if isinstance(value, dict)}
    return {f"{name}.{key}": id(v) for name, d in dictionaries.items() for key, v in d.items()}


def assert_restored(model: nn.Module, before: Snapshot) -> None:
    """Assert that no class and no attribute differs from `before`."""
    after = snapshot(model)
    assert after.keys() == before.keys()
    for name, (kind, attributes, contents) in after.items():
        old_kind, old_attributes, old_contents = before[name]
        assert kind is old_kind, name
        assert attributes.keys() == old_attributes.keys(), name
        for key, value in attributes.items():
            assert value is old_attributes[key], f"{name}.{key}"
        assert contents == old_contents, name
