"""Elements of SVG, scales and axes, of which the page's plots are made.

One unit is one CSS pixel where a plot is shown at its natural width; colours and fonts are the style sheet's, by class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import escape

FONT = 11.0
"""Height of the axes' letters, units."""
_MEAN_WIDTH = 0.58
"""Mean width of a sans-serif letter in ems; the browser lays the text out, by a font that is not known here."""
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
"""Steps between ticks that people read easily, times a power of ten."""


def number(value: float) -> str:
    """A coordinate with one decimal at most."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def element(tag: str, /, *children: str, **attributes: str | float | None) -> str:
    """One element; ``children`` are markup, attributes are escaped, and left out where None.

    The name of an attribute is written with underscores for hyphens, and ``class_`` for ``class``.
    """
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{value if isinstance(value, str) else number(value)}"'
        for name, value in (
            (name, escape(value) if isinstance(value, str) else value)
            for name, value in attributes.items()
            if value is not None
        )
    )
    return f"<{tag}{shown}>{''.join(children)}</{tag}>" if children else f"<{tag}{shown}/>"


def words(tag: str, text: str, /, **attributes: str | float | None) -> str:
    """An element that holds text."""
    return element(tag, str(escape(text)), **attributes)


def label(text: str, x: float, y: float, class_: str, anchor: str = "start") -> str:
    """Text whose lowest line stands at ``y``; ``anchor`` is ``start``, ``middle`` or ``end``."""
    return words("text", text, class_=class_, x=x, y=y, text_anchor=None if anchor == "start" else anchor)


def line(class_: str, *points: tuple[float, float]) -> str:
    """A line through points."""
    return element("path", class_=class_, d="M" + "L".join(f"{number(x)} {number(y)}" for x, y in points))


def plot(name: str, title: str, description: str, size: tuple[float, float], *parts: str) -> str:
    """A drawing with a title and a description for who does not see it; ``name`` is unique in the page."""
    return element(
        "svg",
        words("title", title, id=f"{name}-t"),
        words("desc", description, id=f"{name}-d"),
        *parts,
        class_="plot",
        role="img",
        aria_labelledby=f"{name}-t {name}-d",
        viewBox=f"0 0 {number(size[0])} {number(size[1])}",
    )


def width_of(text: str, font: float = FONT) -> float:
    """About the width of a text, units."""
    return _MEAN_WIDTH * font * len(text)


@dataclass(frozen=True)
class Scale:
    """Values from ``low`` to ``high`` on the stretch from ``start`` to ``end``, units."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, values: Sequence[float], start: float, end: float, margin: float, least: float = 0.0) -> Scale:
        """A scale that holds all values with a share of ``margin`` on both sides, ``least`` high at least."""
        low, high = min(values), max(values)
        middle, reach = (low + high) / 2, (high - low) * (0.5 + margin)
        # values that are all the same get room around them
        reach = max(reach, least / 2) or abs(middle) * 0.05 or 0.5
        return cls(middle - reach, middle + reach, start, end)

    def at(self, value: float) -> float:
        """Where a value is."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """At most ``most`` round values, at least one step apart, and how each is written."""
        low, high = sorted((self.low, self.high))
        rough = (high - low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * one for one in _STEPS if power * one >= rough * (1 - 1e-9))
        digits = max(0, -math.floor(math.log10(step)))
        digits += round(step * 10**digits, 6) % 1 != 0
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [(i * step, f"{i * step:.{digits}f}".replace("-", "−")) for i in range(first, last + 1)]


@dataclass(frozen=True)
class Frame:
    """The area that a plot's axes enclose."""

    x: Scale
    y: Scale
    """Starts at the bottom of the drawing."""

    def below(self, ticks: Sequence[tuple[float, str]], title: str = "") -> str:
        """The horizontal axis with its labels; those that would touch the one before are left out."""
        bottom = self.y.start
        parts = [line("axis", (self.x.start, bottom), (self.x.end, bottom))]
        reached = -math.inf
        for value, text in ticks:
            x = self.x.at(value)
            parts.append(line("axis", (x, bottom), (x, bottom + 3.5)))
            if text and x - width_of(text) / 2 > reached + 4:
                reached = x + width_of(text) / 2
                parts.append(label(text, x, bottom + 15, "tick", "middle"))
        if title:
            parts.append(label(title, (self.x.start + self.x.end) / 2, bottom + 31, "tick", "middle"))
        return "".join(parts)

    def left(self, ticks: Sequence[tuple[float, str]], title: str = "", *, axis: bool = True) -> str:
        """The vertical axis with its labels."""
        x = self.x.start
        parts = [line("axis", (x, self.y.start), (x, self.y.end))] if axis else []
        for value, text in ticks:
            y = self.y.at(value)
            parts += [line("axis", (x - 3.5, y), (x, y))] if axis else []
            parts.append(label(text, x - 7, y + 4, "tick", "end"))
        if title:
            y = (self.y.start + self.y.end) / 2
            turned = f"rotate(-90 {number(FONT)} {number(y)})"
            parts.append(words("text", title, class_="tick", x=FONT, y=y, text_anchor="middle", transform=turned))
        return "".join(parts)

    def grid(self, across: Sequence[tuple[float, str]], up: Sequence[tuple[float, str]] = ()) -> str:
        """A line for each tick: ``across`` of the horizontal axis, ``up`` of the vertical one."""
        xs = (self.x.at(value) for value, _ in across)
        ys = (self.y.at(value) for value, _ in up)
        return "".join(
            [line("grid", (x, self.y.start), (x, self.y.end)) for x in xs]
            + [line("grid", (self.x.start, y), (self.x.end, y)) for y in ys]
        )
