"""The summary at the end of a pytest run, and the progress line during it. Standard library only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pytest_fluxperf.report.row import Row
from pytest_fluxperf.report.sentence import verdict_sentence
from pytest_fluxperf.report.text import columns, fit, number, percent, plural, printed, seconds, steps, test_name, wrap
from pytest_fluxperf.report.view import Overview, overview
from pytest_fluxperf.results import FAILING, RunDocument, Verdict


class Markup(Protocol):
    """Colours a text; ``TerminalWriter.markup`` of pytest is one."""

    def __call__(self, text: str, **markup: bool) -> str: ...  # noqa: D102


def plain(text: str, **markup: bool) -> str:  # noqa: ARG001
    """A :class:`Markup` without colours."""
    return text


COLOURS: dict[Verdict, dict[str, bool]] = {
    "broken": {"red": True, "bold": True},
    "regressed": {"red": True, "bold": True},
    "invalid": {"purple": True, "bold": True},
    "no baseline": {"yellow": True, "bold": True},
    "inconclusive": {"yellow": True},
    "improved": {"cyan": True},
    "passed": {"green": True},
}


@dataclass(frozen=True)
class _Column:
    title: str
    cell: Callable[[Row], str]
    rank: int
    """Columns of high rank are the first to go on a narrow terminal."""
    right: bool = True


def _change(row: Row) -> str:
    unit = " speed-up" if row.speed is not None and row.speed.metric == "speed-up" else ""
    return percent(row.change) + unit


def _interval(row: Row) -> str:
    if row.speed is None or row.speed.low is None or row.speed.high is None:
        return "–"
    low, high = (percent(v).removesuffix(" %") for v in (row.speed.low, row.speed.high))
    return f"[{low}, {high}]"


def _speedup(row: Row) -> str:
    return "–" if row.speedup is None else f"{row.speedup:.2f}×"


_COLUMNS = (
    _Column("verdict", lambda row: row.verdict, 0, right=False),
    _Column("recipe", lambda row: printed(row.label, 300), 0, right=False),
    _Column("gpu", lambda row: row.machine, 1, right=False),
    _Column("p50 s", lambda row: seconds(row.p50_s), 2),
    _Column("p90 s", lambda row: seconds(row.p90_s), 8),
    _Column("p99 s", lambda row: seconds(row.p99_s), 9),
    _Column("n", lambda row: str(row.n), 4),
    _Column("change", _change, 1),
    _Column("interval", _interval, 3),
    _Column("speed-up", _speedup, 5),
    _Column("steps/cached", lambda row: steps(row.computed, row.cached), 6),
    _Column("peak MiB", lambda row: number(row.memory_mib, 0), 10),
    _Column("SSIM", lambda row: number(row.quality.ssim, 3), 7),
    _Column("PSNR dB", lambda row: number(row.quality.psnr_db, 1), 11),
)

_RECIPE_LEAST = 14


def terminal_summary(
    documents: RunDocument | Sequence[RunDocument], width: int = 80, markup: Markup = plain
) -> list[str]:
    """Lines for pytest's terminal summary: the sentence, the counts, the table (worst first), what to do.

    No line is wider than ``width`` columns, down to a width of 40.
    """
    view = overview(documents)
    lines = [markup(line, **COLOURS[view.tone]) for line in wrap(verdict_sentence(view), width)]
    counts = [f"{n} {verdict}" for verdict, n in view.counts.items()]
    skipped = sum(len(d.skipped) for d in view.documents)
    if skipped:
        counts.append(f"{skipped} skipped")
    lines += wrap(" · ".join([view.gated_text, *counts, *_places(view)]), width)
    for warning in dict.fromkeys(w for d in view.documents for w in d.warnings):
        lines += [markup(line, yellow=True) for line in wrap(f"warning: {warning}", width)]
    if view.rows:
        lines += ["", *_table(view, width, markup)]
    lines += _advice(view, width)
    return lines


def progress_line(
    test: str, recipe: str | None, index: int, total: int, p50_s: float | None = None, width: int = 80
) -> str:
    """One line while a test runs: recipe, generation ``index`` of ``total`` (from 1; 0: none), running median."""
    tail = (f" {index}/{total}" if total else "") + (f"  p50 {seconds(p50_s)} s" if p50_s is not None else "")
    name = printed(test_name(test), 500)
    if recipe and recipe not in name:
        name = f"{name} {printed(recipe, 200)}"
    room = max(8, width - columns(tail))
    return (fit(name, room).rstrip() if columns(name) > room else name) + tail


def _places(view: Overview) -> list[str]:
    return [f"{machine}: {d.hardware.name}" for machine, d in zip(view.machines, view.documents, strict=True)]


def _table(view: Overview, width: int, markup: Markup) -> list[str]:
    shown = [c for c in _COLUMNS if c.title != "gpu" or len(view.documents) > 1]
    cells = {c.title: [c.cell(row) for row in view.rows] for c in _COLUMNS}
    shown = [c for c in shown if c.rank == 0 or any(cell not in ("–", "") for cell in cells[c.title])]
    widths = {c.title: max(columns(c.title), *(columns(cell) for cell in cells[c.title])) for c in shown}

    def total() -> int:
        return sum(widths[c.title] for c in shown) + 2 * (len(shown) - 1)

    # First columns go, then the longest recipe is cut.
    while total() > width and max(c.rank for c in shown) > 2:
        shown.remove(max(shown, key=lambda c: c.rank))
    if total() > width:
        widths["recipe"] = max(_RECIPE_LEAST, widths["recipe"] - (total() - width))
    while total() > width and len(shown) > 2:
        shown.remove(max(shown, key=lambda c: c.rank))

    lines = [markup("  ".join(fit(c.title, widths[c.title], right=c.right) for c in shown).rstrip(), bold=True)]
    for i, row in enumerate(view.rows):
        first, *rest = (fit(cells[c.title][i], widths[c.title], right=c.right) for c in shown)
        lines.append("  ".join([markup(first, **COLOURS[row.verdict]), *rest]).rstrip())
        if row.verdict in FAILING or row.verdict == "inconclusive":
            message = row.result.judgement.message
            lines += [markup(f"  {line}", light=True) for line in wrap(message, width - 2)]
    return lines


def _advice(view: Overview, width: int) -> list[str]:
    advice = []
    moved = any(document.update for document in view.documents)
    counts = Counter(row.verdict for row in view.rows if row.document.against == "baselines")
    if (n := counts["improved"]) and not moved:
        advice.append(
            f"{plural(n, 'test')} improved: accept the new level with --fluxperf-update=all, "
            "or a later loss of it passes unseen."
        )
    if (n := counts["no baseline"]) and not moved:
        advice.append(f"{plural(n, 'test')} without a baseline: record with --fluxperf-update.")
    if n := counts["inconclusive"]:
        advice.append(f"{plural(n, 'test')} inconclusive: repeat in another session.")
    if n := sum(row.verdict == "inconclusive" and row.document.against == "session" for row in view.rows):
        advice.append(
            f"{plural(n, 'test')} inconclusive: one recorded session (R = 1) does not show how much sessions differ; "
            "a baseline of three sessions or fluxperf ab decides more."
        )
    wrapped = [line for text in advice for line in wrap(text, width)]
    return ["", *wrapped] if wrapped else []
