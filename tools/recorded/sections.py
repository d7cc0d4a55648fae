"""Generated sections of Markdown: between ``<!-- fluxperf NAME: begin -->`` and ``<!-- fluxperf NAME: end -->``."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_fluxperf.errors import FluxPerfError


def read_section(path: Path, name: str) -> str:
    """What stands in the section; raises :class:`FluxPerfError` where it is not there exactly once."""
    return _parts(path, name)[2].removeprefix("\n")


def write_section(path: Path, name: str, text: str) -> None:
    """Replace what stands in the section by ``text``, which ends in a line break; raises as above."""
    parts = _parts(path, name)
    parts[2] = f"\n{text}"
    path.write_text("".join(parts), encoding="utf-8")


def _parts(path: Path, name: str) -> list[str]:
    begin, end = f"<!-- fluxperf {name}: begin -->", f"<!-- fluxperf {name}: end -->"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FluxPerfError(f"{path}: cannot be read: {error.strerror}") from None
    parts = re.split(f"({re.escape(begin)}|{re.escape(end)})", text)
    if parts[1::2] != [begin, end]:
        raise FluxPerfError(f"{path}: must hold the lines '{begin}' and '{end}' once, in this order")
    return parts
