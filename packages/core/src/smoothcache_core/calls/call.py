"""What one call of the denoiser tells without waiting for the device."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import keystr, tree_flatten_with_path

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.adapters.signature import argument_names, latent_and_timestep
from smoothcache_core.adapters.sites import Adapter, names_of
from smoothcache_core.calls.guidance import announced_guidance, guidance_in
from smoothcache_core.errors import AdapterError, SamplerError
from smoothcache_core.outputs.latents import Latents
from smoothcache_core.relay import members_of

Layout = tuple[tuple[tuple[int, ...], str, str], ...]
"""Shape, dtype and device of each latent tensor."""


_SKIPPING = "skip_layers"
"""Argument by which diffusers' denoisers leave layers out, in calls of skip-layer guidance."""


_SKIPS = (
    f"the denoiser is called with `{_SKIPPING}`: skip-layer guidance makes further calls in a part "
    "of the steps, without some of the layers, which no schedule can have; sample without it "
    "(no `skip_guidance_layers`)"
)


@dataclass(frozen=True)
class Announced:
    """What a pipeline says of the calls that follow, by `cache_context` of diffusers.

    Attributes:
        name: Name of the conditioning pass.
        step: Number of the step in its loop, from 0; None if it says none.
        steps: How many there are; None if it says none.
    """

    name: str
    step: int | None = None
    steps: int | None = None


@dataclass(frozen=True, kw_only=True)
class Call:
    """Evidence about one call of the denoiser.

    Attributes:
        layout: Shape, dtype and device of the latent.
        timestep: Its value if the host knows it; None for a timestep on an accelerator. Where each
            token or frame has one, the largest: given ones, as of a first frame, have 0.
        progress: What runs from one end to the other in a run: the timestep, or the mean of those
            of all tokens, whose largest may stay the same for a while; None like `timestep`.
        position: Storage pointer and offset of the timestep tensor, if it is one: most pipelines
            pass views of one tensor of timesteps, which gives the place in it at no cost.
        tensor: The timestep tensor itself, if it is one.
        context: Name of the conditioning pass, if the pipeline announced it.
        step: Number of the step in the pipeline's loop, if it was announced.
        steps: How many steps there are, if that was announced.
        guidance: Strengths of guidance by name, announced by the caller or among the arguments.
        variant: What besides the latent decides on the layout inside the denoiser, as the adapter
            says it.
        others: Shapes and data types of all other tensors among the arguments, and the texts and
            flags: where they change, so does the layout inside, or what is computed.
        member: Which of the denoisers that take turns is called, from 0; 0 where there is one.
    """

    layout: Layout
    timestep: float | None = None
    progress: float | None = None
    position: tuple[int, int] | None = None
    tensor: Tensor | None = None
    context: str | None = None
    step: int | None = None
    steps: int | None = None
    guidance: Mapping[str, float] = field(default_factory=dict[str, float])
    variant: Hashable = None
    others: Hashable = None
    member: int = 0

    @property
    def inside(self) -> Hashable:
        """What decides on the layout inside the denoiser."""
        return self.layout, self.variant, self.others

    @property
    def batch(self) -> int:
        """Rows of the latent, 0 if it has no dimension."""
        shapes = [shape for shape, _, _ in self.layout]
        if len(shapes) > 1:
            return len(shapes)
        return shapes[0][0] if shapes and shapes[0] else 0


class CallReader:
    """Reads `Call`s from the arguments of a denoiser's `forward`.

    Args:
        model: The denoiser, compiled or not, or a `Relay`.
        adapter: Names the arguments.

    Raises:
        AdapterError: The denoiser's `forward` has no argument of the adapter's names; or those of
            denoisers that take turns have them at different places.
    """

    def __init__(self, model: nn.Module, adapter: Adapter) -> None:
        self._models = [denoiser(member) for member in members_of(model)]
        places = [_places_of_arguments(member, adapter) for member in self._models]
        if len(set(places)) > 1:
            raise AdapterError(
                f"denoisers that take turns must take {adapter.latent!r} and {adapter.timestep!r} "
                f"at the same places of `forward`, but these take them at {places}"
            )
        *latents, timestep = places[0]
        self._latents = tuple(zip(names_of(adapter.latent), latents, strict=True))
        self._timestep = adapter.timestep, timestep
        self._variant = adapter.variant

    def latent(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return the latent of one call; `Latents` where there are several."""
        found = [_argument(each, args, kwargs) for each in self._latents]
        given = [each for each in found if isinstance(each, Tensor)]
        return Latents(tuple(given)) if len(given) > 1 else found[0]

    def with_latent(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: Tensor
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of one call with another latent, (rows, ...)."""
        before = self.latent(args, kwargs)
        if isinstance(before, Latents):
            latents: Sequence[Any] = before.divided(rows).tensors
        else:
            latents = [rows if isinstance(before, Tensor) else list(rows)]
        named = dict(kwargs)
        for (name, index), latent in zip(self._latents, latents, strict=False):
            if name in named:
                named[name] = latent
            else:
                args = (*args[:index], latent, *args[index + 1 :])
        return args, named

    def conditioning(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
        """Return what one call is given beside latent and timestep, as short texts.

        Numbers of floating tensors are told roughly, for they differ from device to device.
        """
        names, places = self._names_and_places()
        given = {str(place): each for place, each in enumerate(args) if place not in places}
        given |= {name: each for name, each in kwargs.items() if name not in names}
        return [
            f"{name}{keystr(path)}: {_roughly(leaf)}"
            for name, each in sorted(given.items())
            for path, leaf in tree_flatten_with_path(each)[0]
        ]

    def read(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        announced: Announced | None = None,
        member: int = 0,
    ) -> Call:
        """Return the evidence of one call.

        Args:
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            announced: What the pipeline announced, if anything.
            member: Which of the denoisers that take turns is called.

        Raises:
            SamplerError: It is one of skip-layer guidance.
        """
        if kwargs.get(_SKIPPING):
            raise SamplerError(_SKIPS)
        latent = self.latent(args, kwargs)
        timestep = _argument(self._timestep, args, kwargs)
        layout = _layouts(latent)
        guidance = {**announced_guidance(), **guidance_in(kwargs)}
        variant = self._variant(self._models[member], args, kwargs)
        if isinstance(latent, Latents):
            variant = variant, latent.shapes
        others = self._others(args, kwargs)
        known: dict[str, Any] = {
            "layout": layout,
            "context": announced and announced.name,
            "step": announced and announced.step,
            "steps": announced and announced.steps,
            "guidance": guidance,
            "variant": variant,
            "others": others,
            "member": member,
        }
        if not isinstance(timestep, Tensor):
            value = float(timestep) if isinstance(timestep, Real) else None
            return Call(timestep=value, progress=value, **known)
        value, progress = _on_host(timestep)
        return Call(
            timestep=value,
            progress=progress,
            position=(timestep.untyped_storage().data_ptr(), int(timestep.storage_offset())),
            tensor=timestep,
            **known,
        )

    def _others(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
        """Return what is seen of all arguments but latent and timestep."""
        names, places = self._names_and_places()
        positional = tuple(_seen(v) for i, v in enumerate(args) if i not in places)
        named = tuple((k, _seen(v)) for k, v in kwargs.items() if k not in names)
        return positional, named

    def _names_and_places(self) -> tuple[set[str], set[int]]:
        """Return the names and the places of latents and timestep among the arguments."""
        read = (*self._latents, self._timestep)
        return {name for name, _ in read}, {index for _, index in read}


def _places_of_arguments(model: nn.Module, adapter: Adapter) -> tuple[int, ...]:
    """Return at which places a denoiser takes its latents and, the last, its timestep."""
    names = argument_names(model)
    for name in (*names_of(adapter.latent), adapter.timestep):
        if name not in names:
            raise AdapterError(
                f"adapter {adapter.name!r} expects an argument {name!r}, but "
                f"{type(model).__name__}.forward takes {names}"
                f"{_usual(model)}"
            )
    return tuple(names.index(name) for name in (*names_of(adapter.latent), adapter.timestep))


def _usual(model: nn.Module) -> str:
    """Return the names that an adapter may mean, as something to do."""
    try:
        latent, timestep = latent_and_timestep(model)
    except AdapterError:
        return ""
    return f"; by their names the adapter should say latent={latent!r}, timestep={timestep!r}"


def largest(timestep: Tensor) -> Tensor:
    """Return the largest entry of a timestep, (), as a copy on its device, without waiting for it.

    Args:
        timestep: Of any shape, with at least one entry.
    """
    return timestep.detach().amax()


def _on_host(timestep: Tensor) -> tuple[float | None, float | None]:
    """Return the largest entry of a timestep and their mean; None if the host does not know it."""
    if timestep.device.type != "cpu" or not timestep.numel():
        return None, None
    entries = timestep.detach().reshape(-1)
    value = float(entries.amax())
    return value, value if float(entries.amin()) == value else float(entries.double().mean())


def layout_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
    """Return what of the arguments of a call decides on the form of what it gives.

    Args:
        args: Positional arguments of the call.
        kwargs: Its keyword arguments.
    """
    named = tuple((name, _seen(value)) for name, value in kwargs.items())
    return tuple(map(_seen, args)), named


def _seen(value: Any) -> Hashable:
    """Return what of an argument stays the same in a run; numbers may count its steps."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        return tuple((key, _seen(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_seen, value))
    return type(value)


def _argument(named: tuple[str, int], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the argument of a name and an index among the parameters; None if it is not given."""
    name, index = named
    if name in kwargs:
        return kwargs[name]
    return args[index] if index < len(args) else None


def _layouts(latent: Any) -> Layout:
    """Return the layout of a latent; several latents have that of the joined one."""
    if not isinstance(latent, Latents):
        return tuple(map(_layout, _tensors(latent)))
    entries = sum(each[0].numel() for each in latent.tensors) if len(latent) else 0
    _, dtype, device = _layout(latent.tensors[0])
    return (((len(latent), entries), dtype, device),)


def _tensors(latent: Any) -> list[Tensor]:
    if isinstance(latent, Tensor):
        return [latent]
    return [item for item in latent or () if isinstance(item, Tensor)]


def _layout(tensor: Tensor) -> tuple[tuple[int, ...], str, str]:
    return tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), str(tensor.device)


def _roughly(value: object) -> str:
    """Return a value as text; of floating tensors the size and one projection of the entries."""
    if isinstance(value, bool | int | float | str) or value is None:
        return repr(value)
    if not isinstance(value, Tensor):
        return type(value).__name__
    shape = tuple(value.shape)
    if not value.is_floating_point():
        return f"{shape} {value.flatten().tolist()}" if value.numel() <= _FEW else f"{shape}"
    entries = value.detach().flatten().double().cpu()
    signs = torch.arange(len(entries)).mul_(7919).remainder_(104729).remainder_(2).mul_(2).sub_(1)
    size = float(entries.norm())
    along = float(entries @ signs.double()) / size if size else 0.0
    return f"{shape} {size:.1e} {along:.1f}"


_FEW = 4096  # whole numbers that are kept as they are: labels, ids of tokens
