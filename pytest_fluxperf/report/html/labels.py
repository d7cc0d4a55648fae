"""Labels of points, each where it covers neither a point nor another label."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pytest_fluxperf.report.html.svg import Scale, label, line, width_of

FONT = 10.0
"""Height of a label's letters, units."""
_GAP = 8.0
"""From a point to its label, units."""
_HALF = 5.0
"""Half the side of the square that a point takes, units."""

Place = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Label:
    """A point's text; ``line`` is the other end of a line that belongs to the point."""

    text: str
    at: Place
    line: Place | None = None


class _Taken:
    """Which units of an area are taken; as quick with thousands of points as with ten."""

    def __init__(self, area: Box) -> None:
        self._left, self._top, right, bottom = area
        self._rows = [bytearray(math.ceil(right - self._left) + 1) for _ in range(math.ceil(bottom - self._top) + 1)]

    def _cells(self, box: Box) -> Iterator[tuple[bytearray, int, int]]:
        wide = len(self._rows[0])
        first = min(wide, max(0, math.floor(box[0] - self._left)))
        last = max(first, min(wide, math.ceil(box[2] - self._left)))
        top, bottom = max(0, math.floor(box[1] - self._top)), max(0, math.ceil(box[3] - self._top))
        for row in self._rows[top:bottom]:
            yield row, first, last

    def add(self, box: Box) -> None:
        for row, first, last in self._cells(box):
            row[first:last] = b"\1" * (last - first)

    def free(self, box: Box) -> bool:
        return not any(1 in row[first:last] for row, first, last in self._cells(box))


def draw_labels(labels: Sequence[Label], first: Iterable[int], x: Scale, y: Scale) -> str:
    """The labels that find a place between the scales' ends, tried in the order of ``first`` (indices).

    A label that has no room beside its point may stand further away, at the end of a line.
    """
    area = (x.start, min(y.start, y.end), x.end, max(y.start, y.end))
    taken = _Taken(area)
    for one in labels:
        taken.add(_around(one.at, _HALF))
        if one.line is not None:
            for place in _between(one.at, one.line, 24, 3):
                taken.add((place[0] - 1, place[1] - 3, place[0] + 1, place[1] + 3))
    parts = []
    for index in first:
        one = labels[index]
        for end, anchor in _places(one.at):
            box = _box(one.text, end, anchor)
            leader = _leader(one.at, end, anchor)
            inside = area[0] + 2 < box[0] and box[2] < area[2] + 8 and area[1] < box[1] and box[3] < area[3]
            if inside and taken.free(box) and all(taken.free(_around(place, 1)) for place in leader):
                taken.add(box)
                parts += [line("leader", one.at, leader[-1])] if leader else []
                parts.append(label(one.text, end[0], end[1] + 0.35 * FONT, "label", anchor))
                break
    return "".join(parts)


def _places(at: Place) -> Iterator[tuple[Place, str]]:
    """Places for a label around a point, the best first, and how the text is anchored there."""
    x, y = at
    yield (x + _GAP, y), "start"
    yield (x - _GAP, y), "end"
    yield (x, y - 1.5 * _GAP), "middle"
    yield (x, y + 1.5 * _GAP), "middle"
    for reach in (2.6, 4.0, 5.5):
        for way in (-1, 1):
            yield (x + 0.5 * reach * _GAP, y + way * reach * _GAP), "start"
            yield (x - 0.5 * reach * _GAP, y + way * reach * _GAP), "end"


def _box(text: str, at: Place, anchor: str) -> Box:
    wide, high = width_of(text, FONT), 1.2 * FONT
    left = at[0] - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
    return left, at[1] - high / 2, left + wide, at[1] + high / 2


def _leader(at: Place, end: Place, anchor: str) -> list[Place]:
    """The line that says whose a distant label is, but for its beginning inside the point's own square."""
    if max(abs(end[0] - at[0]), abs(end[1] - at[1])) <= 1.5 * _GAP:
        return []
    back = 2 if anchor == "start" else -2
    whole = _between(at, (end[0] - back, end[1]), 24, 0)
    return [place for place in whole if max(abs(place[0] - at[0]), abs(place[1] - at[1])) > _HALF + 2]


def _between(one: Place, other: Place, count: int, skip: int) -> list[Place]:
    """Places on the line from one to the other, without the first ``skip``."""
    shares = (i / (count - 1) for i in range(skip, count))
    return [(one[0] + t * (other[0] - one[0]), one[1] + t * (other[1] - one[1])) for t in shares]


def _around(at: Place, half: float) -> Box:
    return at[0] - half, at[1] - half, at[0] + half, at[1] + half
