"""Does a picture show its caption? Sighting by segmentation, not by a trained network.

Objects are saturated and backgrounds are not, and the objects of a scene have distinct colours: a pixel belongs to
the object whose hue it has. The largest connected part of a hue is the object; its outline is compared with every
shape of the grammar drawn at its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from .render import THING_RGB, shape_distances
from .scenes import CANVAS, COLORS, PLACES, SHAPES, SIZES, Scene, Thing, nominal_centres

CHROMA = 0.25
"""Least spread of a pixel's channels on an object; backgrounds stay under 0.2."""
LEAST_AREA = 200
"""Pixels; a small cross, the smallest object, has about 800."""
LEAST_OVERLAP = 0.6
"""Intersection over union of the object's mask with the shape asked for."""
EXACT = (0.0,)
"""No tolerance of lost tips."""
LOST_TIPS = (*EXACT, 1.5, 3.0)
"""Pixels by which a mask may fall short of its shape on each side: a decoder blurs the tips of stars and diamonds."""
LARGE = sum((SIZES["small"][1], SIZES["large"][0])) / 2
"""Half extent in pixels from which an object counts as large."""


@dataclass(frozen=True)
class Sighting:
    """An object in a picture: centre and half extent in pixels, the shape that fits its mask best, parts of its hue."""

    color: str
    shape: str
    overlap: float
    x: float
    y: float
    radius: float
    parts: int


@dataclass(frozen=True)
class Check:
    """What of one asked-for object is right."""

    thing: Thing
    found: Sighting | None
    once: bool = False
    shape: bool = False
    size: bool = False
    place: bool = False

    @property
    def accepted(self) -> bool:
        """Drawn once, with colour, shape and place as asked (the size is reported beside)."""
        return self.found is not None and self.once and self.shape and self.place


def check(picture: npt.NDArray[np.float32], scene: Scene, lost_tips: tuple[float, ...] = LOST_TIPS) -> list[Check]:
    """Judge each object of the scene in a picture, float32 (256, 256, 3) in [0, 1].

    ``lost_tips`` are the pixels by which an outline may fall short of its shape; `EXACT` allows nothing.
    """
    hues = _hues(picture)
    found = {thing.color: find(hues, thing.color, lost_tips) for thing in scene.things}
    centres = dict(zip((thing.color for thing in scene.things), nominal_centres(scene), strict=True))
    checks = []
    for thing in scene.things:
        seen = found[thing.color]
        if seen is None:
            checks.append(Check(thing, None))
            continue
        others = [
            (centres[color], other) for color, other in found.items() if other is not None and color != thing.color
        ]
        if len(scene.things) == 1:
            place = _nearest_place(seen) == scene.arrangement
        else:
            place = bool(others) and all(_agrees(centres[thing.color], seen, *other) for other in others)
        size = "large" if seen.radius >= LARGE else "small"
        shape = seen.shape == thing.shape and seen.overlap >= LEAST_OVERLAP
        checks.append(Check(thing, seen, once=seen.parts == 1, shape=shape, size=size == thing.size, place=place))
    return checks


def find(hues: npt.NDArray[np.int64], color: str, lost_tips: tuple[float, ...] = LOST_TIPS) -> Sighting | None:
    """The largest object of a colour in a map of hues (-1 where there is none), or None."""
    labels, count = ndimage.label(hues == COLORS.index(color))
    if count == 0:
        return None
    areas = np.bincount(labels.ravel())[1:]
    if areas.max() < LEAST_AREA:
        return None
    mask = labels == areas.argmax() + 1
    ys, xs = np.nonzero(mask)
    # percentiles, so that a stray pixel does not move the border
    left, right = np.percentile(xs, (0.5, 99.5))
    top, bottom = np.percentile(ys, (0.5, 99.5))
    fits = (
        _fit(mask, shape, left - lost, right + 1 + lost, top - lost, bottom + 1 + lost)
        for shape in SHAPES
        for lost in lost_tips
    )
    best = max(fits, key=lambda fit: fit[0])
    overlap, shape, x, y, radius = best
    return Sighting(color, shape, overlap, x, y, radius, parts=int((areas >= LEAST_AREA).sum()))


def _hues(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Index into COLORS of every pixel (H, W), -1 on the background. Shading scales a colour and keeps its hue."""
    top = picture.max(axis=-1, keepdims=True)
    colored = (top - picture.min(axis=-1, keepdims=True))[..., 0] >= CHROMA
    palette = THING_RGB.numpy()
    palette = palette / palette.max(axis=-1, keepdims=True)
    distance = np.square((picture / np.maximum(top, 1e-3))[..., None, :] - palette).sum(axis=-1)
    return np.where(colored, distance.argmin(axis=-1), -1)


def _extent(shape: str) -> tuple[float, float, float, float]:
    """Bounding box (left, right, top, bottom) of a shape of half extent 1."""
    axis = torch.linspace(-1.2, 1.2, 241)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    ys, xs = torch.nonzero(shape_distances(x, y)[SHAPES.index(shape)] <= 0, as_tuple=True)
    return float(axis[xs.min()]), float(axis[xs.max()]), float(axis[ys.min()]), float(axis[ys.max()])


_EXTENTS = {shape: _extent(shape) for shape in SHAPES}


def _fit(
    mask: npt.NDArray[np.bool_], shape: str, left: float, right: float, top: float, bottom: float
) -> tuple[float, str, float, float, float]:
    """Overlap of the mask with a shape drawn into its bounding box; also centre and half extent."""
    x0, x1, y0, y1 = _EXTENTS[shape]
    radius = ((right - left) / (x1 - x0) + (bottom - top) / (y1 - y0)) / 2
    cx = (left + right) / 2 - radius * (x0 + x1) / 2
    cy = (top + bottom) / 2 - radius * (y0 + y1) / 2
    axis = torch.arange(CANVAS) + 0.5
    y, x = torch.meshgrid((axis - cy) / radius, (axis - cx) / radius, indexing="ij")
    drawn = (shape_distances(x, y)[SHAPES.index(shape)] <= 0).numpy()
    return float((drawn & mask).sum() / max(1, (drawn | mask).sum())), shape, cx, cy, radius


def _nearest_place(found: Sighting) -> str:
    return min(PLACES, key=lambda place: (PLACES[place][0] - found.x) ** 2 + (PLACES[place][1] - found.y) ** 2)


def _agrees(nominal: tuple[float, float], seen: Sighting, other_nominal: tuple[float, float], other: Sighting) -> bool:
    """Whether two objects lie to each other as their nominal centres do, along every axis that sets them apart."""
    for wanted, got in (
        (nominal[0] - other_nominal[0], seen.x - other.x),
        (nominal[1] - other_nominal[1], seen.y - other.y),
    ):
        if abs(wanted) > 40 and got * np.sign(wanted) < 0.5 * abs(wanted):
            return False
    return True
