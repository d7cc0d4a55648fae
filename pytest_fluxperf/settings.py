"""Command line, ini file and marker, resolved into frozen settings.

Precedence, one rule for every setting: command line > marker > ini file > default. What nobody set stays
``None`` and takes the model's own default (FLUX.1-dev 1024×1024 at 28 steps, the embedded model 256×256).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol

from pytest_fluxperf.errors import FluxPerfError

Update = Literal["new", "failed", "all", "append"]
LatencyMode = Literal["auto", "absolute", "relative"]
METRICS = ("psnr", "ssim", "ms-ssim", "flip", "lpips")
DEFAULT_METRICS = ("psnr", "ssim", "ms-ssim", "flip")


@dataclass(frozen=True)
class ItemSettings:
    """Settings of one test. ``None`` means that nobody set it."""

    recipe: str | None = None
    reference: str | None = None
    prompts: str | tuple[str, ...] = "default"
    seeds: tuple[int, ...] = (0,)
    size: int | tuple[int, int] | None = None
    """Side of a square picture, or (height, width), in pixels; multiples of 16."""
    steps: int | None = None
    guidance: float | None = None
    samples: int | None = None
    """Measured generations; by default one per (prompt, seed)."""
    warmup: int | None = None
    """Least number of warm-up generations (2 by default)."""
    max_slowdown: float | None = None
    max_memory_growth: float | None = None
    min_ssim: float | None = None
    min_psnr: float | None = None
    max_lpips: float | None = None
    quality_tolerance: float | None = None


@dataclass(frozen=True)
class RunSettings:
    """Settings of the whole session."""

    gpu: str
    model: str | None
    baselines: Path
    reports: Path
    update: Update | None
    strict: bool
    latency: LatencyMode
    metrics: tuple[str, ...]
    ledger: bool = True
    """Count the work of one more generation of every test, and compare answers to fixed inputs with the reference."""
    second_look: bool = True
    """Measure what is slower by wall time alone once more, in a fresh process at the session's end."""
    profile: bool = False
    """Profile one more generation of every test."""
    old_python: str | None = None
    """Environment that stage one's suspects are interleaved with."""
    ab_timeout_s: float = 1800.0
    """Longest silence of a process of such a comparison."""
    command_line: Mapping[str, Any] = field(default_factory=dict)
    ini: Mapping[str, Any] = field(default_factory=dict)


class SettingError(FluxPerfError):
    """A setting with a wrong name, type or value; the message says what is right."""


def number(
    low: float | None = None, high: float = math.inf, *, integer: bool = False, strict: bool = False
) -> Callable[[Any], Any]:
    """A check of a number (or its text) from ``low`` (with ``strict``: above it) to ``high``."""
    kind = "an integer" if integer else "a number"
    bound = "" if low is None else f" {'above' if strict else 'of at least'} {low:g}"
    bound += f" and at most {high:g}" if high < math.inf else ""

    def check(value: Any) -> Any:
        if isinstance(value, str):
            try:
                value = int(value) if integer else float(value)
            except ValueError:
                raise SettingError(f"must be {kind}{bound}, not {value!r}") from None
        if isinstance(value, bool) or not isinstance(value, int if integer else (int, float)):
            raise SettingError(f"must be {kind}{bound}, not {value!r}")
        if not math.isfinite(value) or value > high or (low is not None and (value <= low if strict else value < low)):
            raise SettingError(f"must be {kind}{bound}, not {value!r}")
        return value if integer else float(value)

    return check


LARGEST_SHARE = 1.0
"""A test may become twice as slow, or take twice the memory, at most: what tolerates more judges nothing."""

LARGEST_QUALITY_TOLERANCE = 10.0
"""The factor at which the collapse of a single prompt's SSIM (0.10) may be the whole of it."""


def share(value: Any) -> float:
    """A check of a share above 0; one above :data:`LARGEST_SHARE` is refused with what was likely meant."""
    given: float = number(0, strict=True)(value)
    if given > LARGEST_SHARE:
        raise SettingError(too_large_a_share(given))
    return given


def too_large_a_share(value: float) -> str:
    """Why a share is refused, and in which other form it was likely meant."""
    meant = f"; was {value / 100:g} meant?" if value <= 100 else ""
    return f"must be a share of at most {LARGEST_SHARE:g} (0.05 is 5 %), not {value:g}{meant}"


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise SettingError(f"must be a non-empty string, not {value!r}")
    return value


def _prompts(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple) and value and all(isinstance(p, str) for p in value):
        return tuple(value)
    raise SettingError(f"must be a prompt set's name, a file, or a non-empty list of strings, not {value!r}")


def _seeds(value: Any) -> tuple[int, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, list | tuple) or not value:
        raise SettingError(f"must be an integer or a non-empty list of integers, not {value!r}")
    check = number(0, integer=True)
    seeds = tuple(check(seed) for seed in value)
    if max(seeds) > MAX_SEED:
        raise SettingError(f"must be at most {MAX_SEED}, the largest that torch takes, not {max(seeds)}")
    return seeds


def _size(value: Any) -> int | tuple[int, int]:
    if isinstance(value, str):
        parts = value.lower().split("x")
        if "" in parts[1:]:
            raise SettingError(f"must be one side or HEIGHTxWIDTH, not {value!r}")
        value = parts[0] if len(parts) == 1 else tuple(parts)
    sides = value if isinstance(value, list | tuple) else (value,)
    check = number(16, integer=True)
    if len(sides) not in (1, 2):
        raise SettingError(f"must be one side or (height, width), not {value!r}")
    lengths = tuple(check(side) for side in sides)
    for side in lengths:
        if side % 16:
            nearest = max(16, round(side / 16) * 16)
            raise SettingError(
                f"must be divisible by 16 (FLUX packs 2×2 latents of 8 pixels); {side} is not, {nearest} is"
            )
    return lengths[0] if len(lengths) == 1 else (lengths[0], lengths[1])


CHECKS: dict[str, Callable[[Any], Any]] = {
    "recipe": _text,
    "reference": _text,
    "prompts": _prompts,
    "seeds": _seeds,
    "size": _size,
    "steps": number(1, integer=True),
    "guidance": number(0),
    "samples": number(1, integer=True),
    "warmup": number(0, integer=True),
    "max_slowdown": share,
    "max_memory_growth": share,
    "min_ssim": number(-1, 1),
    "min_psnr": number(0),
    "max_lpips": number(0, 1),
    "quality_tolerance": number(0, LARGEST_QUALITY_TOLERANCE, strict=True),
}
"""Check and conversion of every setting of a test; the keys are the marker's arguments."""


class Mark(Protocol):
    """A marker as it was written on a test."""

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments."""

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """Named arguments."""


def item_settings(run: RunSettings, marks: Sequence[Mark], test: str) -> ItemSettings:
    """Settings of one test from its ``fluxperf`` marks (closest first) and the session's.

    Raises :class:`SettingError` that names the test, the argument, and the valid ones.
    """
    marked: dict[str, Any] = {}
    for mark in reversed(marks):  # the closest mark wins
        if mark.args:
            raise SettingError(f"the fluxperf marker takes keyword arguments only, not {mark.args!r}", test=test)
        for name, value in mark.kwargs.items():
            if name not in CHECKS:
                known = f"{near(name, CHECKS)}; valid: {', '.join(CHECKS)}"
                raise SettingError(f"the fluxperf marker has no argument {name!r}{known}", test=test)
            try:
                marked[name] = checked(name, value, f"fluxperf({name}=...)")
            except SettingError as error:
                raise error.at(test=test) from None
    return ItemSettings(**{**run.ini, **marked, **run.command_line})


def checked(name: str, value: Any, where: str) -> Any:
    """The converted value of a test's setting; raises :class:`SettingError` that says ``where`` it was written."""
    try:
        return CHECKS[name](value)
    except SettingError as error:
        raise SettingError(f"{where} {error}") from None


def near(word: str, words: Iterable[str]) -> str:
    """A question after the nearest of ``words``, behind a space; nothing where none is near."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


assert {f.name for f in fields(ItemSettings)} == set(CHECKS)


MAX_SEED = 2**64 - 1
"""The largest seed that ``torch.Generator.manual_seed`` takes."""
