"""From a pytest node id to the path of its baseline file."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath

_PLAIN = re.compile(r"(?:[a-z0-9_]+/)*[a-z0-9_]+\.py::[a-z0-9_]+")
_UNSAFE = re.compile(r"[^A-Za-z0-9._+=,-]+")
_LONGEST = 80


def baseline_path(nodeid: str) -> PurePosixPath:
    """``tests/test_a.py::test_b[x:1]`` -> ``tests/test_a/test_b_x_1-0123456789.json``.

    Readable, safe on every file system and different for different node ids, also where letter case does not
    count: unless the whole node id is plain lower-case, ten digits of its SHA-256 end the name. A plain name
    holds no ``-``, so the two kinds never meet.
    """
    module, _, test = nodeid.partition("::")
    *folders, file = module.split("/")
    name = _safe(test)
    if not _PLAIN.fullmatch(nodeid):
        name += "-" + hashlib.sha256(nodeid.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return PurePosixPath(*map(_safe, folders), _safe(file.removesuffix(".py")), name + ".json")


def _safe(part: str) -> str:
    # A leading dot would hide the file or climb out of the folder; a trailing one is lost on some systems.
    return _UNSAFE.sub("_", part)[:_LONGEST].strip("._") or "_"
