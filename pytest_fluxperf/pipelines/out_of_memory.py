"""Device memory that does not suffice: told in one line, what was needed and what was there."""

from __future__ import annotations

import re

SHORT = "the device's memory does not suffice"
"""How every message says so."""

_NEEDED = re.compile(r"[Tt]ried to allocate ([\d.]+ [KMGT]iB)")
_CAPACITY = re.compile(r"total capacity of ([\d.]+ [KMGT]iB)")
_FREE = re.compile(r"of which ([\d.]+ [KMGT]iB) is free")


def shortage(error: BaseException | None) -> str | None:
    """What a ``torch.OutOfMemoryError`` says, as a clause without line breaks; None for any other error.

    The error is known by its name, since torch is not imported here.
    """
    if type(error).__name__ != "OutOfMemoryError":
        return None
    text = " ".join(str(error).split())
    needed, capacity, free = (pattern.search(text) for pattern in (_NEEDED, _CAPACITY, _FREE))
    if not needed:
        return " ".join(text.split()[:40])
    clause = f"it needed {needed[1]} more"
    if free and capacity:
        clause += f" and {free[1]} of the device's {capacity[1]} was free"
    return clause
