"""How many CPU threads are the fastest just now."""

import time
from collections.abc import Callable

import torch

_HOPELESS = 2.0
"""How many times as slow a first call is, that no second one is made."""


def use_fastest_threads(call: Callable[[], object]) -> int:
    """Set torch to the number of threads with which `call` is fastest, and return it.

    More is not always faster: where other programs keep the cores busy, or a container has less of
    them than it sees, threads wait for each other, and that can take tens of times as long. Tries
    one thread, two, four and so on, up to all that torch would take, until it gets slower.

    Args:
        call: Something of the size that will be run, some milliseconds at least.
    """
    most = torch.get_num_threads()
    candidates = [*(n for n in (2**power for power in range(16)) if n < most), most]
    torch.set_num_threads(1)
    call()
    best, shortest = 1, float("inf")
    for threads in candidates:
        torch.set_num_threads(threads)
        seconds = _seconds(call, shortest)
        if seconds > shortest:
            break
        best, shortest = threads, seconds
    torch.set_num_threads(best)
    return best


def _seconds(call: Callable[[], object], shortest: float) -> float:
    """Return the shortest time of up to three calls."""
    times: list[float] = []
    while len(times) < 3 and (not times or times[0] < _HOPELESS * shortest):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
