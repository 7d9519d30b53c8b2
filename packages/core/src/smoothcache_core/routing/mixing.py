"""Mixing what sites give with what they gave before, by scores that have a gradient."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from smoothcache_core.adapters.sites import Site
from smoothcache_core.errors import RouterError
from smoothcache_core.outputs.tensors import Output, flat, is_output, rebuilt
from smoothcache_core.wrapping.site_modules import combined, named_inputs
from smoothcache_core.wrapping.sites import argument_indices


@dataclass
class Mixing:
    """Sites of a model whose outputs are mixed, while it is entered.

    Args:
        model: The denoiser, not compiled.
        sites: Whose outputs are mixed.

    Raises:
        RouterError: A site is a span of blocks, whose delta no single module gives.
    """

    model: nn.Module
    sites: Sequence[Site]
    _weights: Tensor | None = None
    _wanted: Sequence[bool] = ()
    _keeps: bool = False
    _branch: str = ""
    _inputs: dict[int, tuple[Tensor, ...]] = field(default_factory=dict[int, tuple[Tensor, ...]])
    _calls: list[int] = field(default_factory=list[int])
    _mixes: dict[int, tuple[Tensor, ...]] = field(default_factory=dict[int, tuple[Tensor, ...]])
    _kept: dict[tuple[str, int, int], tuple[Tensor, ...]] = field(
        default_factory=dict[tuple[str, int, int], tuple[Tensor, ...]]
    )

    def __post_init__(self) -> None:
        spans = [site.path for site in self.sites if site.last]
        if spans:
            raise RouterError(
                f"routers mix what one module gives, and at {spans[0]!r} begins a span of several; "
                "give an adapter of parts or blocks"
            )

    @contextmanager
    def entered(self) -> Generator[None]:
        """Hook all sites, and leave them as they were."""
        handles: list[RemovableHandle] = []
        try:
            for index, site in enumerate(self.sites):
                module = self.model.get_submodule(site.path)
                if site.target == "delta":
                    names = argument_indices(module, site, site.path)
                    before = self._before(index, names)
                    handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
                handles.append(module.register_forward_hook(self._hook(index)))
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.forget()

    def forget(self) -> None:
        """Drop what was kept: a run begins."""
        self._kept.clear()
        self.off()

    def off(self) -> None:
        """Leave outputs as they are, and keep none."""
        self._weights, self._keeps = None, False
        self._calls = [0] * len(self.sites)
        self._inputs.clear()
        self._mixes.clear()

    def keep(self, branch: str) -> None:
        """Leave outputs as they are, and keep all of them."""
        self.off()
        self._branch, self._keeps, self._wanted = branch, True, [True] * len(self.sites)

    def mix(self, branch: str, weights: Tensor, threshold: float) -> None:
        """Mix outputs with those kept, and keep what was mixed where its weight is large enough.

        Args:
            branch: The conditioning pass.
            weights: (sites,) in [0, 1]: 1 is the output, 0 what was kept.
            threshold: What the weight of an output that is kept exceeds.
        """
        self.keep(branch)
        self._weights = weights
        self._wanted = (weights.detach() > threshold).tolist()  # one wait, not one a site

    def _before(self, index: int, names: tuple[tuple[str, int], ...]) -> Any:
        """Return the hook that notes what a delta is relative to: a block may change its input."""

        def noted(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            del module
            if self._keeps:
                inputs = named_inputs(names, args, kwargs)
                self._inputs[index] = tuple(tensor.clone() for tensor in inputs)

        return noted

    def _hook(self, index: int) -> Any:
        def mixed(module: nn.Module, args: object, output: Any) -> Any:
            del module, args
            if not self._keeps:
                return None
            if not is_output(output):
                raise RouterError(
                    f"{self.sites[index].path!r} gives a {type(output).__name__}; only a tensor or "
                    "a tuple of tensors can be mixed"
                )
            inputs = self._inputs.pop(index, None)
            given = output if inputs is None else combined(torch.sub, output, inputs)
            made = self._mixed_again(index, given) if _recomputing() else self._mixed(index, given)
            if made is None:
                return None
            return made if inputs is None else combined(torch.add, inputs, made)

        return mixed

    def _mixed(self, index: int, output: Output) -> Output | None:
        """Return what an output, or a delta, is mixed to; None if it stays what it is."""
        key = self._branch, index, self._calls[index]
        self._calls[index] += 1
        before = self._kept.get(key)
        if self._weights is None or before is None:
            self._kept[key] = _copied(flat(output))
            return None
        self._mixes[index] = before
        parts = self._parts(index, output, before, self._weights)
        if self._wanted[index]:
            self._kept[key] = _copied(parts)
        return rebuilt(output, iter(parts))

    def _mixed_again(self, index: int, output: Output) -> Output | None:
        """Return what the forward pass made of an output, for gradient checkpointing."""
        if self._calls[index] > 1:
            raise RouterError(
                f"{self.sites[index].path!r} is called {self._calls[index]} times in an evaluation "
                "and recomputed for its gradient; switch gradient checkpointing off"
            )
        before = self._mixes.get(index)
        if before is None or self._weights is None:
            return None
        return rebuilt(output, iter(self._parts(index, output, before, self._weights)))

    @staticmethod
    def _parts(
        index: int, output: Output, before: Sequence[Tensor], weights: Tensor
    ) -> list[Tensor]:
        return [
            old + weights[index].to(new.dtype) * (new - old)
            for new, old in zip(flat(output), before, strict=True)
        ]


def _recomputing() -> bool:
    """Whether a backward pass is under way, in which a module is called only to be recomputed."""
    # what torch.utils.checkpoint itself looks at; torch has no public name for it
    return torch._C._current_graph_task_id() != -1  # pyright: ignore[reportPrivateUsage]


def _copied(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(tensor.detach().clone() for tensor in tensors)


def hard(scores: Tensor, threshold: float) -> Tensor:
    """Return 1 where a score exceeds a threshold, else 0, with the gradient of the score.

    The straight-through estimator (arXiv 1308.3432).

    Args:
        scores: (sites,) in [0, 1].
        threshold: In [0, 1).
    """
    decided = (scores > threshold).to(scores.dtype)
    return decided + scores - scores.detach()
