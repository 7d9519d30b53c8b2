"""A sampler that cannot be stopped, stopped at every call of its denoiser.

The samplers of k-diffusion are loops that call a function. Here the loop runs in a thread of its
own, and what it asks is answered by whoever holds it, in their thread: the two take turns.
"""

import contextvars
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import torch
from smoothcache_core.patching import replaced
from smoothcache_core.sampling import ConditionedSampler
from torch import Tensor

Denoise = Callable[..., Any]


@dataclass(frozen=True)
class Question:
    """A call of the denoiser that waits for its answer."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Closed(Exception):
    """The loop is not wanted any more."""


class Halted:
    """A sampling loop that waits at every call of its denoiser.

    Args:
        sample: Runs the loop with the denoiser that it is given, and returns the final latent.

    Attributes:
        question: The call that waits; None at the end.
        result: The final latent, at the end.
    """

    def __init__(self, sample: Callable[[Denoise], Tensor]) -> None:
        self.question: Question | None = None
        self.result: Tensor | None = None
        self._sample = sample
        self._told: SimpleQueue[Question | Tensor | BaseException] = SimpleQueue()
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._listen()

    def answer(self, output: Any) -> None:
        """Let the loop go on to its next call, or to its end.

        Raises:
            ValueError: No call waits.
        """
        if self.question is None:
            raise ValueError("the sampling loop is at its end")
        self._answers.put(output)
        self._listen()

    def close(self) -> None:
        """End the loop where it is."""
        if self.question is not None:
            self.question = None
            self._answers.put(None)
        self._thread.join()

    def _listen(self) -> None:
        told = self._told.get()
        self.question = told if isinstance(told, Question) else None
        if isinstance(told, BaseException):
            raise told
        if isinstance(told, Tensor):
            self.result = told

    def _run(self) -> None:
        try:
            self._told.put(self._sample(self._ask))
        except _Closed:
            pass
        except BaseException as error:
            self._told.put(error)

    def _ask(self, *args: Any, **kwargs: Any) -> Any:
        self._told.put(Question(args, kwargs))
        output = self._answers.get()
        if output is None:
            raise _Closed
        return output


# ---------------------------------------------------------------------------- whole samplers


class HaltedSampler:
    """A sampler that is stopped at every call of its denoiser; see `halted`.

    Args:
        sampler: Samples; its loop calls what it is told to.
        denoise: What the loop would call.
        seed: Seed of the run.
    """

    def __init__(self, sampler: ConditionedSampler, denoise: Denoise, seed: int) -> None:
        self._sampler = sampler
        self._denoise = denoise
        self._seed = seed
        self._halted: Halted | None = None
        self._output: Any = None

    @property
    def latents(self) -> Tensor:
        """What the last run ended with, (batch, ...).

        Raises:
            ValueError: It has not ended.
        """
        if self._halted is None or self._halted.result is None:
            raise ValueError("the run has not ended")
        return self._halted.result

    def start(self) -> None:
        """End the last run; the next one begins at its first evaluation."""
        if self._halted is not None:
            self._halted.close()

    def evaluate(self, evaluation: int) -> None:
        """Call the denoiser as the loop wants to."""
        if evaluation == 0:
            self._halted = Halted(self._sampled)
        if self._halted is None or self._halted.question is None:
            raise ValueError(f"the run ended before evaluation {evaluation}")
        context, *args = self._halted.question.args
        self._output = context.run(self._denoise, *args, **self._halted.question.kwargs)

    def advance(self, evaluation: int) -> None:
        """Let the loop go on to its next call, or to its end."""
        del evaluation
        if self._halted is not None:
            self._halted.answer(self._output)

    @torch.no_grad()  # which holds in one thread only
    def _sampled(self, ask: Denoise) -> Tensor:
        def forward(*args: Any, **kwargs: Any) -> Any:
            return ask(contextvars.copy_context(), *args, **kwargs)

        with replaced(self._sampler.model, "forward", forward):
            return self._sampler(self._seed).cpu()


@contextmanager
def halted(sampler: ConditionedSampler, seed: int) -> Generator[HaltedSampler]:
    """Stop a sampler, whose denoiser nobody else uses, at every call of it."""
    made = HaltedSampler(sampler, sampler.model.forward, seed)
    try:
        yield made
    finally:
        made.start()
