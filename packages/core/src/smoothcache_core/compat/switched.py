"""What is switched on and off by calls, as SmoothCache's helpers are, or by a `with` block."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Switched(ABC):
    """Has `enable` and `disable`, and is a context manager of them."""

    @abstractmethod
    def enable(self) -> None:
        """Switch it on."""

    @abstractmethod
    def disable(self) -> None:
        """Switch it off; where it is off, nothing happens."""

    @abstractmethod
    def abandon(self) -> None:
        """Switch it off after an exception: the model is restored, and nothing else is done."""

    def __enter__(self) -> Self:
        """Switch it on."""
        self.enable()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Switch it off; after an exception, without what is done at the end of the work."""
        if kind is not None:
            self.abandon()
        self.disable()
