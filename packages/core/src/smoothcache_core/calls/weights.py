"""A few numbers of a model's weights, which tell models of one configuration apart."""

import functools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, distributed, nn

_PROJECTIONS = 8  # parameters looked at: enough to tell models apart, spread over the depth
_ENTRIES = 4096  # entries of each: reading them takes no time, also from an accelerator
_COARSEST = 0.1  # rounding above which a projection tells nothing: small weights in float8_e4m3

_TUNED = ".base_layer."
"""What PEFT puts before the layer that it tunes; what else is beside that layer is PEFT's."""

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch puts into the names of parameters: compiled, sharded, checkpointed modules."""


@dataclass(frozen=True, kw_only=True)
class Projections:
    """What is remembered of a model's weights.

    Attributes:
        values: By names of parameters, the sum of their first entries with pseudo-random signs,
            over their norm: of standard deviation 1 for unrelated weights.
        rounding: Standard deviation by which rounding may have moved one of them, at most 0.1; 0
            where all are stored in 16 bits or more.
    """

    values: Mapping[str, float] = field(default_factory=dict[str, float])
    rounding: float = 0.0


def weight_projections(model: nn.Module) -> Projections:
    """Return projections of a few parameters, spread over the depth.

    They are hardly changed by another data type. Parameters that cannot be read here, quantised,
    in shards or offloaded, are left out; which are looked at does not depend on that.

    Args:
        model: The denoiser, not its compiled wrapper.
    """
    matrices = [(n, p) for n, p in own_parameters(model) if p.ndim > 1 and _is_weight(p)]
    stride = max(len(matrices) // _PROJECTIONS, 1)
    values: dict[str, float] = {}
    roundings = [0.0]
    for name, parameter in matrices[::stride][:_PROJECTIONS]:
        stored = _readable(parameter)
        if stored is None:
            continue
        entries = stored.detach().flatten()[:_ENTRIES].cpu()
        norm = float(entries.double().norm())
        rounding = _rounding(entries, norm)
        if 0.0 < norm < math.inf and rounding <= _COARSEST:
            value = float(entries.double() @ _signs()[: len(entries)]) / norm
            values[name] = round(value, 4)
            roundings.append(rounding)
    return Projections(values=values, rounding=round(max(roundings), 4))


def known_name(parameter: str) -> str:
    """Return the name that a parameter has in the model that nobody compiled or wrapped.

    Args:
        parameter: Its name, as `named_parameters` gives it.
    """
    for wrapper in _WRAPPERS:
        parameter = parameter.replace(wrapper, "")
    return parameter


def own_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters of the model itself, by the names that they have in it.

    Those of adapters that PEFT put on it (LoRA and others) are left out: they come and go.

    Args:
        model: The denoiser, not its compiled wrapper.
    """
    found = [(known_name(name), parameter) for name, parameter in model.named_parameters()]
    tuned = {name.partition(_TUNED)[0] for name, _ in found if _TUNED in name}
    own = [(n, p) for n, p in found if _TUNED in n or not _is_inside(n, tuned)]
    return [(name.replace(_TUNED, "."), parameter) for name, parameter in own]


def _is_inside(name: str, modules: Collection[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:depth]) in modules for depth in range(1, len(parts)))


def whole_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Return the shape of a weight, also where bitsandbytes packs it.

    Args:
        parameter: The weight, quantised or not.
    """
    state = getattr(parameter, "quant_state", None)
    return tuple(getattr(state, "shape", None) or parameter.shape)


def _is_weight(parameter: nn.Parameter) -> bool:
    """Whether it is of floating type, or was before it was quantised."""
    quantised = type(parameter) is not nn.Parameter
    return quantised or parameter.is_floating_point()


def _readable(parameter: nn.Parameter) -> Tensor | None:
    """Return the memory of a parameter, if all of it is here and holds the weights themselves."""
    stored: Tensor | None = parameter.data
    if type(stored) is not Tensor and distributed.is_available():
        from torch.distributed.tensor import DTensor  # it takes a while to load

        if isinstance(stored, DTensor):
            local = stored.to_local()
            stored = local if local.shape == stored.shape else None
    if type(stored) is not Tensor or not stored.is_floating_point() or stored.is_meta:
        return None
    return stored if stored.numel() == parameter.numel() else None


def _rounding(entries: Tensor, norm: float) -> float:
    """Return the standard deviation of a projection's error, for the 8-bit type of its entries.

    A number is off by up to half the step between its neighbours, evenly distributed.
    """
    if entries.element_size() > 1 or not norm:
        return 0.0
    numbers = torch.finfo(entries.dtype)
    sizes = entries.double().abs().clamp(min=numbers.smallest_normal)
    steps = torch.exp2(torch.floor(torch.log2(sizes))) * numbers.eps
    return float((steps.square().sum() / 12.0).sqrt()) / norm  # 1 / 12: variance of even errors


@functools.cache
def _signs() -> Tensor:
    """Return pseudo-random signs, (_ENTRIES,): bits of a linear congruential generator.

    Its constants are those of Numerical Recipes; torch's own generators may change.
    """
    number, signs = 1, []
    for _ in range(_ENTRIES):
        number = (1664525 * number + 1013904223) % 2**32
        signs.append(1.0 if number >> 31 else -1.0)
    return torch.tensor(signs, dtype=torch.float64)
