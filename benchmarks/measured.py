"""Puts what was measured on GPUs into docs/measured.md, each in the words of the program that measured it.

    python benchmarks/measured.py

Nothing is measured: the figures are those in docs/measurements.tar.xz.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ab_full_size
import every_recipe
import harness_overhead
import kernel_breakdown
import recorded_pairs
import repeatability

from pytest_fluxperf.baseline.published import load
from pytest_fluxperf.report.overhead import spent
from pytest_fluxperf.results import RunDocument
from tools.recorded import answers
from tools.recorded.archive import recorded, recorded_json
from tools.recorded.cost import cost_model
from tools.recorded.costtable import cost_tables
from tools.recorded.sections import write_section
from tools.recorded.table import recipe_tables

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "measured.md"


def sections() -> Iterator[tuple[str, str]]:
    """Name and text of every section of the page."""
    yield "harness", fenced(harness_overhead.show(read("harness")))
    yield "compile", fenced(answers.compile_times(read("compile")))
    yield "one base", fenced(answers.one_base(read("one-base")))
    yield "one base from disk", fenced(answers.one_base(read("one-base-disk")))
    yield "every", fenced(every_recipe.show(read("every")["rows"]))
    yield "undone", fenced(every_recipe.show(read("undone")["rows"]))
    yield "kernels", kernel_breakdown.show(read("kernels"), longest=12)
    yield "tried", tried(recorded("h200-tried-*"))
    yield "repeatability", fenced(repeatability.show(read("repeatability")))
    yield "sessions", between_sessions(recorded("h200-results*"))
    yield from on_an_h100()
    compared = {title: found for title, found in read("ab").items() if isinstance(found, dict)}
    yield "ab", fenced("\n".join(ab_full_size.show(title, found) for title, found in compared.items()))


def on_an_h100() -> Iterator[tuple[str, str]]:
    whole, extra, results, shorter = (
        recorded(f"{gpu}-{kind}*") for gpu in ("h100", "h200") for kind in ("results", "extra")
    )
    small = recorded("h100-small-pictures.json")
    published = load(ROOT / "baselines")
    yield "table", recipe_tables(whole + extra, published)
    yield "cost", cost_tables(*cost_model([document.results for document in whole]))
    yield "sessions on an H100", between_sessions(whole)
    pairs = [recorded_pairs.show(documents) for documents in (whole + extra, results + shorter)]
    yield "pairs", fenced("\n".join(pairs))
    yield "small pictures", recipe_tables(small, published)
    shares = repeatability.busy(small).items()
    yield "busy with small pictures", fenced("\n".join(f"{name:<20} device busy {share:.0%}" for name, share in shares))
    yield "kernels on an H100", kernel_breakdown.show(read("kernels", "h100"), longest=12)
    yield "options on an H100", fenced(answers.inductor_options(read("options", "h100")))
    yield "every on an H100", fenced(every_recipe.show(read("every", "h100")["rows"]))


def between_sessions(documents: list[RunDocument]) -> str:
    """How far sessions of the suite agree, the device's share of their generations, and what their time went into."""
    busy = repeatability.busy(documents)
    rows = [{**row, "busy": busy[row["recipe"]]} for row in repeatability.analyse(repeatability.read(documents))]
    times = [f"a session of {len(document.results)} recipes: {spent(document)}" for document in documents]
    return fenced("\n".join([repeatability.show({"rows": rows}), *times]))


def tried(documents: Iterable[RunDocument]) -> str:
    """What was measured once and is no recipe of the suite."""
    lines = ["| recipe | p50 s | least s | most s | first picture s | n |", "|---|--:|--:|--:|--:|--:|"]
    for result in (result for document in documents for result in document.results):
        measured = result.measurement
        latencies = [generation.latency_s for generation in measured.generations]
        p50, least, most = statistics.median(latencies), min(latencies), max(latencies)
        first = (measured.prepare_s or 0.0) + measured.warmup_s[0]
        lines.append(f"| `{result.recipe}` | {p50:.3f} | {least:.3f} | {most:.3f} | {first:.1f} | {len(latencies)} |")
    return "\n".join(lines) + "\n"


def read(name: str, gpu: str = "h200") -> dict[str, Any]:
    found: dict[str, Any] = recorded_json(f"{gpu}-{name}.json")
    return found


def fenced(text: str) -> str:
    return f"```text\n{text}\n```\n"


if __name__ == "__main__":
    for name, text in sections():
        write_section(PAGE, name, text)
