"""Watching the modules of a denoiser during two evaluations of somebody's own sampler."""

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from smoothcache_core.adapters.sites import Adapter
from smoothcache_core.calls.call import CallReader
from smoothcache_core.calls.flops import flop_counter
from smoothcache_core.calls.stopping import Stop
from smoothcache_core.errors import AdapterError
from smoothcache_core.outputs.tensors import flat, is_flat
from smoothcache_core.wrapping.modules import layered

CONTINUES = 0.25
"""Cosine of an output and the input that it continues; that of unrelated tensors is about 0."""

_ENTRIES = 1024  # of an output: enough to see whether it changes, and no memory to speak of

_PENDING = 8  # outputs of one module's children that are watched for changes at a time

_CALLS = 16  # of one timestep: no evaluation has more passes, so the timestep does not tell

_SAME = 1e-6  # of the size of an output: what kernels that add in any order make of equal inputs


@dataclass(kw_only=True)
class Seen:
    """What one module did in the run.

    Attributes:
        order: Its place among all modules, by their first calls; 0 for the first.
        calls: Calls in every evaluation.
        macs: Multiply-accumulates in the first evaluation, those of the modules inside included.
        sizes: Entries of the tensors of its first output; empty if it gives anything else.
        inputs: Names of the arguments that these continue, as many; empty if one continues none.
        follows: Path of the block whose outputs these arguments are, as they were given; empty if
            they come from elsewhere, or something was done with them before.
        likeness: Largest cosine of any of them and the input that it continues; 0 without one.
        keeps_shape: Whether one of them has the shape of an input.
        samples: A few entries of the first output of every evaluation.
        tensors: Whether every output was a tensor or a tuple of tensors.
        in_place: Whether an output was changed after it was given.
    """

    order: int
    calls: list[int]
    macs: int = 0
    sizes: tuple[int, ...] = ()
    inputs: tuple[str, ...] = ()
    follows: str = ""
    likeness: float = 0.0
    keeps_shape: bool = False
    samples: list[Tensor] = field(default_factory=list[Tensor])
    tensors: bool = True
    in_place: bool = False

    @property
    def changes(self) -> bool:
        """Whether the output of the second evaluation differs; true if there is none."""
        first, *others = self.samples
        if not others:
            return True
        other = others[-1]
        if other.shape != first.shape:
            return True
        return bool((other - first).abs().max() > _SAME * first.abs().max())


@dataclass(kw_only=True)
class _Frame:
    """A call of a module that has not returned.

    Attributes:
        path: Path of the module; empty for the denoiser.
        macs: Multiply-accumulates when it began.
        inputs: Copies of its tensors, by name, where they are compared with its outputs.
        given: These tensors themselves.
        last: Path and outputs of the module of a list inside that returned last.
        pending: Outputs inside that are watched for changes.
    """

    path: str
    macs: int
    inputs: Mapping[str, Tensor]
    given: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    last: tuple[str, tuple[Tensor, ...]] = ("", ())
    pending: list[tuple[str, Tensor, Tensor]] = field(
        default_factory=list[tuple[str, Tensor, Tensor]]
    )


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What is watched of a denoiser.

    Attributes:
        modules: Modules by their paths.
        compared: Paths of those whose outputs are compared with their inputs.
    """

    modules: Mapping[str, nn.Module]
    compared: frozenset[str]


def traced(
    model: nn.Module,
    adapter: Adapter,
    watched: Watched,
    run: Callable[[], object],
    *,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> tuple[dict[str, Seen], int]:
    """Run a sampler for two evaluations and return what modules of its denoiser did in them.

    An evaluation is all calls of one timestep, so that of guidance both passes belong to it. The
    run is ended when the third begins.

    Returns:
        What was seen of the modules that were called, by their paths, and the multiply-accumulates
        of the denoiser in the first evaluation.

    Args:
        model: The denoiser, not its compiled wrapper.
        adapter: How its calls are read.
        watched: Which of its modules are watched.
        run: Runs the sampler once.
        around: Makes what is entered around the run.

    Raises:
        AdapterError: The denoiser was never called.
    """
    return _Trace(model, adapter, watched).run(run, around)


class _Trace:
    """Stands around the calls of a denoiser, and hears of those of its modules."""

    def __init__(self, model: nn.Module, adapter: Adapter, watched: Watched) -> None:
        self._model, self._watched = model, watched
        self._reader = CallReader(model, adapter)
        self._keys: list[object] = []
        self._calls = 0
        self._frames: list[_Frame] = []
        self._counter: FlopCounterMode | None = None
        self._macs = 0
        self.seen: dict[str, Seen] = {}

    @torch.no_grad()
    def run(
        self,
        run: Callable[[], object],
        around: Callable[[], AbstractContextManager[object]],
    ) -> tuple[dict[str, Seen], int]:
        with around(), layered(self._model, self._around), self._hooks(), suppress(Stop):
            run()
        if not self._keys:
            name = type(self._model).__name__
            raise AdapterError(f"the run never called the {name}, so nothing is known of it")
        return self.seen, self._macs

    @contextmanager
    def _hooks(self) -> Generator[None]:
        handles: list[RemovableHandle] = []
        try:
            for path, module in self._watched.modules.items():
                enter, leave = partial(self._enter, path), partial(self._leave, path)
                handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
                handles.append(module.register_forward_hook(leave))
            yield
        finally:
            for handle in handles:
                handle.remove()

    # ------------------------------------------------------------------ the denoiser

    def _around(
        self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self._begin(self._timestep(args, kwargs))
        if len(self._keys) > 1:
            return call(*args, **kwargs)
        with flop_counter() as self._counter:
            output = call(*args, **kwargs)
        self._macs += self._counter.get_total_flops() // 2
        self._counter = None
        return output

    def _timestep(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float | None:
        call = self._reader.read(args, kwargs)
        if call.tensor is None or not call.tensor.numel():
            return call.timestep
        return float(call.tensor.max())  # of timesteps per token, those of a condition are 0

    def _begin(self, timestep: float | None) -> None:
        """Tell to which evaluation a call belongs; end the run if it is the third."""
        self._calls += 1
        self._frames = [_Frame(path="", macs=0, inputs={})]
        same = bool(self._keys) and timestep is not None and timestep == self._keys[-1]
        if same and self._calls <= _CALLS:
            return
        if len(self._keys) > 1:
            raise Stop
        self._calls = 1
        self._keys.append(timestep)
        for each in self.seen.values():
            each.calls.append(0)

    # ------------------------------------------------------------------ its modules

    def _flops(self) -> int:
        return 0 if self._counter is None else self._counter.get_total_flops()

    def _enter(
        self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        inputs, given = {}, {}
        if path in self._watched.compared and (path not in self.seen):
            named = {**dict(zip(_parameters(module), args, strict=False)), **kwargs}
            given = {k: v for k, v in named.items() if _is_floating(v)}
            inputs = {k: v.clone() for k, v in given.items()}
        macs = self._flops() // 2
        self._frames.append(_Frame(path=path, macs=macs, inputs=inputs, given=given))

    def _leave(self, path: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        del module, args
        frame = self._frames.pop()
        while frame.path != path:  # one inside was left by an exception
            frame = self._frames.pop()
        self._settle(frame.pending)
        first = path not in self.seen
        if first:
            self.seen[path] = Seen(order=len(self.seen), calls=[0] * len(self._keys))
        seen = self.seen[path]
        seen.macs += self._flops() // 2 - frame.macs
        seen.calls[-1] += 1
        tensors = flat(output) if is_flat(output) else ()
        if not tensors:
            seen.tensors = False
            return
        if first:
            seen.sizes = tuple(tensor.numel() for tensor in tensors)
            pairs = _continued(tensors, frame.inputs)
            seen.keeps_shape = any(name for name, _ in pairs)
            seen.likeness = max(likeness for _, likeness in pairs)
            if all(likeness > CONTINUES for _, likeness in pairs):
                seen.inputs = tuple(name for name, _ in pairs)
                before, handed = self._frames[-1].last
                if _are(handed, [frame.given[name] for name in seen.inputs]):
                    seen.follows = before
            if path.rpartition(".")[2].isdigit() and path in self._watched.compared:
                self._frames[-1].last = path, tensors
        if seen.calls[-1] == 1:
            seen.samples.append(torch.cat([_few(tensor) for tensor in tensors]))
        outer = self._frames[-1].pending
        outer.extend((path, tensor, tensor.clone()) for tensor in tensors)
        self._settle(outer, left=_PENDING)

    def _settle(self, pending: list[tuple[str, Tensor, Tensor]], left: int = 0) -> None:
        """Compare outputs with what they were when they were given, but for the newest few."""
        while len(pending) > left:
            path, tensor, before = pending.pop(0)
            changed = tensor.shape == before.shape and not _equal(tensor, before)
            self.seen[path].in_place |= changed


def _are(ones: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether tensors are the very same ones."""
    return len(ones) == len(others) and all(map(is_, ones, others))


def _parameters(module: nn.Module) -> list[str]:
    return list(inspect.signature(type(module).forward).parameters)[1:]


def _is_floating(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num())


def _few(tensor: Tensor) -> Tensor:
    """Return entries from all over a tensor, at most 1024 of them, (n,) float64 on the CPU."""
    stride = max(tensor.numel() // _ENTRIES, 1)
    return tensor.detach().reshape(-1)[::stride][:_ENTRIES].double().cpu()


def _continued(
    outputs: tuple[Tensor, ...], inputs: Mapping[str, Tensor]
) -> list[tuple[str, float]]:
    """Return for each output the input of its shape that it is most like, and how like it is.

    The name is empty, and the cosine 0, where no input has the shape.
    """
    left, pairs = dict(inputs), list[tuple[str, float]]()
    for output in outputs:
        alike = {k: _cosine(output, v) for k, v in left.items() if v.shape == output.shape}
        name = max(alike, key=lambda each: alike[each], default="")
        pairs.append((name, alike.get(name, 0.0)))
        left.pop(name, None)
    return pairs


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.cosine_similarity(one.flatten().double(), other.flatten().double(), dim=0))
