"""How fast the host is just now: the time of a fixed piece of work that no package under test takes part in.

A generation that takes longer for the same kernels and the same Python calls waited for its host. Whether the host was
slower, or each call has become dearer, is what this piece of work tells: it is timed beside every generation.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

ROUNDS = 60_000
"""Rounds of plain Python: some 5 ms on a server of 2024, as long as the interpreter's own switch interval, so that a
neighbour on the core is seen."""

DRIVER_CALLS = 2_000
"""Questions to the CUDA driver whether the default stream has finished, some 1 ms."""


def pace(device: str) -> float:
    """Seconds of the fixed piece of work: plain Python, and on ``cuda`` calls of the driver. Nothing may be running."""
    ask = _driver() if device.startswith("cuda") else None
    start = time.perf_counter()
    _plain_python(ROUNDS)
    if ask is not None:
        for _ in range(DRIVER_CALLS):
            ask(None)
    return time.perf_counter() - start


class _Counter:
    def __init__(self) -> None:
        self.sum = 0

    def add(self, value: int) -> None:
        self.sum += value


def _plain_python(rounds: int) -> int:
    """What a pipeline's host code is made of: calls, attributes, look-ups, small objects."""
    counter, seen = _Counter(), dict[int, tuple[int, int]]()
    for i in range(rounds):
        counter.add(i & 7)
        seen[i & 255] = (i, counter.sum)
    return counter.sum + len(seen)


@lru_cache(maxsize=1)
def _driver() -> Callable[[Any], int] | None:
    """``cuStreamQuery`` of the CUDA driver API; None where the driver's library is not found."""
    try:
        function: Callable[[Any], int] = ctypes.CDLL("libcuda.so.1").cuStreamQuery
    except (OSError, AttributeError):
        return None
    return function
