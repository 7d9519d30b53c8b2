"""A sampler that cannot be stopped, stopped at every call of its denoiser.

The samplers of k-diffusion are loops that call a function. Here the loop runs in a thread of its
own, and what it asks is answered by whoever holds it, in their thread: the two take turns.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from torch import Tensor

Denoise = Callable[..., Tensor]


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
        self._answers: SimpleQueue[Tensor | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._listen()

    def answer(self, output: Tensor) -> None:
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

    def _ask(self, *args: Any, **kwargs: Any) -> Tensor:
        self._told.put(Question(args, kwargs))
        output = self._answers.get()
        if output is None:
            raise _Closed
        return output
