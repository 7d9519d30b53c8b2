"""What marks a denoiser that something of this library is on."""

from typing import Any

from smoothcache_core.errors import AttachError

MARK = "_smoothcache_attached"
"""Name of the attribute that says what is on a denoiser."""


class Mark:
    """Stands on a denoiser, and refuses that it is copied or pickled with what is on it.

    Args:
        driver: What stands around the calls of the denoiser.
        name: Name of the denoiser's class, for the error.

    Attributes:
        driver: As given.
    """

    def __init__(self, driver: object, name: str) -> None:
        self.driver, self._name = driver, name

    def __reduce_ex__(self, protocol: object) -> Any:
        raise no_copy(self._name)


def no_copy(name: str) -> AttachError:
    """Return the error of copying a module of this class name: a copy would call the original."""
    return AttachError(
        f"a cache is attached to this {name}, so it cannot be copied or pickled: a copy would call "
        "the original. Detach the cache first, or make the copy before it is attached; its "
        "state_dict can be saved at any time"
    )
