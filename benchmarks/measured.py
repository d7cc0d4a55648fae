"""Puts what the programs here measured on a GPU into docs/measured.md, each in the words that it prints itself.

    python benchmarks/measured.py

Nothing is measured: the figures are those in docs/measurements/.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ab_full_size
import compile_time
import harness_overhead
import kernel_breakdown
import one_base
import repeatability

from pytest_fluxperf.report.sections import write_section

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "measured.md"
MEASUREMENTS = ROOT / "docs" / "measurements"


def sections() -> Iterator[tuple[str, str]]:
    """Name and text of every section of the page."""
    yield "harness", fenced(harness_overhead.show(read("harness")))
    yield "compile", fenced(compile_time.show(read("compile")))
    yield "one base", fenced(one_base.show(read("one-base")))
    yield "kernels", kernel_breakdown.show(read("kernels"), longest=12)
    yield "repeatability", fenced(repeatability.show(read("repeatability")))
    sessions = sorted(MEASUREMENTS.glob("h200-results*.json"))
    busy = repeatability.busy(sessions)
    rows = [{**row, "busy": busy[row["recipe"]]} for row in repeatability.analyse(repeatability.read(sessions))]
    yield "sessions", fenced(repeatability.show({"rows": rows}))
    compared = {title: found for title, found in read("ab").items() if isinstance(found, dict)}
    yield "ab", fenced("\n".join(ab_full_size.show(title, found) for title, found in compared.items()))


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MEASUREMENTS / f"h200-{name}.json").read_text("utf-8"))
    return found


def fenced(text: str) -> str:
    return f"```text\n{text}\n```\n"


if __name__ == "__main__":
    for name, text in sections():
        write_section(PAGE, name, text)
