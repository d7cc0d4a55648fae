"""Mutations that keep most of a file's structure, so that they reach what lies behind the first check."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

MARK = "campaign"
"""In every payload, so that what comes out can be searched for it."""

SECRET = "secret.png"
"""A file that lies outside of every folder that is read; payloads name it."""

PAYLOADS = (
    f"<script>alert('{MARK}')</script>", f"<img src=x onerror=alert('{MARK}')>", f"</style><script>{MARK}</script>",
    f"javascript:alert('{MARK}')", f"\n::error::{MARK}\n", f"\r::warning::{MARK}", f"\x1b[2J\x1b]0;{MARK}\x07",
    f"\u202e{MARK}\u2066", f"[{MARK}](javascript:{MARK})", f"| {MARK} |\n|---|", f"@{MARK} #1 GH-12 `{MARK}`",
    f"../{SECRET}", f"../../{SECRET}", f"/etc/passwd\0{MARK}", "{{ 7 * 7 }}", "\ud800".encode("utf-8", "surrogatepass"),
    "x" * 100_000, "ä" * 4_000, "a/" * 3_000, "", " ", "NaN", "null",
)  # fmt: skip
"""Strings for every place that takes one; bytes are spelled as an escape of half a character."""

NUMBERS = (
    0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, -(2**63), 0.0, -0.0, 1e-320, 1e308, -1e308,
    1.7976931348623157e308, 0.1 + 0.2,
)  # fmt: skip
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"": 0}, "", 0)
_HALF = "@half-a-character@"

Place = tuple[Any, Any]
"""A container and the key or index in it."""


def places(content: Any, allowed: Callable[[Any], bool] = lambda _: True) -> Iterator[Place]:
    """Every place in plain builtins, but for what lies below a key that is not ``allowed``."""
    keys = list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else []
    for key in keys:
        if allowed(key):
            yield content, key
            yield from places(content[key], allowed)


def mutate(content: Any, random: Random, allowed: Callable[[Any], bool] = lambda _: True) -> Any:
    """A copy of ``content`` with one to three mutations."""
    content = copy.deepcopy(content)
    for _ in range(random.randint(1, 3)):
        if not (found := list(places(content, allowed))):
            break
        _change(*random.choice(found), random, found)
    return content


def _change(container: Any, key: Any, random: Random, found: list[Place]) -> None:
    value = container[key]
    kind = random.random()
    if kind < 0.45:  # another value of the same type
        container[key] = _like(value, random)
    elif kind < 0.60:
        container[key] = copy.deepcopy(random.choice(OTHERS))
    elif kind < 0.72:
        del container[key]
    elif kind < 0.84:  # what stands in another place
        other, where = random.choice(found)
        if isinstance(other, dict) == (where in other if isinstance(other, dict) else False) or (
            isinstance(other, list) and isinstance(where, int) and where < len(other)
        ):
            container[key] = copy.deepcopy(other[where])
    elif isinstance(value, list) and value:
        container[key] = value * random.choice((2, 50))
    elif isinstance(value, dict):
        value[random.choice(("new", "", f"<b>{MARK}", "format", "__class__"))] = random.choice(NUMBERS)
    else:
        container[key] = nest(value, random.choice((3, 300)))


def _like(value: Any, random: Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return random.choice(NUMBERS) if random.random() < 0.7 else value * random.choice((-1, 0.5, 2, 1e6))
    if isinstance(value, str):
        payload = random.choice(PAYLOADS)
        return _HALF if isinstance(payload, bytes) else payload + value if random.random() < 0.3 else payload
    if isinstance(value, list):
        return random.sample(value, len(value))[: random.randint(0, len(value))]
    return {} if isinstance(value, dict) else random.choice(PAYLOADS[:3])


def nest(value: Any, depth: int) -> Any:
    """``value`` in ``depth`` lists."""
    for _ in range(depth):
        value = [value]
    return value


def encode(content: Any, random: Random) -> bytes:
    """JSON of ``content``; in one of ten with what no writer writes."""
    raw = json.dumps(content).replace(_HALF, "\\ud800").encode()
    return damage(raw, random) if random.random() < 0.1 else raw


def damage(raw: bytes, random: Random) -> bytes:
    """Bytes that are torn, flipped, doubled, nested without end, or no text at all."""
    at = random.randrange(len(raw) + 1)
    flipped = bytes([random.randrange(256)])
    return random.choice(
        (
            raw[:at], raw[:at] + flipped + raw[at + 1 :], raw[:at] + b"[" * 100_000 + raw[at:], raw + raw, b"",
            b"\xef\xbb\xbf" + raw, b'{"format": ' + b'{"a":' * 100_000, raw.replace(b"1", b"1e400", 1),
            raw.replace(b"1", b"NaN", 1), raw[:at] + b"\0\xff\xfe" + raw[at:], raw.replace(b"1", b"1" * 5000, 1),
        )
    )  # fmt: skip
