"""Sampling with a say at every evaluation: what trainings and proxies of routers stand on."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from smoothcache_core.calls.announcements import listening
from smoothcache_core.calls.call import CallReader
from smoothcache_core.calls.clock import Clock, Tick
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.wrapping.modules import Inner, layered

Answer = Callable[[Tick, Callable[[], Any], Tensor], Any]
"""Returns what a call of the denoiser gives, from its place, what computes it, and the latent."""

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""What a call of the denoiser is given."""

Note = Callable[[Tick, Arguments], None]
"""Is told of a call: its place and its arguments."""


def sampled(sampler: Sampler, seed: int, answer: Answer, note: Note | None = None) -> Tensor | None:
    """Run a sampler once, with all calls of its denoiser answered by `answer`.

    It may use gradients, whatever mode the sampler runs in.

    Args:
        sampler: What is run.
        seed: What its `run` is called with.
        answer: Answers the calls.
        note: Is told of every call before it is answered.

    Returns:
        The final latent, (samples, ...); None if it is not available.

    Raises:
        SamplerError: `run` returned something else.
    """
    clock, reader = Clock(branches=sampler.branches), CallReader(sampler.model, sampler.adapter)

    def around(call: Inner, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tick = clock.tick(reader.read(args, kwargs, clock.context, call.member))
        with torch.inference_mode(False):
            args, kwargs = tree_map_only(Tensor, _ordinary, (args, kwargs))
            latent = reader.latent(args, kwargs)
            if note is not None:
                note(tick, (args, kwargs))
            return answer(tick, lambda: call(*args, **kwargs), latent)

    with (
        sampler.around(),
        layered(sampler.model, around),
        listening(clock, sampler.model, sampler.scheduler),
    ):
        return sampler.final_latent_if_known(seed)


def _ordinary(tensor: Tensor) -> Tensor:
    """Return a tensor that gradients may flow through: those of inference mode must not."""
    return tensor.clone() if tensor.is_inference() else tensor
