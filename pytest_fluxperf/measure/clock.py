"""Points in the device's time line.

GPU work is asynchronous: a host clock read without synchronizing measures launches. A CUDA clock marks
with events on the current stream, which cost about a microsecond and do not stall the queue; a CPU clock
reads the monotonic host clock.
"""

from __future__ import annotations

import time
from typing import Any, Protocol


class Clock(Protocol):
    """Marks points of device time; intervals may be read after :meth:`synchronize`."""

    def mark(self) -> Any:
        """A point now, in the order of the work given to the device."""

    def synchronize(self) -> None:
        """Wait until the device has done everything given to it."""

    def seconds(self, start: Any, end: Any) -> float:
        """Seconds between two marks, valid after :meth:`synchronize`."""


class WallClock:
    """The monotonic host clock: for work that is done when the call returns."""

    def mark(self) -> float:
        """Host time in seconds."""
        return time.perf_counter()

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def seconds(self, start: float, end: float) -> float:
        """Seconds between two marks."""
        return end - start


class CudaClock:
    """CUDA events on the current stream of one device."""

    def __init__(self, device: str) -> None:
        import torch

        self._cuda: Any = torch.cuda
        self._device = torch.device(device)

    def mark(self) -> Any:
        """An event recorded on the current stream."""
        event = self._cuda.Event(enable_timing=True)
        event.record(self._cuda.current_stream(self._device))
        return event

    def synchronize(self) -> None:
        """Wait for all streams of the device."""
        self._cuda.synchronize(self._device)

    def seconds(self, start: Any, end: Any) -> float:
        """Seconds between two events (resolution about 0.5 µs)."""
        return float(start.elapsed_time(end)) / 1e3


def clock_for(device: str) -> Clock:
    """The clock that belongs to a torch device string."""
    return CudaClock(device) if device.startswith("cuda") else WallClock()
