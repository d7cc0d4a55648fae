"""Starting and stopping torch's profiler without what its library announces on standard error every time."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ANNOUNCEMENT = b"USDT:"
"""How libkineto's lines begin that tell of a start or a stop; its log level hides them together with errors only."""


def start(profiler: Any) -> None:
    """Start a ``torch.profiler.profile``."""
    with _unannounced():
        profiler.start()


def stop(profiler: Any) -> None:
    """Stop it."""
    with _unannounced():
        profiler.stop()


@contextmanager
def _unannounced() -> Iterator[None]:
    """Hold back what is written to file descriptor 2, and pass on all but the announcements."""
    try:
        sys.stderr.flush()
        stderr = os.dup(2)
    except (AttributeError, OSError, ValueError):  # a process without standard error
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            if kept := b"".join(line for line in held if not line.startswith(_ANNOUNCEMENT)):
                os.write(2, kept)
