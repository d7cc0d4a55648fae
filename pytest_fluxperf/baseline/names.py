"""From a pytest node id to the path of its baseline file."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath

_LONGEST = 80
_WORD = rf"[a-z0-9_]{{1,{_LONGEST}}}"
_PLAIN = re.compile(rf"(?:{_WORD}/)*{_WORD}\.py::{_WORD}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._+=,-]+")


def baseline_path(nodeid: str) -> PurePosixPath:
    """``tests/test_a.py::test_b[x:1]`` -> ``tests/test_a/test_b_x_1-0123456789.json``.

    Readable, safe on every file system and different for different node ids, also where letter case does not
    count: unless the whole node id is plain lower-case words, ten digits of its SHA-256 end the name. A plain
    name holds no ``-``, so the two kinds never meet.
    """
    module, _, test = nodeid.partition("::")
    parts = module.removesuffix(".py").split("/")
    if _PLAIN.fullmatch(nodeid):
        return PurePosixPath(*parts, f"{test}.json")
    digest = hashlib.sha256(nodeid.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return PurePosixPath(*map(_safe, parts), f"{_safe(test)}-{digest}.json")


def _safe(part: str) -> str:
    # A leading dot would hide the file or climb out of the folder; a trailing one is lost on some systems.
    return _UNSAFE.sub("_", part)[:_LONGEST].strip("._") or "_"
