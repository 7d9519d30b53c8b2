"""A denoiser that is no torch module: a function, an exported program, a session of a runtime."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from smoothcache_core.arguments import described
from smoothcache_core.errors import AdapterError
from smoothcache_core.outputs.structures import Structure


class FunctionDenoiser(nn.Module):
    """A module that calls a function, so that its calls can be recorded, answered and skipped.

    Give it to the sampler in place of the function. It has no parameters and no sites, so whole
    evaluations are what can be skipped of it. What it gives is copied, as engines write every
    output to the same memory.

    Example:
        A denoiser as k-diffusion calls it:

        >>> from smoothcache_core.adapters import whole_evaluations
        >>> def denoised(x, sigma, **extra):
        ...     return x / (1 + sigma.reshape(-1, 1) ** 2)
        >>> denoiser = FunctionDenoiser(denoised)
        >>> adapter = whole_evaluations(denoiser)
        >>> adapter.latent, adapter.timestep
        ('x', 'sigma')

    Args:
        function: What is called, with whatever the sampler gives. It gives a tensor of the latent's
            shape, or something that holds one.
        arguments: Names of what it takes, in their order; those of its signature if not given.
        name: What fingerprints and reports call the model; the function's own name if not given.
        like: The torch module that it was made of, exported or compiled to an engine. Schedules of
            the one are then good for the other; and attributes that a pipeline asks for, `config`
            and `dtype`, are those of this module. It is never called, and may be on the device
            `"meta"`.

    Attributes:
        name: What fingerprints and reports call it.
        like: The torch module that it was made of, if given.

    Raises:
        AdapterError: It cannot be called or is a module already, or nothing says what it takes.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        arguments: Sequence[str] = (),
        name: str = "",
        like: nn.Module | None = None,
    ) -> None:
        super().__init__()
        _check(function)
        known = getattr(function, "__qualname__", type(function).__name__)
        # plain entries: neither may become a submodule
        vars(self).update(
            function=function,
            name=name or known.rpartition(".")[2],
            like=like,
            __signature__=_signature(function, arguments),
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, and return a copy of what it gives."""
        given = Structure.of(self.function(*args, **kwargs))
        return given.copied(graph=torch.is_grad_enabled()).output()

    def extra_repr(self) -> str:
        """Name what is called."""
        return self.name

    def __getattr__(self, name: str) -> Any:
        """Return what the module that it was made of has, but for what is private of that."""
        like = vars(self).get("like")
        if like is None or name.startswith("_"):
            return super().__getattr__(name)
        return getattr(like, name)


def _check(function: Any) -> None:
    if isinstance(function, nn.Module):
        raise AdapterError(
            f"this {type(function).__name__} is a torch module; give it to the sampler as it is"
        )
    program = isinstance(function, ExportedProgram)  # which has a `__call__` that refuses
    if program or not callable(function):
        hint = "give its module: program.module()" if program else "write a function that calls it"
        raise AdapterError(f"a denoiser is called, but {described(function)} cannot be; {hint}")


def _signature(function: Callable[..., Any], arguments: Sequence[str]) -> inspect.Signature:
    """Return what a function takes, by its own word or by the names that were given."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    if arguments:
        return inspect.Signature([inspect.Parameter(name, kind) for name in arguments])
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:  # functions of C
        raise AdapterError(
            f"nothing says what {described(function)} takes; name it, such as "
            "FunctionDenoiser(function, arguments=('x', 'sigma'))"
        ) from error
