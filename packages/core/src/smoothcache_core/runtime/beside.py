"""What is called for the sake of a denoiser: put off where the evaluation is skipped.

A ControlNet is called before the denoiser, so whether its outputs will be used is only foreseen.
Where a skipped evaluation is foreseen it is given tensors of the right shape that hold nothing; if
the denoiser is called after all, the call is made then, and its outputs take their places among
the denoiser's arguments. So it costs nothing where it is not needed, and is exact where it is.
"""

import functools
from collections.abc import Callable, Hashable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

from smoothcache_core.calls.call import layout_of
from smoothcache_core.patching import undone_on_error
from smoothcache_core.wrapping.modules import Inner, layer

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a call."""


@dataclass(kw_only=True)
class _PutOff:
    """A call that was not made yet.

    Attributes:
        make: Makes the call and returns its outputs.
        given: What its caller was given in place of its outputs.
        made: Its outputs, in the same order, when it was made.
    """

    make: Callable[[], Any]
    given: list[Any]
    made: list[Any] | None = None

    def outputs(self) -> dict[int, Any]:
        """Return the outputs by the `id` of what stands for them; the call is made once."""
        if self.made is None:
            self.made = tree_flatten(self.make())[0]
        return {id(one): other for one, other in zip(self.given, self.made, strict=True)}


@dataclass(kw_only=True)
class _Known:
    """What is known of one module that is called beside the denoiser.

    Attributes:
        inputs: Shapes and data types of its last call that was made.
        form: Structure of its outputs.
        outputs: Those of its last call, until the denoiser is called.
        shapes: What is remembered of their forms.
        handed_on: Whether the denoiser is given them as they are; false before that was seen.
        put_off: Calls that were put off, by run.
    """

    inputs: Hashable = None
    form: TreeSpec | None = None
    outputs: list[Any] = field(default_factory=list[Any])
    shapes: list[Any] = field(default_factory=list[Any])
    handed_on: bool = False
    put_off: dict[Hashable, _PutOff] = field(default_factory=dict[Hashable, _PutOff])


class Beside:
    """Stands around modules that are called for the sake of a denoiser.

    Args:
        modules: What is called before the denoiser.
        foresee: Returns the run that a call belongs to, and whether its next evaluation is skipped.

    Attributes:
        changes: What was put around the modules; `undo` takes it off.
    """

    def __init__(
        self, modules: Sequence[nn.Module], foresee: Callable[[], tuple[Hashable, bool]]
    ) -> None:
        self._foresee = foresee
        self._known = [_Known() for _ in modules]
        with undone_on_error() as self.changes:
            for index, module in enumerate(modules):
                self.changes.add(layer(module, self._around, index))

    def _around(self, inner: Inner, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        known = self._known[inner.member]
        run, skipped = self._foresee()
        known.put_off.pop(run, None)
        inputs = layout_of(args, kwargs)
        if skipped and known.handed_on and known.form is not None and inputs == known.inputs:
            given = [_stand_in(each) for each in known.shapes]
            make = functools.partial(inner, *args, **kwargs)
            known.put_off[run] = _PutOff(make=make, given=given)
            return tree_unflatten(given, known.form)
        output = inner(*args, **kwargs)
        known.inputs = inputs
        known.outputs, known.form = tree_flatten(output)
        known.shapes = [_shape(each) for each in known.outputs]
        return output

    def settled(self, arguments: Arguments, run: Hashable, *, called: bool) -> Arguments:
        """Return the arguments of a call of the denoiser, with all outputs in their places.

        Args:
            arguments: Positional and keyword arguments, as the caller gave them.
            run: The run that the call belongs to.
            called: Whether the denoiser is called; else nothing is needed.
        """
        if not self._known:
            return arguments
        given = {id(leaf) for leaf in tree_flatten(arguments)[0]}
        for known in self._known:
            self._see(known, given)
            put_off = known.put_off.get(run)
            if called and put_off is not None and any(id(one) in given for one in put_off.given):
                arguments = _replaced(arguments, put_off.outputs())
        return arguments

    def _see(self, known: _Known, given: Set[int]) -> None:
        """Note whether the denoiser is given the outputs of a module as they are."""
        if not known.outputs:
            return
        tensors = [each for each in known.outputs if isinstance(each, Tensor)]
        known.handed_on = bool(tensors) and all(id(each) in given for each in tensors)
        known.outputs = []

    def forget(self) -> None:
        """Drop what was put off; runs are over."""
        for known in self._known:
            known.put_off.clear()
            known.outputs = []


def _shape(output: Any) -> Any:
    """Return what is remembered of an output: of a tensor its form, of anything else itself."""
    if not isinstance(output, Tensor):
        return output
    return torch.empty(output.shape, dtype=output.dtype, device="meta"), output.device


def _stand_in(shape: Any) -> Any:
    """Return a tensor that takes no memory, and stands for an output of a known shape."""
    if not isinstance(shape, tuple):
        return shape
    form, device = shape
    return torch.zeros((), dtype=form.dtype, device=device).expand(form.shape)


def _replaced(arguments: Arguments, outputs: dict[int, Any]) -> Arguments:
    """Put outputs in the places of what stands for them."""
    return tree_map(lambda leaf: outputs.get(id(leaf), leaf), arguments)
