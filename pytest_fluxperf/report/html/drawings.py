"""Plots as inline SVG that follows the page's colours, drawn by matplotlib.

Every plot is drawn with the colours of :data:`INK` and friends, which the page replaces: each becomes a CSS
custom property, so that one drawing serves light and dark. Text stays text.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pytest_fluxperf.report.row import PromptPair, Row, slowdown
from pytest_fluxperf.report.text import percent, seconds

INK, MUTED, LINE, BAND = "#010203", "#010204", "#010205", "#010206"
NOW, BEFORE, BAD, GOOD, PAPER = "#010207", "#010208", "#010209", "#01020a", "#01020b"

_PROPERTIES = {
    INK: "--ink", MUTED: "--muted", LINE: "--line", BAND: "--band", NOW: "--now", BEFORE: "--before",
    BAD: "--bad", GOOD: "--good", PAPER: "--surface",
}  # fmt: skip

_WIDTH = 6.0
"""Inches of every plot, 432 units: small enough to be readable at the width of a telephone."""

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "path.simplify": False,
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.labelsize": 11,
    "axes.linewidth": 1,
    "axes.unicode_minus": True,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "figure.facecolor": "none",
}


@dataclass(frozen=True)
class Point:
    """One recipe in the scatter of speed against quality; ``before`` is its baseline (x, y)."""

    label: str
    x: float
    y: float
    before: tuple[float, float] | None
    tone: str = ""
    """``bad``, ``good`` or nothing."""
    group: int = 0
    """Number of the machine, told apart by the marker."""
    target: str = ""
    """Fragment of the page that a click leads to."""


@dataclass(frozen=True)
class Mark:
    """A latency without a quality figure, as published; ``known`` when a recipe of the run does the same."""

    label: str
    x: float
    known: bool


_LEAST_SPAN = 0.01
"""Least height of the scatter's axis of SSIM, FLIP or LPIPS: less is no difference, and must not look like one."""
_MARKERS = "os^vP"
_STRIP = 0.11
"""Height of the strip of published latencies, as a fraction of the axes."""


def scatter(points: Sequence[Point], metric: str, *, rising: bool, published: Sequence[Mark] = ()) -> str:
    """Latency (s) against an image metric for all recipes, better towards the top left; the baseline is hollow.

    Published latencies come without the metric, so they stand in a strip of their own. Empty without points.
    """
    if not points:
        return ""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure("scatter", 4.1, 0.66, 0.5)
        axes.grid(visible=True)
        titles: dict[str, str] = {}
        targets: dict[str, str] = {}
        for i, point in enumerate(points):
            marker = _MARKERS[point.group % len(_MARKERS)]
            if point.before is not None:
                axes.plot(*zip(point.before, (point.x, point.y), strict=True), color=BEFORE, lw=1, zorder=1)
                _dot(axes, *point.before, edge=BEFORE, face=PAPER, size=5, gid=f"b{i}", marker=marker)
                titles[f"b{i}"] = f"{point.label}, baseline: {_at(*point.before, metric)}"
        for i, point in enumerate(points):
            colour = {"bad": BAD, "good": GOOD}.get(point.tone, NOW)
            marker = _MARKERS[point.group % len(_MARKERS)]
            _dot(axes, point.x, point.y, edge=PAPER, face=colour, size=8, gid=f"n{i}", marker=marker)
            titles[f"n{i}"] = f"{point.label}: {_at(point.x, point.y, metric)}"
            targets[f"n{i}"] = point.target
        axes.set_xlabel("p50 latency (s) · left is faster")
        axes.set_ylabel(f"{metric} · up is closer")
        axes.margins(0.1, 0.12)
        axes.autoscale_view()
        low, high = sorted(axes.get_ylim())
        if high - low < _LEAST_SPAN:
            low, high = (low + high - _LEAST_SPAN) / 2, (low + high + _LEAST_SPAN) / 2
        axes.ticklabel_format(useOffset=False)
        if published:
            # the strip takes the bottom of the axes
            low, high = (low - _STRIP * (high - low), high) if rising else (low, high + _STRIP * (high - low))
        axes.set_ylim((low, high) if rising else (high, low))
        if published:
            _published(axes, published, titles)
        _label(figure, axes, points, _STRIP if published else 0.0)
        summary = "; ".join(titles[f"n{i}"] for i in range(min(len(points), 40)))
        title = f"Speed against {metric} of {len(points)} recipes"
        return _svg(figure, "scatter", title, summary, titles, targets)


def _published(axes: Any, marks: Sequence[Mark], titles: dict[str, str]) -> None:
    across = axes.get_xaxis_transform()
    axes.plot([0, 1], [_STRIP] * 2, transform=axes.transAxes, color=LINE, lw=1, zorder=1)
    for i, mark in enumerate(marks):
        axes.plot(
            mark.x, _STRIP / 2, transform=across, ls="", zorder=3, gid=f"p{i}",
            marker="D", ms=5, mew=1.2, mfc=MUTED if mark.known else PAPER, mec=MUTED,
        )  # fmt: skip
        titles[f"p{i}"] = f"published: {mark.label}, {seconds(mark.x)} s"
    bottom = axes.transData.inverted().transform(axes.transAxes.transform((0, _STRIP)))[1]
    low, high = sorted((bottom, axes.get_ylim()[1]))
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= high])
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, *(0.96 * m.x for m in marks)), max(high, *(1.02 * m.x for m in marks)))


def changes(row: Row, name: str) -> str:
    """Change of every prompt against its baseline, with the tolerance band and the judged interval.

    Without a baseline, the latency of every prompt. Empty without generations.
    """
    pairs = row.prompts
    if not pairs:
        return ""
    paired = [p for p in pairs if p.change is not None]
    with mpl.rc_context(_STYLE):
        return _paired(row, paired, name) if paired else _unpaired(pairs, name)


def history(row: Row, name: str) -> str:
    """Median latency of each of the baseline's runs, and now. Empty with fewer than two runs."""
    medians = [float(np.median([s.latency_s for s in run.samples])) for run in row.runs if run.samples]
    if len(medians) < 2 or row.p50_s is None:
        return ""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure("history", 1.4, 0.62, 0.3)
        places = list(range(len(medians) + 1))
        axes.axhline(float(np.median(medians)), color=LINE, lw=1)
        axes.plot(places[:-1], medians, color=BEFORE, lw=1, marker="o", ms=5, mfc=PAPER, mec=BEFORE)
        _dot(axes, places[-1], row.p50_s, edge=PAPER, face=NOW, size=8)
        dates = [run.time_utc[:10] for run in row.runs if run.samples]
        axes.set_xticks([0, places[-2], places[-1]], [dates[0], dates[-1] if len(dates) > 2 else "", "now"])
        axes.set_ylabel("p50 (s)")
        axes.margins(0.08, 0.25)
        axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(3))
        words = ", ".join(f"{d} {seconds(m)} s" for d, m in zip(dates, medians, strict=True))
        return _svg(figure, name, "Median latency of the baseline's runs", f"{words}, now {seconds(row.p50_s)} s")


def _paired(row: Row, paired: Sequence[PromptPair], name: str) -> str:
    speed = row.speed
    judged = speed is not None and speed.low is not None and speed.high is not None
    places: list[float] = [p.index for p in paired]
    bottom = max(places) + 1.6
    figure, axes = _figure("paired", 0.65 + 0.21 * (max(places) + 1 + 1.6 * judged), 0.4, 0.48)
    tolerance = speed.tolerance if speed is not None and speed.tolerance is not None else None
    if tolerance is not None:
        axes.axvspan(-tolerance * 100, tolerance * 100, color=BAND, lw=0)
    axes.axvline(0, color=BEFORE, lw=1)
    values = [100 * (p.change or 0.0) for p in paired]
    axes.hlines(places, 0, values, color=LINE, lw=1.5)
    axes.plot(values, places, ls="", marker="o", ms=7, mfc=NOW, mec=PAPER)
    words = ", ".join(f"prompt {p.index + 1} {percent(p.change)}" for p in paired)
    labels = [str(p.index + 1) if len(places) <= 60 or p.index % 5 == 4 else "" for p in paired]
    if judged and speed is not None and speed.low is not None and speed.high is not None:
        bounds = sorted(slowdown(speed, value) for value in (speed.low, speed.high))
        centre = slowdown(speed, speed.change or 0.0)
        colour = {"regressed": BAD, "improved": GOOD}.get(speed.verdict, INK)
        low, high = (100 * v for v in bounds)
        axes.plot([low, high], [bottom] * 2, color=colour, lw=2, solid_capstyle="butt")
        axes.plot([low, high], [bottom] * 2, color=colour, ls="", marker="|", ms=9, mew=2)
        axes.plot(100 * centre, bottom, ls="", marker="D", ms=7, mfc=colour, mec=PAPER)
        places, labels = [*places, bottom], [*labels, "all"]
        words += f"; judged {percent(centre)}, interval {percent(bounds[0])} to {percent(bounds[1])}"
    axes.set_yticks(places, labels)
    axes.yaxis.set_inverted(True)
    low, high = axes.get_xlim()
    # Room on both sides of zero, so that calm does not look like drama.
    reach = 100 * max(2.2 * (tolerance or 0.02), 0.02)
    axes.set_xlim(min(low, -reach), max(high, reach))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    kind = "latency relative to the reference recipe" if row.relative else "latency"
    axes.set_xlabel(f"change of {kind} against the baseline (%)")
    band = "" if tolerance is None else f"; tolerance ±{percent(tolerance, sign=False)}"
    return _svg(figure, name, "Change of every prompt against its baseline", words + band)


def _unpaired(pairs: Sequence[PromptPair], name: str) -> str:
    figure, axes = _figure("unpaired", 0.65 + 0.21 * len(pairs), 0.4, 0.48)
    places = [p.index for p in pairs]
    axes.plot([p.now_s for p in pairs], places, ls="", marker="o", ms=7, mfc=NOW, mec=PAPER)
    axes.set_yticks(places, [str(p + 1) for p in places])
    axes.yaxis.set_inverted(True)
    axes.grid(visible=True, axis="x")
    axes.margins(0.1, 0.08)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("latency of each prompt (s), no baseline")
    words = ", ".join(f"prompt {p.index + 1} {seconds(p.now_s)} s" for p in pairs)
    return _svg(figure, name, "Latency of every prompt", words)


@cache
def _blank(kind: str) -> tuple[Figure, Any]:  # noqa: ARG001
    """A figure to be drawn on again and again: making axes and ticks anew takes longer than drawing."""
    figure = Figure()
    FigureCanvasSVG(figure)
    return figure, figure.add_axes((0, 0, 1, 1))


def _figure(kind: str, height: float, left: float, bottom: float) -> tuple[Figure, Any]:
    """An empty figure ``height`` inches high, with room for the labels at the left and at the bottom."""
    figure, axes = _blank(kind)
    for artist in (*axes.lines, *axes.patches, *axes.collections, *axes.texts):
        artist.remove()
    figure.set_size_inches(_WIDTH, height)
    top, right = 0.08, 0.12
    axes.set_position((left / _WIDTH, bottom / height, 1 - (left + right) / _WIDTH, 1 - (bottom + top) / height))
    axes.relim()
    axes.autoscale(enable=True)
    return figure, axes


def _dot(
    axes: Any, x: float, y: float, *, edge: str, face: str, size: float, gid: str | None = None, marker: str = "o"
) -> None:
    axes.plot(x, y, ls="", marker=marker, ms=size, mec=edge, mfc=face, mew=1.2, zorder=3, gid=gid)


def _at(x: float, y: float, metric: str) -> str:
    return f"{seconds(x)} s, {metric} {y:.3g}"


def _label(figure: Figure, axes: Any, points: Sequence[Point], strip: float) -> None:
    """Write labels where they cover neither a point nor another label nor the ``strip`` at the bottom (a fraction of
    the axes); the rest keep their tooltip.

    What failed or improved comes first, and may stand further away, at the end of a line.
    """
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    scale = figure.dpi / 72
    near = 12 * scale
    places = axes.transData.transform([(p.x, p.y) for p in points])
    taken = [(x - 5 * scale, y - 5 * scale, x + 5 * scale, y + 5 * scale) for x, y in places]
    for point in points:  # nor the line to a baseline
        if point.before is not None:
            line = axes.transData.transform(np.linspace((point.x, point.y), point.before, 24)[3:])
            taken += [(x - scale, y - 3 * scale, x + scale, y + 3 * scale) for x, y in line]
    taken.append((frame.x0, frame.y0, frame.x1, frame.y0 + strip * frame.height))
    for i in sorted(range(len(points)), key=lambda i: (points[i].tone == "", points[i].x)):
        x, y = places[i]
        # 0.56 em is a fair mean width of a sans-serif letter; text is laid out by the browser.
        wide, high = len(points[i].label) * 10 * 0.56 * scale, 12 * scale
        for dx, dy, anchor in _around(8 * scale):
            left = x + dx - {"left": 0.0, "center": wide / 2, "right": wide}[anchor]
            box = (left, y + dy - high / 2, left + wide, y + dy + high / 2)
            inside = box[0] > frame.x0 + 2 and box[2] < frame.x1 + 8 and box[1] > frame.y0 and box[3] < frame.y1
            distant = max(abs(dx), abs(dy)) > near
            crossed = [(x + t * dx, y + t * dy) for t in np.linspace(0.2, 1, 12)] if distant else []
            covers = (box, *((a - 1, b - 1, a + 1, b + 1) for a, b in crossed))
            others = [other for k, other in enumerate(taken) if k != i]
            if inside and not any(_overlap(one, other) for one in covers for other in others):
                taken.append(box)
                back = axes.transData.inverted().transform
                if distant:  # a line says whose it is
                    end = back((x + dx, y + dy - (math.copysign(high / 2, dy) if anchor == "center" else 0)))
                    axes.plot(*zip((points[i].x, points[i].y), end, strict=True), color=MUTED, lw=0.6, zorder=0)
                axes.text(*back((x + dx, y + dy)), points[i].label, ha=anchor, va="center", size=10, color=INK)
                break


def _around(gap: float) -> Iterator[tuple[float, float, str]]:
    """Places for a label around a point, the best first: offset and horizontal anchor."""
    yield from ((gap, 0, "left"), (-gap, 0, "right"), (0, 1.4 * gap, "center"), (0, -1.4 * gap, "center"))
    for reach in (2.6, 4.0, 5.5):
        for sign in (1, -1):
            yield 0.5 * reach * gap, sign * reach * gap, "left"
            yield -0.5 * reach * gap, sign * reach * gap, "right"


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


_ID = re.compile(r' id="([^"]+)"')
_REFERENCE = re.compile(r'(url\(#|href="#)([^")]+)')
_GEOMETRY = re.compile(r'\b(d|x|y|x1|x2|y1|y2|width|height|points|transform|viewBox)="([^"]*)"')
_LONG = re.compile(r"-?\d+\.\d{2,}")
_GROUP = re.compile(r'<g id="([bnp]\d+)"[^>]*>')


def _svg(
    figure: Figure,
    name: str,
    title: str,
    words: str,
    titles: dict[str, str] | None = None,
    targets: dict[str, str] | None = None,
) -> str:
    """The figure as SVG fit to be put into the page, with ids that start with ``name``."""
    target = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(
            target,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="patch_1">.*?</g>', "", text, count=1, flags=re.DOTALL)  # the figure's empty ground
    if titles:
        leads = {gid: f' data-open="{html.escape(target)}"' for gid, target in (targets or {}).items() if target}
        text = _GROUP.sub(lambda m: f"<g{leads.get(m[1], '')}><title>{html.escape(titles[m[1]])}</title>", text)
    text = _renamed(text, name)
    text = _GEOMETRY.sub(lambda m: f'{m[1]}="{_LONG.sub(_short, m[2])}"', text)
    text = re.sub(r" font-family: [^;\"]*;?", "", text)
    text = re.sub(r' transform="rotate\(-0 [^)]*\)"| clip-path="[^"]*"', "", text)
    for sentinel, variable in _PROPERTIES.items():
        text = text.replace(sentinel, f"var({variable})")
    text = re.sub(r">\s+<", "><", text).replace("\n", " ")
    text = re.sub(r"<clipPath.*?</clipPath>", "", text)
    for _ in range(3):  # groups that hold nothing, or one thing, say nothing
        text = re.sub(r"<g/>|<(g|defs)></\1>", "", text)
        text = re.sub(r"<g>(<(?:path|text|use) [^<]*(?:/>|</text>))</g>", r"\1", text)
    text = re.sub(r" +", " ", text)
    text = re.sub(r'style="[^"]*"', lambda m: m[0].replace(": ", ":").replace("; ", ";"), text)
    box = re.search(r'viewBox="[^"]*"', text)
    opening = (
        f'<svg class="plot" role="img" aria-labelledby="{name}-t {name}-d" {box[0] if box else ""}>'
        f'<title id="{name}-t">{html.escape(title)}</title><desc id="{name}-d">{html.escape(words)}</desc>'
    )
    return opening + text[text.index(">") + 1 :].strip()


def _renamed(text: str, name: str) -> str:
    """Keep only the ids that are referred to, prefixed so that no two plots of a page collide."""
    used = {m[1]: f"{name}-{i}" for i, m in enumerate(dict.fromkeys(_REFERENCE.findall(text)))}
    text = _ID.sub(lambda m: f' id="{used[m[1]]}"' if m[1] in used else "", text)
    return _REFERENCE.sub(lambda m: m[1] + used[m[2]], text)


def _short(match: re.Match[str]) -> str:
    return f"{float(match[0]):.1f}".removesuffix(".0")


_REACH = 3.0
"""Half the width of an interval's drawing, in tolerances."""


def interval(row: Row) -> str:
    """The judged interval of the change of speed on the band of tolerated change; slower is to the right.

    Empty where nothing was judged. What lies outside of three tolerances is drawn at the edge.
    """
    speed = row.speed
    if speed is None or speed.change is None or not speed.tolerance:
        return ""
    reach = _REACH * speed.tolerance

    def at(value: float) -> str:
        return f"{45 + 41 * max(-1.0, min(1.0, slowdown(speed, value) / reach)):.1f}"

    band = 41 / _REACH
    words = f"change {percent(speed.change)}"
    line = ""
    if speed.low is not None and speed.high is not None:
        line = f'<path class="span" d="M{at(speed.low)} 8H{at(speed.high)}"/>'
        words += f", interval {percent(speed.low)} to {percent(speed.high)}"
    return (
        f'<svg class="mark {speed.verdict.replace(" ", "-")}" viewBox="0 0 90 16" role="img" '
        f'aria-label="{words}; tolerance {percent(speed.tolerance, sign=False)}">'
        f'<path class="band" d="M{45 - band:.1f} 2h{2 * band:.1f}v12h-{2 * band:.1f}z"/>'
        '<path class="zero" d="M45 1v14"/>'
        f'{line}<circle cx="{at(speed.change)}" cy="8" r="3.2"/></svg>'
    )


def steps(pair: PromptPair) -> str:
    """The denoising steps of one prompt, computed ones filled; the baseline's newest run in a thin line below."""
    now, before = pair.decisions or "", pair.baseline_decisions or ""
    width = max(len(now), len(before))
    words = f"prompt {pair.index + 1}: {pair.computed} of {len(now)} steps computed"
    if before:
        words += f", baseline {before.count('1')} of {len(before)}"
    below = f'<path class="before" d="{_runs(before, 9)}"/>' if before else ""
    return (
        f'<svg class="steps" viewBox="0 0 {width} 11" preserveAspectRatio="none" role="img" aria-label="{words}">'
        f'<path class="all" d="M0 3.5h{len(now)}"/><path class="now" d="{_runs(now, 3.5)}"/>{below}</svg>'
    )


def _runs(decisions: str, y: float) -> str:
    """A line for each run of computed steps; the style's dashes part the steps and start anew with each line."""
    return "".join(f"M{m.start()} {y}h{m.end() - m.start()}" for m in re.finditer("1+", decisions))
