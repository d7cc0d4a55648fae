"""The scene grammar: what `tiny` can draw, said in English and as data.

A caption names one to three objects (size, colour, shape), how they are arranged, and the background (pattern,
colour): "a small red ring left of a large blue star on a striped green background". `caption` and `parse` are
inverse to each other, so that a prompt alone says what its picture must show.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

CANVAS = 256
"""Side of a picture, in pixels."""

SIZES = {"small": (21.0, 25.0), "large": (33.0, 37.0)}
"""Size word → range of the object's half extent, in pixels."""

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "diamond", "heart")
COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
PATTERNS = ("plain", "striped", "checked", "dotted", "wavy")
BACKGROUNDS = ("gray", "brown", "green", "blue", "purple", "beige")

_THIRDS = (52.0, 128.0, 204.0)
PLACES = {
    f"{article} {name}": (_THIRDS[column], _THIRDS[row])
    for article, name, column, row in (
        ("at the", "top left", 0, 0),
        ("at the", "top", 1, 0),
        ("at the", "top right", 2, 0),
        ("on the", "left", 0, 1),
        ("in the", "center", 1, 1),
        ("on the", "right", 2, 1),
        ("at the", "bottom left", 0, 2),
        ("at the", "bottom", 1, 2),
        ("at the", "bottom right", 2, 2),
    )
}
"""Place of a single object → its nominal centre (x, y), in pixels."""

RELATIONS = ("left of", "right of", "above", "below")
ROWS = ("in a row", "in a column")

HELD_OUT_FRACTION = 16
"""One caption in so many is never trained on: those whose CRC-32 it divides."""


@dataclass(frozen=True)
class Thing:
    """One object of a scene."""

    size: str
    color: str
    shape: str

    def __str__(self) -> str:
        article = "an" if self.size[0] in "aeiou" else "a"
        return f"{article} {self.size} {self.color} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """One to three `Thing`s of distinct colours, their arrangement, and the background."""

    things: tuple[Thing, ...]
    arrangement: str
    pattern: str
    background: str


def caption(scene: Scene) -> str:
    """The scene in English."""
    first, *others = map(str, scene.things)
    if scene.arrangement in ROWS:
        objects = f"{first}, {others[0]} and {others[1]} {scene.arrangement}"
    elif scene.arrangement in RELATIONS:
        objects = f"{first} {scene.arrangement} {' and '.join(others)}"
    else:
        objects = f"{first} {scene.arrangement}"
    article = "an" if scene.pattern[0] in "aeiou" else "a"
    return f"{objects} on {article} {scene.pattern} {scene.background} background"


THING = re.compile(rf"\ban? ({'|'.join(SIZES)}) ({'|'.join(COLORS)}) ({'|'.join(SHAPES)})\b")
_BACKGROUND = re.compile(rf" on an? ({'|'.join(PATTERNS)}) ({'|'.join(BACKGROUNDS)}) background$")


def parse(prompt: str) -> Scene:
    """The scene that `prompt` describes.

    Raises:
        ValueError: the prompt is not of the grammar.
    """
    background = _BACKGROUND.search(prompt)
    things = tuple(Thing(*words) for words in THING.findall(prompt))
    if background and things:
        for arrangement in (*PLACES, *RELATIONS, *ROWS):
            scene = Scene(things, arrangement, *background.groups())
            if arrangement in prompt and _caption_if_valid(scene) == prompt:
                return scene
    raise ValueError(f"not a caption of the scene grammar: {prompt!r}")


def _caption_if_valid(scene: Scene) -> str | None:
    """`caption`, or None where the number of things does not fit the arrangement."""
    fits = {1: PLACES, 2: RELATIONS, 3: ("above", "below", *ROWS)}.get(len(scene.things), ())
    return caption(scene) if scene.arrangement in fits else None


def sample(rng: random.Random) -> Scene:
    """A random scene: 40 % have one object, 40 % two, 20 % three."""
    count = rng.choices((1, 2, 3), (0.4, 0.4, 0.2))[0]
    things = tuple(Thing(rng.choice(tuple(SIZES)), color, rng.choice(SHAPES)) for color in rng.sample(COLORS, count))
    arrangements = (tuple(PLACES), RELATIONS, ("above", "below", *ROWS, *ROWS))[count - 1]
    return Scene(things, rng.choice(arrangements), rng.choice(PATTERNS), rng.choice(BACKGROUNDS))


def is_held_out(prompt: str) -> bool:
    """Whether `prompt` belongs to the evaluation prompts, which no training step sees."""
    return zlib.crc32(prompt.encode()) % HELD_OUT_FRACTION == 0


def samples(seed: int, *, held_out: bool) -> Iterator[Scene]:
    """An endless stream of random scenes of one side of the split."""
    rng = random.Random(seed)
    while True:
        scene = sample(rng)
        if is_held_out(caption(scene)) == held_out:
            yield scene


def held_out_scenes(count: int, seed: int = 0) -> list[Scene]:
    """`count` held-out scenes with distinct captions, the same for the same seed."""
    scenes: dict[str, Scene] = {}
    stream = samples(seed, held_out=True)
    while len(scenes) < count:
        scene = next(stream)
        scenes.setdefault(caption(scene), scene)
    return list(scenes.values())


@dataclass(frozen=True)
class Placement:
    """A `Thing` put on the canvas: centre and half extent, in pixels."""

    thing: Thing
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Layout:
    """Everything about a picture that its caption leaves open; lengths in pixels, phases in periods."""

    scene: Scene
    placed: tuple[Placement, ...]
    period: float
    phase: tuple[float, float]


def _centres(scene: Scene, rng: random.Random) -> list[tuple[float, float]]:
    """Centres of the scene's things, so jittered that large ones never touch each other or the border."""

    def jitter(points: list[tuple[float, float]], each: float, x: float, y: float) -> list[tuple[float, float]]:
        x, y = rng.uniform(-x, x), rng.uniform(-y, y)
        return [(px + x + rng.uniform(-each, each), py + y + rng.uniform(-each, each)) for px, py in points]

    count, arrangement = len(scene.things), scene.arrangement
    if count == 1:
        return jitter([PLACES[arrangement]], 6, 0, 0)
    if count == 2:
        centres = {
            "left of": [(80.0, 128.0), (176.0, 128.0)],
            "right of": [(176.0, 128.0), (80.0, 128.0)],
            "above": [(128.0, 80.0), (128.0, 176.0)],
            "below": [(128.0, 176.0), (128.0, 80.0)],
        }[arrangement]
        horizontal = arrangement.endswith("of")
        return jitter(centres, 7, 20 if horizontal else 48, 48 if horizontal else 20)
    if arrangement == "in a row":
        return jitter([(48.0, 128.0), (128.0, 128.0), (208.0, 128.0)], 2.5, 0, 48)
    if arrangement == "in a column":
        return jitter([(128.0, 48.0), (128.0, 128.0), (128.0, 208.0)], 2.5, 48, 0)
    one, two = (76.0, 176.0) if arrangement == "above" else (180.0, 80.0)
    return jitter([(128.0, one), (76.0, two), (180.0, two)], 6, 8, 8)


class _Middle(random.Random):
    """Always the middle: turns the random layout into its nominal one."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def nominal_centres(scene: Scene) -> list[tuple[float, float]]:
    """Where the scene's things are before any jitter, in pixels."""
    return _centres(scene, _Middle())


def lay_out(scene: Scene, rng: random.Random) -> Layout:
    """A random layout of `scene`."""
    placed = tuple(
        Placement(thing, x, y, rng.uniform(*SIZES[thing.size]))
        for thing, (x, y) in zip(scene.things, _centres(scene, rng), strict=True)
    )
    return Layout(scene, placed, rng.uniform(24, 34), (rng.random(), rng.random()))
