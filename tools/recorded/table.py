"""The table of recipes, as Markdown: what was measured in one or more sessions, published figures beside it.

Sessions of the same GPU and workload are put together: a figure is the median over all their generations, with the
number of generations and of sessions beside it. Speed-ups alone are taken session by session, since cards of one kind
differ. A whole recipe (``fastest``) counts as what it stood for when it was measured, which may change.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pytest_fluxperf.baseline.published import Published, matching
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.machine.software import STACK
from pytest_fluxperf.report.overhead import Spent, of_sessions, spent
from pytest_fluxperf.results import Environment, Generation, Hardware, Result, RunDocument, Workload

HEADER = (
    "| recipe | p50 s | speed-up | computed steps | peak GiB | ready after s | n (sessions) | published |",
    "|---|---:|---:|---:|---:|---:|---:|---|",
)


@dataclass
class _Row:
    """One recipe's results in all sessions."""

    recipe: str
    sessions: dict[str, list[Result]] = field(default_factory=dict)

    @property
    def results(self) -> list[Result]:
        return [result for results in self.sessions.values() for result in results]

    @property
    def title(self) -> str:
        """The recipe, and the whole recipes that stood for it."""
        names = sorted({f"`{result.recipe}`" for result in self.results if result.recipe != self.recipe})
        return f"`{self.recipe}`" + (f" (as {', '.join(names)})" if names else "")

    @property
    def generations(self) -> list[Generation]:
        return _generations(self.results)

    @property
    def p50_s(self) -> float:
        return _p50_s(self.results)

    def speedup(self, base: _Row) -> float:
        """Median over the sessions that measured both; of all sessions together where none did."""
        both = [
            _p50_s(base.sessions[session]) / _p50_s(results)
            for session, results in self.sessions.items()
            if session in base.sessions
        ]
        return statistics.median(both) if both else base.p50_s / self.p50_s


def _generations(results: Iterable[Result]) -> list[Generation]:
    return [generation for result in results for generation in result.measurement.generations]


def _p50_s(results: Iterable[Result]) -> float:
    return statistics.median(generation.latency_s for generation in _generations(results))


@dataclass
class _Table:
    hardware: Hardware
    workload: Workload
    environment: Environment
    rows: dict[str, _Row] = field(default_factory=dict)
    caveats: dict[str, None] = field(default_factory=dict)
    sessions: dict[str, Spent] = field(default_factory=dict)
    """Session → what its time went into."""


def recipe_tables(documents: Iterable[RunDocument], published: Sequence[Published] = ()) -> str:
    """A table for every GPU and workload among the documents, recipes in the order of their speed.

    Broken and invalid results are left out. Raises :class:`FluxPerfError` when nothing is left.
    """
    tables: dict[tuple[str, str], _Table] = {}
    for document in documents:
        for result in document.results:
            if result.ran is None or result.judgement.verdict in ("broken", "invalid"):
                continue
            key = (document.hardware.name, result.workload.digest)
            table = tables.setdefault(key, _Table(document.hardware, result.workload, document.environment))
            table.caveats |= dict.fromkeys(document.warnings) if result.workload.model.endswith("@random") else {}
            if time := spent(document):
                table.sessions[document.session] = time
            row = table.rows.setdefault(result.ran, _Row(result.ran))
            row.sessions.setdefault(document.session, []).append(result)
    if not tables:
        raise FluxPerfError("no measured recipe is among these results")
    return "\n\n".join("\n".join(_render(table, published)) for table in tables.values()) + "\n"


def _render(table: _Table, published: Sequence[Published]) -> Iterable[str]:
    w = table.workload
    packages = ", ".join(
        f"{name} {table.environment.packages[name]}" for name in STACK[:6] if name in table.environment.packages
    )
    size = f"{w.width}×{w.height}"
    yield f"**{table.hardware.name}, {w.model}, {size}, {w.steps} steps, guidance {w.guidance:g}** ({packages})"
    yield ""
    yield from HEADER
    rows = {result.recipe: row for row in table.rows.values() for result in row.results} | table.rows
    references = {result.reference for row in table.rows.values() for result in row.results}
    for row in sorted(table.rows.values(), key=lambda row: -row.p50_s):
        base = rows.get(row.results[-1].reference)
        speedup = f"{row.speedup(base):.2f}×" if base else "–"
        yield (
            "| "
            + " | ".join(
                [
                    row.title,
                    f"{row.p50_s:.3f}",
                    speedup,
                    _steps(row, w.steps),
                    _memory(row, base),
                    _ready(row),
                    f"{len(row.generations)} ({len(row.sessions)})",
                    _published(row.recipe, matching(published, row.recipe, w)),
                ]
            )
            + " |"
        )
    yield ""
    named = ", ".join(f"`{name}`" for name in sorted(references & set(rows)))
    yield (
        f"Speed-up{f's are over {named} of the same session (median)' if named else ': no reference was measured'}. "
        "Ready after: loading or switching, and the first picture, in the slowest session. Published: seconds and "
        "speed-up over the source's own base, on the GPU named and in the dtype named where it is another; what to "
        "know of those with * is noted beside them in baselines/published."
    )
    if table.sessions:
        yield f"\nWall time of the sessions ({len(table.sessions)}): {of_sessions([*table.sessions.values()])}."
    for caveat in table.caveats:
        yield f"\n{caveat[0].upper()}{caveat[1:]}."


def _steps(row: _Row, steps: int) -> str:
    counts = [generations.computed_steps for generations in row.generations if generations.computed_steps is not None]
    if not counts:
        return "–"
    mean = statistics.mean(counts)
    return f"{mean:.0f} of {steps}" if mean == int(mean) else f"{mean:.1f} of {steps}"


def _memory(row: _Row, base: _Row | None) -> str:
    peak, other = _peak(row), _peak(base) if base else None
    if peak is None:
        return "–"
    change = f" ({peak / other - 1:+.0%})" if other and base is not row else ""
    return f"{peak / 1024:.1f}{change}"


def _peak(row: _Row) -> float | None:
    peaks = [r.measurement.peak_memory_mib for r in row.results if r.measurement.peak_memory_mib is not None]
    return statistics.median(peaks) if peaks else None


def _ready(row: _Row) -> str:
    times = [
        (r.measurement.prepare_s or 0.0) + r.measurement.warmup_s[0] for r in row.results if r.measurement.warmup_s
    ]
    return f"{max(times):.1f}" if times else "–"


def _published(recipe: str, found: Sequence[Published]) -> str:
    cells = []
    for entry in found:
        seconds = "" if entry.seconds is None else f"{entry.seconds:g} s"
        speedup = "" if entry.figure.speedup is None else f"{entry.figure.speedup:.2f}×"
        estimate = "" if entry.figure.measured else ", estimated"
        n = "" if entry.figure.n is None else f", n={entry.figure.n}"
        theirs = str(entry.figure.recipe).partition("+")[0]
        dtype = "" if theirs == recipe.partition("+")[0] else f", {theirs}"
        mark = "*" if entry.figure.note else ""
        figure = " ".join(filter(None, (seconds, speedup)))
        cells.append(f"{figure}{mark} ({entry.table.gpu.upper()}{dtype}{n}{estimate})")
    return "; ".join(cells)
