"""The few things done to module outputs: a tensor, or a tuple of tensors, nested or not."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias, cast

import torch
from torch import Tensor

Output: TypeAlias = Tensor | tuple["Output | None", ...]
"""What a module gives. Tuples may be nested, as those of UNets' blocks, which give their hidden
states and a tuple of residuals."""


def is_output(value: object) -> bool:
    """Return whether `value` is a tensor or a plain tuple of outputs, where some may be None."""
    if type(value) is tuple:
        return all(item is None or is_output(item) for item in value)
    return isinstance(value, Tensor)


def is_flat(value: object) -> bool:
    """Return whether `value` is an output in which no tuple is nested in another."""
    return is_output(value) and not (type(value) is tuple and any(type(v) is tuple for v in value))


def map_tensors(function: Callable[[Tensor], Tensor], output: Output) -> Output:
    """Apply `function` to every tensor of `output`, keeping its structure."""
    if isinstance(output, Tensor):
        return function(output)
    return tuple(item if item is None else map_tensors(function, item) for item in output)


def detached(output: Output) -> Output:
    """Return `output` cut off from the autograd graph; what is no output is returned as it is."""
    if isinstance(output, Tensor):
        return output.detach()
    if type(output) is not tuple:
        return output
    return tuple(item if item is None else detached(item) for item in output)


def widened(tensors: Sequence[Tensor], weights: Sequence[float] | Tensor) -> Tensor:
    """Return the weighted sum of `tensors` in float32, or float64 if they are.

    Args:
        tensors: At least one, of one shape and of floating point.
        weights: The coefficient of each, (len(tensors),).
    """
    wide = torch.float64 if tensors[0].dtype == torch.float64 else torch.float32
    total = tensors[0].to(wide) * weights[0]
    for index in range(1, len(tensors)):
        total = total + tensors[index].to(wide) * weights[index]
    return total


def weighted(tensors: Sequence[Tensor], weights: Sequence[float] | Tensor) -> Tensor:
    """Return the weighted sum, added up in float32 or wider, in the data type of the tensors.

    Args:
        tensors: At least one, of one shape. If they are not of floating point the first is taken.
        weights: The coefficient of each, (len(tensors),).
    """
    first = tensors[0]
    if not first.is_floating_point():
        return first.clone()
    return widened(tensors, weights).to(first.dtype)


def blended(outputs: Sequence[Output], weights: Sequence[float] | Tensor) -> Output:
    """Return the weighted sum of outputs, tensor by tensor; None stays None."""
    if isinstance(outputs[0], Tensor):
        return weighted(cast(Sequence[Tensor], outputs), weights)
    columns = zip(*cast(Sequence[tuple[Output | None, ...]], outputs), strict=True)
    return tuple(
        None if column[0] is None else blended(cast(Sequence[Output], column), weights)
        for column in columns
    )


def scaled(output: Output, vectors: Sequence[Tensor]) -> Output:
    """Return an output scaled and shifted channel by channel, in float32 or wider on the way.

    Args:
        output: Its tensors have the channels last; those that are not of floating point are copied.
        vectors: For every tensor scales and shifts, (2, channels).
    """
    tensors = flat(output)
    return rebuilt(output, iter([_scaled(a, b) for a, b in zip(tensors, vectors, strict=True)]))


def _scaled(tensor: Tensor, vectors: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.clone()
    return (tensor.to(vectors.dtype) * vectors[0] + vectors[1]).to(tensor.dtype)


def cloned(output: Output, *, graph: bool = False) -> Output:
    """Return a copy of `output`; what is no output is returned as it is.

    Args:
        output: What is copied.
        graph: Whether gradients flow through the copy.
    """
    output = output if graph else detached(output)
    if isinstance(output, Tensor):
        return output.clone()
    return map_tensors(torch.clone, output) if type(output) is tuple else output


def version(output: Output) -> int:
    """Return how often the tensors of `output` were changed in place, which grows with each change.

    Tensors of inference mode do not count; there it is 0.
    """
    if not is_output(output):
        return 0
    tensors = [tensor for tensor in flat(output) if not tensor.is_inference()]
    return sum(tensor._version for tensor in tensors)


def flat(output: Output) -> tuple[Tensor, ...]:
    """Return the tensors of `output` in order."""
    if isinstance(output, Tensor):
        return (output,)
    return tuple(tensor for item in output if item is not None for tensor in flat(item))


def rebuilt(output: Output, tensors: Iterator[Tensor]) -> Output:
    """Return an output of the structure of `output` with other tensors.

    Args:
        output: What has the structure.
        tensors: As many as it has, in order.
    """
    if isinstance(output, Tensor):
        return next(tensors)
    return tuple(item if item is None else rebuilt(item, tensors) for item in output)


def nbytes(output: Output) -> int:
    """Return the bytes of all tensors of `output`."""
    return sum(tensor.numel() * tensor.element_size() for tensor in flat(output))


def floating_entries(tensors: Iterable[Tensor]) -> int:
    """Return the entries of those tensors that are of floating point."""
    return sum(tensor.numel() for tensor in tensors if tensor.is_floating_point())


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done everything asked of it; the CPU always has."""
    if device.type not in ("cpu", "meta"):  # torch refuses to synchronize what is no accelerator
        torch.accelerator.synchronize(device)
