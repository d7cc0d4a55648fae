"""The page's plots as inline SVG; the style sheet gives their colours, so one drawing serves light and dark."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pytest_fluxperf.report.html.labels import Label, draw_labels
from pytest_fluxperf.report.html.svg import Frame, Scale, element, line, number, plot, words
from pytest_fluxperf.report.prompts import PromptPair
from pytest_fluxperf.report.row import Row, slowdown
from pytest_fluxperf.report.text import percent, seconds
from pytest_fluxperf.results import median_latency_s

_WIDTH = 432.0
"""Units of every plot: small enough to be readable at the width of a telephone."""
_RIGHT, _TOP = _WIDTH - 9, 6.0
_PITCH = 15.0
"""Units from one prompt to the next."""
_LEAST_SPAN = 0.01
"""Least height of the scatter's axis of SSIM, FLIP or LPIPS: less is no difference, and must not look like one."""
_STRIP = 32.0
"""Height of the strip of published latencies, units."""
_LABELS = 200
"""Points of a scatter that are labelled at most, as far as there is room."""
MOST_PROMPTS = 200
"""Prompts that a plot, a list or a table of the page shows at most."""


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


def _circle(x: float, y: float, r: float, class_: str) -> str:
    return element("circle", class_=class_, cx=x, cy=y, r=r)


def _shape(*corners: tuple[float, float]) -> Callable[[float, float, float, str], str]:
    """Draws a polygon around a point; ``corners`` are in radii."""

    def draw(x: float, y: float, r: float, class_: str) -> str:
        places = "L".join(f"{number(x + r * dx)} {number(y + r * dy)}" for dx, dy in corners)
        return element("path", class_=class_, d=f"M{places}z")

    return draw


_DIAMOND = _shape((0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0))
_SHAPES = (
    _circle,
    _shape((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    _shape((0, -1.15), (1.1, 0.9), (-1.1, 0.9)),
    _shape((0, 1.15), (1.1, -0.9), (-1.1, -0.9)),
    _shape(
        (-0.4, -1.1), (0.4, -1.1), (0.4, -0.4), (1.1, -0.4), (1.1, 0.4), (0.4, 0.4), (0.4, 1.1), (-0.4, 1.1),
        (-0.4, 0.4), (-1.1, 0.4), (-1.1, -0.4), (-0.4, -0.4),
    ),
)  # fmt: skip
"""Of the machines, in the order of the page's key."""


def scatter(points: Sequence[Point], metric: str, *, rising: bool, published: Sequence[Mark] = ()) -> str:
    """Latency (s) against an image metric for all recipes, better towards the top left; the baseline is hollow.

    Published latencies come without the metric, so they stand in a strip of their own. Empty without points.
    """
    if not points:
        return ""
    height = 295.0
    bottom = height - 36
    floor = bottom - (_STRIP if published else 0)
    before = [point.before for point in points if point.before is not None]
    y = Scale.around([p.y for p in points] + [y for _, y in before], floor, _TOP, 0.12, _LEAST_SPAN)
    y = y if rising else replace(y, low=y.high, high=y.low)
    xs = [p.x for p in points] + [x for x, _ in before]
    x = Scale.around(xs + [mark.x for mark in published], 48, _RIGHT, 0.08)
    plane = Frame(x, y)
    across, up = x.ticks(7), y.ticks(8)
    order = sorted(range(len(points)), key=lambda i: (points[i].tone == "", points[i].x))[:_LABELS]
    named = [_label(point, x, y) for point in points]
    titles = [f"{point.label}: {_at(point.x, point.y, metric)}" for point in points]
    parts = [
        plane.grid(across, up),
        replace(plane, y=replace(y, start=bottom)).below(across, "p50 latency (s) · left is faster"),
        plane.left(up, f"{metric} · up is closer"),
        line("axis", (48, floor), (48, bottom)),
        *(_mark(mark, x, (floor + bottom) / 2) for mark in published),
        line("axis", (48, floor), (_RIGHT, floor)) if published else "",
        *(_before(point, x, y, metric) for point in points if point.before is not None),
        *(_point(point, x, y, title) for point, title in zip(points, titles, strict=True)),
        draw_labels(named, order, x, y),
    ]
    title = f"Speed against {metric} of {len(points)} recipes"
    return plot("scatter", title, "; ".join(titles[:40]), (_WIDTH, height), *parts)


def _at(x: float, y: float, metric: str) -> str:
    return f"{seconds(x)} s, {metric} {y:.3g}"


def _label(point: Point, x: Scale, y: Scale) -> Label:
    before = None if point.before is None else (x.at(point.before[0]), y.at(point.before[1]))
    return Label(point.label, (x.at(point.x), y.at(point.y)), before)


def _before(point: Point, x: Scale, y: Scale, metric: str) -> str:
    assert point.before is not None
    place = x.at(point.before[0]), y.at(point.before[1])
    return element(
        "g",
        words("title", f"{point.label}, baseline: {_at(*point.before, metric)}"),
        line("before", place, (x.at(point.x), y.at(point.y))),
        _SHAPES[point.group % len(_SHAPES)](*place, 2.6, "before hollow"),
    )


def _point(point: Point, x: Scale, y: Scale, title: str) -> str:
    shape = _SHAPES[point.group % len(_SHAPES)](x.at(point.x), y.at(point.y), 4.2, f"dot {point.tone or 'now'}")
    return element("g", words("title", title), shape, data_open=point.target or None)


def _mark(mark: Mark, x: Scale, y: float) -> str:
    title = words("title", f"published: {mark.label}, {seconds(mark.x)} s")
    return element("g", title, _DIAMOND(x.at(mark.x), y, 3.2, "published" if mark.known else "published hollow"))


def changes(row: Row, name: str) -> str:
    """Change of every prompt against its baseline, with the tolerance band and the judged interval.

    Without a baseline, the latency of every prompt. Empty without generations.
    """
    pairs = row.prompts[:MOST_PROMPTS]
    paired = [pair for pair in pairs if pair.change is not None]
    if paired:
        return _paired(row, paired, name)
    return _unpaired(pairs, name) if pairs else ""


def _paired(row: Row, pairs: Sequence[PromptPair], name: str) -> str:
    speed = row.speed
    judged = speed is not None and speed.low is not None and speed.high is not None
    rows = max(pair.index for pair in pairs) + 1
    bottom = _TOP + _PITCH * (rows + 1.6 * judged) + 3
    tolerance = speed.tolerance if speed is not None else None
    values = [100 * change for pair in pairs for change in pair.changes]
    # Room on both sides of zero, so that calm does not look like drama.
    reach = 100 * max(2.2 * (tolerance or 0.02), 0.02)
    x = Scale.around([*values, *(100 * bound for bound in _bounds(row)), -reach, reach], 30, _RIGHT, 0.04)
    frame = Frame(x, Scale(rows + 1.6 * judged, 0, bottom - 3, _TOP))
    parts = []
    if tolerance is not None:
        left, right = (max(x.start, min(x.end, x.at(side * 100 * tolerance))) for side in (-1, 1))
        parts.append(element("rect", class_="band", x=left, y=_TOP, width=right - left, height=bottom - _TOP))
    parts.append(line("before", (x.at(0), _TOP), (x.at(0), bottom)))
    ends: list[tuple[float, str]] = []
    for pair in pairs:
        y = frame.y.at(pair.index + 0.5)
        parts.append(line("stem", (x.at(0), y), (x.at(100 * (pair.change or 0.0)), y)))
        parts += [_circle(x.at(100 * one), y, 2, "every") for one in pair.changes if len(pair.changes) > 1]
        parts.append(_circle(x.at(100 * (pair.change or 0.0)), y, 3.6, "dot now"))
        ends.append((pair.index + 0.5, str(pair.index + 1) if rows <= 60 or pair.index % 5 == 4 else ""))
    text = ", ".join(f"prompt {pair.index + 1} {percent(pair.change)}" for pair in pairs)
    if judged:
        parts.append(_interval(row, x, frame.y.at(rows + 1.1)))
        ends.append((rows + 1.1, "all"))
        low, high = _bounds(row)
        text += f"; judged {percent(row.slowdown)}, interval {percent(low)} to {percent(high)}"
    text += "" if tolerance is None else f"; tolerance ±{percent(tolerance, sign=False)}"
    kind = "latency relative to the reference recipe" if row.relative else "latency"
    below = Frame(x, Scale(0, 1, bottom, _TOP)).below(x.ticks(7), f"change of {kind} against the baseline (%)")
    title = "Change of every prompt against its baseline"
    return plot(name, title, text, (_WIDTH, bottom + 35), *parts, frame.left(ends, axis=False), below)


def _bounds(row: Row) -> list[float]:
    """The judged interval as relative change of latency, the lower bound first; empty where there is none."""
    speed = row.speed
    if speed is None or speed.low is None or speed.high is None:
        return []
    return sorted(slowdown(speed, value) for value in (speed.low, speed.high))


def _interval(row: Row, x: Scale, y: float) -> str:
    """The judged interval with its ends and its centre."""
    low, high = (x.at(100 * bound) for bound in _bounds(row))
    tone = {"regressed": "bad", "improved": "good"}.get(row.speed.verdict if row.speed else "", "ink")
    ends = [line(f"end {tone}", (end, y - 4.5), (end, y + 4.5)) for end in (low, high)]
    centre = _DIAMOND(x.at(100 * row.slowdown), y, 3.6, f"dot {tone}")
    return "".join([line(f"end {tone}", (low, y), (high, y)), *ends, centre])


def _unpaired(pairs: Sequence[PromptPair], name: str) -> str:
    rows = max(pair.index for pair in pairs) + 1
    bottom = _TOP + _PITCH * rows + 3
    x = Scale.around([pair.now_s for pair in pairs], 30, _RIGHT, 0.1)
    frame = Frame(x, Scale(rows, 0, bottom - 3, _TOP))
    ends = [(pair.index + 0.5, str(pair.index + 1) if rows <= 60 or pair.index % 5 == 4 else "") for pair in pairs]
    dots = [_circle(x.at(pair.now_s), frame.y.at(pair.index + 0.5), 3.6, "dot now") for pair in pairs]
    ticks = x.ticks(6)
    base = Frame(x, Scale(0, 1, bottom, _TOP))
    below = base.below(ticks, "latency of each prompt (s), no baseline")
    text = ", ".join(f"prompt {pair.index + 1} {seconds(pair.now_s)} s" for pair in pairs)
    size = (_WIDTH, bottom + 35)
    left = frame.left(ends, axis=False)
    return plot(name, "Latency of every prompt", text, size, base.grid(ticks), left, below, *dots)


def history(row: Row, name: str) -> str:
    """Median latency of each of the baseline's runs, and now. Empty with fewer than two runs."""
    runs = [(run.time_utc[:10], median_latency_s(run.samples)) for run in row.runs if run.samples]
    if len(runs) < 2 or row.p50_s is None:
        return ""
    height, bottom = 101.0, 79.0
    medians = [value for _, value in runs]
    y = Scale.around([*medians, row.p50_s], bottom, _TOP, 0.25)
    x = Scale(-0.3, len(runs) + 0.3, 48, _RIGHT)
    places = [(x.at(i), y.at(value)) for i, value in enumerate(medians)]
    last = len(runs) - 1
    dates = [(float(len(runs)), "now"), (0.0, runs[0][0]), (float(last), runs[-1][0] if last > 1 else "")]
    middle = y.at(statistics.median(medians))
    frame = Frame(x, y)
    parts = [
        line("grid", (48, middle), (_RIGHT, middle)),
        frame.below(sorted(dates)),
        frame.left(y.ticks(4), "p50 (s)"),
        line("before", *places),
        *(_circle(*place, 2.6, "before hollow") for place in places),
        _circle(x.at(len(runs)), y.at(row.p50_s), 4.2, "dot now"),
    ]
    text = ", ".join(f"{date} {seconds(value)} s" for date, value in runs[-MOST_PROMPTS:])
    title = "Median latency of the baseline's runs"
    return plot(name, title, f"{text}, now {seconds(row.p50_s)} s", (_WIDTH, height), *parts)


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

    def at(change: float) -> float:
        return 45 + 41 * max(-1.0, min(1.0, change / reach))

    band = 41 / _REACH
    text = f"change {percent(speed.change)}"
    parts = [
        element("rect", class_="band", x=45 - band, y=2.0, width=2 * band, height=12.0),
        line("zero", (45, 1), (45, 15)),
    ]
    if bounds := _bounds(row):
        parts.append(line("span", (at(bounds[0]), 8), (at(bounds[1]), 8)))
        text += f", interval {percent(speed.low)} to {percent(speed.high)}"
    return element(
        "svg",
        *parts,
        element("circle", cx=at(row.slowdown), cy=8.0, r=3.2),
        class_=f"mark {speed.verdict.replace(' ', '-')}",
        viewBox="0 0 90 16",
        role="img",
        aria_label=f"{text}; tolerance {percent(speed.tolerance, sign=False)}",
    )


def steps(pair: PromptPair) -> str:
    """The denoising steps of one prompt, computed ones filled; the baseline's newest run in a thin line below."""
    now, before = pair.decisions or "", pair.baseline_decisions or ""
    text = f"prompt {pair.index + 1}: {pair.computed} of {len(now)} steps computed"
    if before:
        text += f", baseline {before.count('1')} of {len(before)}"
    return element(
        "svg",
        element("path", class_="all", d=f"M0 3.5h{len(now)}"),
        element("path", class_="now", d=_runs(now, 3.5)),
        element("path", class_="before", d=_runs(before, 9)) if before else "",
        class_="steps",
        viewBox=f"0 0 {max(len(now), len(before))} 11",
        preserveAspectRatio="none",
        role="img",
        aria_label=text,
    )


def _runs(decisions: str, y: float) -> str:
    """A line for each run of computed steps; the style's dashes part the steps and start anew with each line."""
    place, parts = 0, []
    for step, group in itertools.groupby(decisions):
        length = len(list(group))
        if step == "1":
            parts.append(f"M{place} {number(y)}h{length}")
        place += length
    return "".join(parts)
