"""Drawings so small and so many that they are written by hand: SVG of a path or two, coloured by the page's style."""

from __future__ import annotations

import re

from pytest_fluxperf.report.text import percent
from pytest_fluxperf.report.view import PromptPair, Row, slowdown

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
