"""What an evaluation costs and what its outputs take, from shapes: nothing is computed.

The sampler is run up to its first evaluation, whose calls of the denoiser are made with torch's
fake tensors: these have shapes and data types and no numbers, so neither weights nor memory nor
time are needed, whatever the resolution.
"""

import copy
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.arguments import check_kind
from smoothcache_core.calls.announcements import listening
from smoothcache_core.calls.call import CallReader
from smoothcache_core.calls.clock import Clock
from smoothcache_core.calls.flops import flop_counter
from smoothcache_core.calls.stopping import Stop
from smoothcache_core.errors import CalibrationError, SmoothCacheError
from smoothcache_core.outputs.structures import Structure
from smoothcache_core.outputs.tensors import Output, flat, floating_entries, is_output, nbytes
from smoothcache_core.relay import members_of
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.schedule.cost import Cost, SiteCost
from smoothcache_core.wrapping.denoiser import Step, Wrapping, sites_of
from smoothcache_core.wrapping.modules import Inner, layered


def cost_from_shapes(sampler: Sampler, *, seed: int = 0) -> Cost:
    """Return what one evaluation costs at the sampler's size, without computing it.

    It is what `calibrate` would measure: MACs and bytes of every site, exactly. The model may be on
    the meta device, without weights. A calibration of another size takes it, `calibration.at(cost)`
    and so does a schedule, `schedule.predicted_bytes(cost)`.

    Example:
        What the sites of a large model would keep, from the arguments of one call::

            with torch.device("meta"):
                model = STDiT3()  # XL/2: no weights
                latents, words = torch.empty(2, 4, 15, 90, 160), torch.empty(2, 1, 300, 4096)
                times = torch.empty(2)
            call = Sampler(
                model=model, adapter=OPEN_SORA, run=lambda seed: model(latents, times, words)
            )
            cost_from_shapes(call).kept_bytes("spatial_attn")  # of one copy of all their outputs

    Args:
        sampler: How a run is made. It is run up to the first evaluation, and answered by zeros
            there if guidance makes several calls; what it does before, such as reading the prompt,
            is done. What is called beside the denoiser (a ControlNet) is not counted.
        seed: Seed of the run.

    Raises:
        CalibrationError: `run` never called the denoiser, or the denoiser looks at numbers.
    """
    check_kind(sampler, Sampler, name="sampler", error=CalibrationError)
    with sampler.around():
        return _ShapeRun(sampler).cost(seed)


class _ShapeRun:
    """Answers the calls of one evaluation by zeros, after a copy without numbers has made them.

    The denoiser itself is not called: what it remembers of a call would be without numbers too.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler, self._model = sampler, denoiser(members_of(sampler.model)[0])
        self._sites = sites_of(sampler.adapter, sampler.model)
        self._reader = CallReader(sampler.model, sampler.adapter)
        self._clock = Clock(branches=sampler.branches)
        self._bytes: Counter[str] = Counter()
        self._entries: Counter[str] = Counter()
        self._flops: Counter[str] = Counter()
        self._counter: FlopCounterMode | None = None
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._hollow = _hollow(self._model, self._mode)
        self._on_meta = _is_on_meta(self._model)

    @torch.no_grad()
    def cost(self, seed: int) -> Cost:
        """Run the sampler up to its second evaluation, and return what was seen of the first."""
        sampler = self._sampler
        heard = listening(self._clock, sampler.model, sampler.scheduler)
        with layered(sampler.model, self._around), heard, suppress(Stop):
            sampler.run(seed)
        if not self._clock.count:
            raise CalibrationError(
                f"`run` never called the {type(self._model).__name__} that is to be looked at"
            )
        return self._cost()

    def _cost(self) -> Cost:
        sites = [
            SiteCost(
                path=site.path,
                kind=site.kind,
                block=site.block,
                macs=self._flops[site.path] // 2,
                bytes=self._bytes[site.path],
                entries=self._entries[site.path],
            )
            for site in self._sites
        ]
        return Cost(
            total=self._flops[_WHOLE] // 2,
            sites=tuple(sites),
            output_bytes=self._bytes[_WHOLE],
            output_entries=self._entries[_WHOLE],
        )

    def _around(self, call: Inner, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        read = self._reader.read(args, kwargs, self._clock.context, call.member)
        tick = self._clock.tick(read)
        if tick.evaluation or (tick.new_run and self._bytes):
            raise Stop
        latent = self._reader.latent(args, kwargs)
        device = next(iter(latent)).device
        try:
            output = self._called(*args, **kwargs)
        except SmoothCacheError:
            raise
        except Exception as error:  # whatever a model does with tensors that have no numbers
            raise CalibrationError(_unfit(self._model, error)) from error
        return tree_map(partial(_zeros, device), output)

    def _called(self, *args: Any, **kwargs: Any) -> Any:
        """Make a call without numbers, and note what its sites and the whole give."""
        fake = partial(tree_map, self._without_numbers)
        wrapping = Wrapping(
            self._hollow,
            self._sites,
            _Nothing(),
            probes=[_Sizes(self, site.path) for site in self._sites],
        )
        try:
            with self._mode, flop_counter() as self._counter:
                output = self._hollow(*fake(args), **fake(kwargs))
        finally:
            wrapping.remove()
        self._bytes[_WHOLE] += Structure.of(output).bytes
        self._entries[_WHOLE] += floating_entries(Structure.of(output).floating)
        self._flops[_WHOLE] += self.flops()
        return output

    def _without_numbers(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return self._mode.from_tensor(leaf.detach().to("meta") if self._on_meta else leaf.detach())

    # ------------------------------------------------------------------ probes

    def flops(self) -> int:
        """Return the FLOPs of the call so far."""
        return 0 if self._counter is None else self._counter.get_total_flops()

    def note(self, path: str, output: Output, flops: int) -> None:
        """Add a call of a site."""
        if not is_output(output):
            raise CalibrationError(
                f"{path!r} gives a {type(output).__name__}; only a tensor or a tuple of tensors "
                "can be kept"
            )
        self._bytes[path] += nbytes(output)
        self._entries[path] += floating_entries(flat(output))
        self._flops[path] += flops


_WHOLE = ""  # path of the denoiser itself


class _Nothing:
    """A driver that changes nothing."""

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any], member: int) -> Step:
        """See `Driver.begin`."""
        del member
        return Step(args, kwargs)

    def end(self, output: Any) -> Any:
        """See `Driver.end`."""
        return output

    def abort(self) -> None:
        """See `Driver.abort`."""


@dataclass
class _Sizes:
    """Shows the outputs of one site to the run."""

    run: _ShapeRun
    path: str
    before: int = 0

    def enter(self) -> None:
        self.before = self.run.flops()

    def leave(self, output: Output) -> None:
        self.run.note(self.path, output, self.run.flops() - self.before)


def _is_on_meta(model: nn.Module) -> bool:
    tensors = chain(model.parameters(), model.buffers())
    return next((tensor.is_meta for tensor in tensors), False)


def _hollow(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """Return a copy of a model whose parameters and buffers have no numbers, and take no memory."""
    tensors = chain(model.parameters(), model.buffers())
    try:
        return copy.deepcopy(model, {id(each): mode.from_tensor(each) for each in tensors})
    except Exception as error:  # whatever a class does when it is copied
        raise CalibrationError(_unfit(model, error)) from error


def _zeros(device: torch.device, leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    return torch.zeros(leaf.shape, dtype=leaf.dtype, device=device)


def _unfit(model: nn.Module, error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return (
        f"{type(model).__name__} cannot be called with shapes alone ({type(error).__name__}: "
        f"{first}); give it numbers where it looks at the numbers of tensors, or calibrate at this "
        "size"
    )
