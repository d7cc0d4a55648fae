"""``summary.md``: the report as a GitHub job summary and pull-request comment."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.machine.software import Difference
from pytest_fluxperf.report.overhead import spent
from pytest_fluxperf.report.row import Row
from pytest_fluxperf.report.sentence import verdict_sentence
from pytest_fluxperf.report.text import memory, number, percent, plural, printed, seconds, shorten, steps, visible
from pytest_fluxperf.report.view import Overview, overview
from pytest_fluxperf.results import FAILING, Comparison, KernelDiff, RunDocument, Verdict

COMMENT_LIMIT = 65_536
"""Characters that GitHub takes in a comment; a job summary may hold 1 MiB."""

SYMBOLS: dict[Verdict, str] = {
    "broken": "💥",
    "regressed": "🔴",
    "invalid": "🟣",
    "no baseline": "🟠",
    "inconclusive": "🟡",
    "improved": "🔵",
    "passed": "🟢",
}

_MARGIN = 512
_DIFFERENCES = 30
_DETAILS = 20
_CHANGES = 60


def render_markdown(
    documents: RunDocument | Sequence[RunDocument], *, limit: int = COMMENT_LIMIT, artifact_url: str | None = None
) -> str:
    """The run in GitHub-flavoured Markdown, at most ``limit`` bytes (so characters too), worst first.

    What does not fit is left out and counted. ``artifact_url`` links the full report.
    """
    view = overview(documents)
    head = _head(view, artifact_url)
    room = limit - _MARGIN - _size(head)
    table, left_out = _table(view, int(room * 0.6))
    room -= _size(table)
    parts = [head, table]
    for section in (_changes(view), _environment(view), *_details(view), _skipped(view), _machines(view)):
        if section and _size(section) <= room:
            parts.append(section)
            room -= _size(section)
    if left_out:
        parts.append(f"*{left_out} of {len(view.rows)} tests left out to fit; the report has them all.*\n")
    return "\n".join(part for part in parts if part)


def escape(text: str) -> str:
    """``text`` as literal Markdown on one line: no markup, links, mentions, references, HTML, or table breaks.

    GitHub looks for links, mentions and issues in the text that Markdown has left, after entities; a zero-width space
    keeps their parts apart.
    """
    shown = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    shown = shown.replace("#", "&#35;&#8203;").replace("://", ":&#8203;//").replace("@", "&#64;&#8203;")
    shown = re.sub(r"([\\`*_{}\[\]|~$])", r"\\\1", shown)
    shown = re.sub(r"(?i)\b(www)(?=\.)", r"\1&#8203;", shown)
    shown = re.sub(r"(?i)\b(gh-)(?=\d)", r"\1&#8203;", shown)
    return re.sub(r"^(\s*)([-+]|\d+(?=[.)]))", r"\1&#8203;\2", shown)  # no list starts here


def code(text: str) -> str:
    """``text`` as inline code, fit for a table cell."""
    shown = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;")
    shown = re.sub(r"[\\`*_\[\]@~$]", lambda match: f"&#{ord(match[0])};", shown)
    return f"<code>{shown}</code>"


def _size(text: str) -> int:
    return len(text.encode("utf-8"))


def _head(view: Overview, artifact_url: str | None) -> str:
    lines = [f"## {SYMBOLS[view.tone]} {escape(shorten(verdict_sentence(view), 600))}", ""]
    counts = [f"{SYMBOLS[v]} {n} {v}" for v, n in view.counts.items()]
    lines.append(f"**{view.gated_text}** · " + " · ".join([*counts, *_places(view)]))
    if view.gated == 0 and view.rows:
        lines += ["", "> [!CAUTION]", "> **Nothing was gated.** This run compared no test with a baseline."]
    warnings = list(dict.fromkeys(w for d in view.documents for w in d.warnings))
    for warning in warnings[:10]:
        lines += ["", "> [!WARNING]", f"> {escape(shorten(warning, 500))}"]
    if artifact_url:
        lines += ["", f"[Full report with pictures]({_url(artifact_url)})"]
    return "\n".join(lines) + "\n"


def _url(url: str) -> str:
    if not re.fullmatch(r"https?://[!-~]{1,2000}", url) or re.search(r"[()<>\\]", url):
        raise FluxPerfError(f"--artifact-url {printed(url, 100)}: not an http(s) URL")
    return url


def _places(view: Overview) -> list[str]:
    return [
        f"{escape(machine)}: {escape(shorten(d.hardware.name, 80))}"
        for machine, d in zip(view.machines, view.documents, strict=True)
    ]


def _table(view: Overview, room: int) -> tuple[str, int]:
    if not view.rows:
        return "", 0
    machine = len(view.documents) > 1
    quality = [
        (title, name, digits)
        for title, name, digits in (("SSIM", "ssim", 3), ("PSNR dB", "psnr_db", 1), ("LPIPS", "lpips", 3))
        if any(getattr(row.quality, name) is not None for row in view.rows)
    ]
    titles = ["", "recipe", *(["GPU"] if machine else []), "p50 s", "p90 s", "p99 s", "n", "change", "interval"]
    titles += ["speed-up", "steps / cached", "memory", *(title for title, _, _ in quality)]
    left = 3 if machine else 2
    lines = [f"| {' | '.join(titles)} |", "|" + " :-- |" * left + " --: |" * (len(titles) - left)]
    room -= _size("\n".join(lines))
    for i, row in enumerate(view.rows):
        line = _line(row, machine, quality)
        room -= _size(line) + 1
        if room < 0:
            return "\n".join(lines) + "\n", len(view.rows) - i
        lines.append(line)
    return "\n".join(lines) + "\n", 0


def _line(row: Row, machine: bool, quality: Sequence[tuple[str, str, int]]) -> str:
    change, interval = "–", "–"
    if row.speed is not None:
        change = percent(row.change) + (" speed-up" if row.speed.metric == "speed-up" else "")
        if row.speed.low is not None and row.speed.high is not None:
            interval = f"{percent(row.speed.low).removesuffix(' %')} … {percent(row.speed.high)}"
    if row.verdict in FAILING:
        change = f"**{change}**"
    cells = [
        f"{SYMBOLS[row.verdict]} {row.verdict}",
        code(shorten(row.label, 100)),
        *([escape(row.machine)] if machine else []),
        seconds(row.p50_s),
        seconds(row.p90_s),
        seconds(row.p99_s),
        str(row.n),
        change,
        interval,
        "–" if row.speedup is None else f"{row.speedup:.2f}×",
        steps(row.computed, row.cached),
        memory(row.memory_mib),
        *(number(getattr(row.quality, name), digits) for _, name, digits in quality),
    ]
    return f"| {' | '.join(cells)} |"


def _changes(view: Overview) -> str:
    changes = [change.line for document in view.documents for change in document.changes]
    if not changes:
        return ""
    lines = [f"- {escape(shorten(change, 400))}" for change in changes[:_CHANGES]]
    if len(changes) > _CHANGES:
        lines.append(f"- … and {len(changes) - _CHANGES} more")
    return _folded("Baselines, old → new", "\n".join(lines), is_open=True)


def _environment(view: Overview) -> str:
    if not view.differences:
        same = "The environment is the baseline's." if view.environments else ""
        return f"{same}\n" if same else ""
    shown, rest = view.differences[:_DIFFERENCES], view.differences[_DIFFERENCES:]
    lines = ["| environment | baseline | now |", "| :-- | :-- | :-- |", *(_difference(d) for d in shown)]
    if rest:
        lines.append(f"| … and {len(rest)} more | | |")
    suspects = sum(d.suspect for d in view.differences)
    title = f"Environment: {len(view.differences)} differ" + (f", {suspects} of them suspects" if suspects else "")
    return _folded(title, "\n".join(lines), is_open=True)


def _difference(item: Difference) -> str:
    name = f"**{escape(shorten(item.name, 120))}**" if item.suspect else escape(shorten(item.name, 120))
    old, new = (code(shorten(v, 120)) if v else "absent" for v in (item.baseline, item.now))
    return f"| {name} | {old} | {new} |"


def _details(view: Overview) -> list[str]:
    notable = [row for row in view.rows if row.verdict != "passed" or row.result.judgement.warnings]
    sections = []
    for row in notable[:_DETAILS]:
        judgement = row.result.judgement
        lines = [escape(shorten(judgement.message, 1000))]
        lines += [f"- why: {escape(shorten(a, 400))}" for a in judgement.attribution[:5]]
        lines += _comparison(row.result.comparison)
        lines += _kernels(judgement.kernels)
        lines += [f"- {escape(shorten(p, 400))}" for p in row.result.measurement.problems[:5]]
        lines += [f"- {escape(shorten(u, 400))}" for u in row.result.measurement.unfit[:5]]
        lines += [f"- warning: {escape(shorten(w, 400))}" for w in judgement.warnings[:5]]
        lines.append(f"- test: {code(shorten(row.result.test, 300))}")
        title = f"{SYMBOLS[row.verdict]} {code(shorten(row.label, 100))} {row.verdict}"
        sections.append(_folded(title, "\n".join(lines), is_open=row.verdict in FAILING))
    if len(notable) > _DETAILS:
        sections.append(f"*{len(notable) - _DETAILS} more with details in the report.*\n")
    return sections


def _comparison(found: Comparison | None) -> list[str]:
    """What two environments in turns came to."""
    if found is None:
        return []
    how = (
        "generations in turns"
        if found.mode == "interleaved"
        else "whole processes in turns" + (f" ({escape(shorten(found.reason, 300))})" if found.reason else "")
    )
    left = "" if found.decided else ", not decided"
    return [
        f"- old and new environment, {how}: {percent(found.change)} ({percent(found.low)} … {percent(found.high)})"
        f"{left}, {found.generations} generations in {plural(len(found.blocks), 'block')}"
    ]


def _kernels(found: KernelDiff | None) -> list[str]:
    """The difference by kernels, one line each, and what they leave over."""
    if found is None:
        return []
    lines = [
        f"- kernel {code(shorten(c.family, 120))} {c.change}: "
        f"{1e3 * c.baseline_s:.2f} → {1e3 * c.now_s:.2f} ms an image"
        for c in found.changes[:5]
    ]
    outside = "" if found.idle_s is None else f"time outside of kernels {1e3 * found.idle_s:+.2f} ms, "
    rest = found.others_s + sum(c.change_s for c in found.changes[5:])
    lines.append(
        f"- of {1e3 * found.difference_s:+.2f} ms an image: {outside}other kernels {1e3 * rest:+.2f} ms, "
        f"unexplained {1e3 * found.unexplained_s:+.2f} ms"
    )
    return lines


def _skipped(view: Overview) -> str:
    skipped = [s for d in view.documents for s in d.skipped]
    if not skipped:
        return ""
    lines = [f"- {code(shorten(s.recipe or s.test, 120))}: {escape(shorten(s.reason, 300))}" for s in skipped[:50]]
    if len(skipped) > 50:
        lines.append(f"- … and {len(skipped) - 50} more")
    return _folded(f"{len(skipped)} skipped", "\n".join(lines))


def _machines(view: Overview) -> str:
    lines = []
    for d in view.documents:
        command = code(shorten(" ".join(d.command), 300)) if d.command else ""
        time = f" · {found}" if (found := spent(d)) else ""
        when, gpu, python, plugin = (
            escape(shorten(part, 80)) for part in (d.time_utc, d.gpu, d.environment.python, d.plugin)
        )
        lines.append(f"{when} · {gpu} · Python {python} · pytest\\-fluxperf {plugin} {command}{time}")
    return "<sub>" + "<br>".join(lines) + "</sub>\n"


def _folded(title: str, body: str, *, is_open: bool = False) -> str:
    return f"<details{' open' if is_open else ''}><summary>{title}</summary>\n\n{body}\n\n</details>\n"
