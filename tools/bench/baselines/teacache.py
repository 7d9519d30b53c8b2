"""TeaCache (arXiv 2411.19108) on any transformer whose blocks are modulated by the timestep.

All blocks are skipped while the accumulated change of the modulated input of the first one, by a
polynomial that says how the output changes with it, stays below a threshold; what the blocks added
the last time is added again. The first and the last evaluation are computed. The polynomial is
fitted, as published, to runs that compute everything.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from smoothcache_core.patching import replaced
from torch import Tensor, nn

from tools.bench.policies import Attach, Attachable, Attached

_DEGREE = 4  # of the polynomial, as published


@dataclass(frozen=True, kw_only=True)
class Tea:
    """Where TeaCache goes on a model.

    Attributes:
        blocks: Returns the blocks of a model in the order in which they run, each of which takes a
            tensor first and returns one.
        signal: Returns the modulated input of the first block from it and what it is called with.
    """

    blocks: Callable[[Any], Sequence[nn.Module]]
    signal: Callable[..., Tensor]


@dataclass
class _State:
    """What is known at an evaluation of a run."""

    steps: int
    evaluation: int = -1
    skips: bool = False
    total: float = 0.0
    signal: Tensor | None = None
    began: Tensor | None = None
    added: Tensor | None = None
    changes: list[tuple[float, float]] = field(default_factory=list)

    @property
    def at_an_end(self) -> bool:
        """Whether it is the first or the last evaluation of a run."""
        return self.evaluation % self.steps in (0, self.steps - 1)


def teacache(tea: Tea, polynomial: Sequence[float], threshold: float) -> Attach:
    """Return TeaCache.

    Args:
        tea: Where it goes.
        polynomial: Coefficients from the highest power on, of the relative change of the output by
            that of the signal.
        threshold: Accumulated change up to which it skips.
    """

    def skips(state: _State, change: float) -> bool:
        state.total += float(np.polyval(polynomial, change))
        if state.at_an_end or state.added is None or state.total >= threshold:
            state.total = 0.0
            return False
        return True

    return lambda sampler: _attached(tea, sampler, skips, _State(steps=sampler.steps))


def changes_of(tea: Tea, run: Callable[[Attach], object]) -> list[tuple[float, float]]:
    """Return how much the signal and what the blocks add change, by a run that computes everything.

    Args:
        tea: Where it goes.
        run: Samples once under a policy.

    Returns:
        Relative changes of the signal and of what is added, of every evaluation but the first.
    """
    states: list[_State] = []

    def watching(sampler: Attachable) -> Any:
        states.append(_State(steps=sampler.steps))
        return _attached(tea, sampler, lambda state, change: False, states[-1])

    run(watching)
    return states[-1].changes


def fitted_polynomial(changes: Sequence[tuple[float, float]]) -> list[float]:
    """Return the polynomial of a model.

    Args:
        changes: See `changes_of`.
    """
    signals, added = zip(*changes, strict=True)
    return np.polyfit(signals, added, min(_DEGREE, len(changes) - 1)).tolist()


@contextmanager
def _attached(
    tea: Tea, sampler: Attachable, skips: Callable[[_State, float], bool], state: _State
) -> Generator[Attached]:
    first, *others = tea.blocks(sampler.model)
    with ExitStack() as stack:
        stack.enter_context(replaced(first, "forward", _first(tea, first, skips, state)))
        for block in others:
            last = block is others[-1]
            stack.enter_context(replaced(block, "forward", _other(block, state, last)))
        yield Attached(sampler=sampler)


def _first(
    tea: Tea, block: nn.Module, skips: Callable[[_State, float], bool], state: _State
) -> Callable[..., Tensor]:
    forward = block.forward

    def decided(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        state.evaluation += 1
        if state.evaluation % state.steps == 0:
            state.signal = state.added = None
        signal = tea.signal(block, x, *args, **kwargs)
        change = 0.0 if state.signal is None else _relative(signal, state.signal)
        state.signal = signal
        state.skips = skips(state, change)
        if state.skips:
            assert state.added is not None
            return x + state.added
        state.began = x
        state.changes.append((change, 0.0))
        return forward(x, *args, **kwargs)

    return decided


def _other(block: nn.Module, state: _State, last: bool) -> Callable[..., Tensor]:
    forward = block.forward

    def followed(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if state.skips:
            return x
        out = forward(x, *args, **kwargs)
        if last:
            _note(state, out)
        return out

    return followed


def _note(state: _State, out: Tensor) -> None:
    """Note what the blocks added, and how much that differs from the time before."""
    assert state.began is not None
    added = out - state.began
    if state.added is None:
        state.changes.pop()  # nothing to compare the first evaluation of a run with
    else:
        change, _ = state.changes[-1]
        state.changes[-1] = change, _relative(added, state.added)
    state.added, state.began = added, None


def _relative(new: Tensor, old: Tensor) -> float:
    """Return the relative L1 distance."""
    return float((new - old).abs().mean() / old.abs().mean().clamp(min=torch.finfo(old.dtype).tiny))
