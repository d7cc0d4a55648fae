"""NVIDIA's management library: opened for a block, and asked for what a card, driver or package may not support."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def session() -> Iterator[Any]:
    """``pynvml`` for the duration of a block; None without the package, or where no driver answers."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # there is nothing to read
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def optional(library: Any, name: str, *arguments: Any) -> Any | None:
    """What the library's function ``name`` answers; None where card, driver or package do not support it."""
    try:
        return getattr(library, name)(*arguments)
    except (library.NVMLError, AttributeError):
        return None


def text(value: str | bytes) -> str:
    """A name or UUID, which older packages give as bytes."""
    return value.decode() if isinstance(value, bytes) else value
