"""The renderer: layouts → pictures, in batches, on any device, from signed distance functions.

Objects are saturated and the backgrounds are not, so that a picture can be taken apart again by its chroma
(`checker`). Shading, soft shadows, rims and two fine grains are there to be lost: they make a drop in quality
visible and measurable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .scenes import BACKGROUNDS, CANVAS, COLORS, PATTERNS, SHAPES, Layout

MAX_THINGS = 3
_THING_FIELDS = 6  # present, x, y, radius, colour, shape

THING_RGB = torch.tensor(
    [
        [0.88, 0.16, 0.14],  # red
        [0.96, 0.52, 0.08],  # orange
        [0.95, 0.86, 0.14],  # yellow
        [0.20, 0.70, 0.20],  # green
        [0.14, 0.80, 0.84],  # cyan
        [0.16, 0.32, 0.88],  # blue
        [0.52, 0.18, 0.78],  # purple
        [0.97, 0.46, 0.70],  # pink
    ]
)
"""Colour of the objects, in the order of `scenes.COLORS`; RGB in [0, 1]."""

BACKGROUND_RGB = torch.tensor(
    [
        [0.56, 0.56, 0.57],  # gray
        [0.42, 0.36, 0.31],  # brown
        [0.42, 0.52, 0.42],  # green
        [0.42, 0.49, 0.58],  # blue
        [0.49, 0.43, 0.55],  # purple
        [0.80, 0.76, 0.67],  # beige
    ]
)
"""Colour of the backgrounds, in the order of `scenes.BACKGROUNDS`; chroma under 0.17 throughout."""


def encode(layouts: Sequence[Layout]) -> Tensor:
    """Layouts as numbers: float32 (N, 23), what `render` takes."""
    rows = []
    for layout in layouts:
        row: list[float] = []
        for placed in layout.placed:
            thing = placed.thing
            color, shape = COLORS.index(thing.color), SHAPES.index(thing.shape)
            row += [1.0, placed.x, placed.y, placed.radius, color, shape]
        row += [0.0] * (MAX_THINGS * _THING_FIELDS - len(row))
        row += [PATTERNS.index(layout.scene.pattern), BACKGROUNDS.index(layout.scene.background)]
        rows.append([*row, layout.period, *layout.phase])
    return torch.tensor(rows, dtype=torch.float32)


def shape_distances(x: Tensor, y: Tensor) -> Tensor:
    """Signed distance (negative inside) to every shape of `SHAPES`, each of half extent 1 about the origin.

    ``x`` and ``y`` (downwards) have one shape (...); the result is (len(SHAPES), ...).
    """
    ax, ay, radius = x.abs(), y.abs(), torch.hypot(x, y)

    def edge(px: float, py: float, qx: float, qy: float) -> Tensor:
        """Distance to the line from p to q, positive on its left as seen on the screen, in (|x|, y)."""
        dx, dy = qx - px, qy - py
        return ((ax - px) * dy - (y - py) * dx) / math.hypot(dx, dy)

    # Star: fold the plane into one tenth of a turn, where the outline is one segment from tip to notch.
    tenth = math.pi / 5
    angle = torch.remainder(torch.atan2(x, -y) + tenth, 2 * tenth) - tenth
    sx, sy = radius * torch.cos(angle), radius * torch.sin(angle).abs()
    notch_x, notch_y = 0.46 * math.cos(tenth), 0.46 * math.sin(tenth)
    star = ((sx - 1) * notch_y - sy * (notch_x - 1)) / math.hypot(notch_x - 1, notch_y)

    # Heart: a disc on each side and the kite between them, whose lower edge is tangent to the disc.
    cx, cy, lobe, tip = 0.46, -0.36, 0.54, 0.95
    reach = math.hypot(cx, tip - cy)
    bearing = math.atan2(cx, tip - cy) + math.asin(lobe / reach)
    length = math.sqrt(reach**2 - lobe**2)
    tx, ty = length * math.sin(bearing), tip - length * math.cos(bearing)
    kite = torch.maximum(torch.maximum(edge(0, tip, tx, ty).neg(), edge(tx, ty, cx, cy).neg()), cy - y)
    heart = torch.minimum(torch.hypot(ax - cx, y - cy) - lobe, kite)

    bar = 0.36
    horizontal, vertical = torch.maximum(ax - 1, ay - bar), torch.maximum(ax - bar, ay - 1)
    by_name = {
        "circle": radius - 1,
        "square": torch.maximum(ax, ay) - 0.9,
        "triangle": torch.maximum(y - 0.8, edge(0, -1, 1, 0.8)),
        "star": star,
        "ring": (radius - 0.74).abs() - 0.26,
        "cross": torch.minimum(horizontal, vertical),
        "diamond": (ax + ay - 1) / math.sqrt(2),
        "heart": heart,
    }
    return torch.stack([by_name[name] for name in SHAPES])


def _smooth(edge: Tensor) -> Tensor:
    """Coverage of a pixel whose centre is ``-edge`` pixels inside an outline."""
    return (0.5 - edge).clamp(0, 1)


def _background(x: Tensor, y: Tensor, row: Tensor) -> Tensor:
    """Backgrounds (N, 3, H, W): two tones of the colour in the pattern asked for, with canvas grain and light."""
    pattern, color, period, phase_x, phase_y = (column[:, None, None] for column in row.unbind(1))
    u, v = x / period + phase_x, y / period + phase_y
    wave = 2 * math.pi

    def hard(signal: Tensor) -> Tensor:
        return (signal * 3).clamp(-1, 1)

    tones = torch.stack(
        [
            torch.zeros_like(u),
            hard(torch.sin(wave * (u + v) * 0.7071)),
            hard(6 * torch.sin(math.pi * u) * torch.sin(math.pi * v)),
            hard(torch.cos(wave * u) + torch.cos(wave * v) - 0.8),
            hard(torch.sin(wave * (v + 0.25 * torch.sin(wave * 0.5 * u)))),
        ]
    )
    index = pattern.long()[None].expand(1, *u.shape)
    tone = tones.gather(0, index)[0]
    grain = torch.sin(x * (wave / 6)) * torch.sin(y * (wave / 6))
    light = 1.06 - 0.22 * (y / CANVAS) - 0.10 * ((x / CANVAS - 0.5) ** 2 * 4)
    value = (1 + 0.13 * tone + 0.035 * grain) * light
    rgb = BACKGROUND_RGB.to(x.device)[color[:, 0, 0].long()]
    return rgb[:, :, None, None] * value[:, None]


def render(rows: Tensor) -> Tensor:
    """Pictures of encoded layouts: (N, 23) → float32 (N, 3, 256, 256) in [0, 1], on the device of `rows`."""
    axis = torch.arange(CANVAS, device=rows.device, dtype=torch.float32) + 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    x, y = x.expand(len(rows), -1, -1), y.expand(len(rows), -1, -1)
    split = MAX_THINGS * _THING_FIELDS
    picture = _background(x, y, rows[:, split:])
    for row in rows[:, :split].split(_THING_FIELDS, dim=1):
        if not bool(row[:, 0].any()):
            continue
        present, cx, cy, radius, color, shape = (column[:, None, None] for column in row.unbind(1))
        radius = radius.clamp(min=1)  # absent things have none

        def distance(dx: float, dy: float, cx=cx, cy=cy, radius=radius, shape=shape) -> Tensor:  # type: ignore[no-untyped-def]
            """Signed distance in pixels to the thing moved by (dx, dy)."""
            u, v = (x - cx - dx) / radius, (y - cy - dy) / radius
            every = shape_distances(u, v)
            return every.gather(0, shape.long()[None].expand(1, *u.shape))[0] * radius  # type: ignore[no-any-return]

        shadow = present * torch.sigmoid(-distance(4, 6) / 2.5)
        picture = picture * (1 - 0.38 * shadow)[:, None]

        inside = distance(0, 0)
        u, v = (x - cx) / radius, (y - cy) / radius
        light = 1.04 - 0.13 * (u + 1.3 * v)
        hatch = 1 + 0.05 * torch.sin((x - cx + y - cy) * (2 * math.pi / 7))
        rim = 1 - 0.22 * _smooth(-inside - 2.5)
        rgb = THING_RGB.to(x.device)[color[:, 0, 0].long()][:, :, None, None]
        surface = rgb * (light * hatch * rim)[:, None]
        cover = (present * _smooth(inside))[:, None]
        picture = picture * (1 - cover) + surface * cover
    return picture.clamp(0, 1)
