"""Processes, memory and files of an A/B comparison: what the conductor's decisions stand on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath

from pytest_fluxperf.ab.protocol import (
    Prepared,
)
from pytest_fluxperf.results import TRACES

_MEMORY_MARGIN = 1.05


_MEMORY_RESERVE_MIB = 1024.0
"""What a second process needs beside the first one's peak: a device context, and fragmentation."""


@contextmanager
def _until_terminated() -> Iterator[None]:
    """Leave in order when told to end, so that both sides do; signals reach the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def trace_folder(run: str) -> PurePath:
    """Where the traces of a side's process lie, relative to the comparison's folder."""
    return PurePath(TRACES, run)


def fits(first: Prepared, second_held_mib: float) -> bool:
    """Whether a second process can run beside the first, judged by what the first one holds when it is warm.

    The second may already hold memory from earlier tests, which it will use again.
    """
    need = _MEMORY_MARGIN * first.held_mib + _MEMORY_RESERVE_MIB
    return first.free_mib + second_held_mib >= need
