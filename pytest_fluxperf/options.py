"""Command line, ini file and marker, resolved into frozen settings.

Precedence, one rule for every setting: command line > marker > ini file > default. What nobody set stays
``None`` and takes the model's own default (FLUX.1-dev 1024×1024 at 28 steps, the embedded model 256×256).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.limits import MAX_SEED

if TYPE_CHECKING:
    import pytest

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


def _number(
    low: float | None = None, high: float = math.inf, *, integer: bool = False, strict: bool = False
) -> Callable[[Any], Any]:
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
    check = _number(0, integer=True)
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
    check = _number(16, integer=True)
    if len(sides) not in (1, 2):
        raise SettingError(f"must be one side or (height, width), not {value!r}")
    checked = tuple(check(side) for side in sides)
    for side in checked:
        if side % 16:
            near = max(16, round(side / 16) * 16)
            raise SettingError(
                f"must be divisible by 16 (FLUX packs 2×2 latents of 8 pixels); {side} is not, {near} is"
            )
    return checked[0] if len(checked) == 1 else (checked[0], checked[1])


CHECKS: dict[str, Callable[[Any], Any]] = {
    "recipe": _text,
    "reference": _text,
    "prompts": _prompts,
    "seeds": _seeds,
    "size": _size,
    "steps": _number(1, integer=True),
    "guidance": _number(0),
    "samples": _number(1, integer=True),
    "warmup": _number(0, integer=True),
    "max_slowdown": _number(0, strict=True),
    "max_memory_growth": _number(0, strict=True),
    "min_ssim": _number(-1, 1),
    "min_psnr": _number(0),
    "max_lpips": _number(0),
    "quality_tolerance": _number(0, strict=True),
}
"""Check and conversion of every setting of a test; the keys are the marker's arguments."""

_HELP: dict[str, str] = {
    "recipe": "recipe of tests that name none, such as bf16+fbcache:0.3",
    "reference": "recipe whose pictures (on a CPU, times too) are compared with; none; or baseline: stored pictures",
    "prompts": "prompt set: default (8), extended (50), or a text or JSON-lines file",
    "seeds": "seeds of the initial latents, comma-separated",
    "size": "picture side, or HEIGHTxWIDTH, in pixels",
    "steps": "denoising steps",
    "guidance": "guidance scale",
    "samples": "measured generations a test",
    "warmup": "least number of warm-up generations",
    "max_slowdown": "tolerated slow-down as a fraction (0.02 is 2 %%)",
    "max_memory_growth": "tolerated growth of peak memory as a fraction",
    "min_ssim": "floor that every prompt's SSIM must keep",
    "min_psnr": "floor that every prompt's PSNR must keep, dB",
    "max_lpips": "ceiling that every prompt's LPIPS must keep",
    "quality_tolerance": "factor on the quality tolerances (1 is SSIM 0.01, PSNR 1 dB, LPIPS 0.01)",
}


def add_options(parser: pytest.Parser) -> None:
    """Register every option and ini setting; ``pytest --help`` and the documentation list them from here."""
    group = parser.getgroup("fluxperf", "performance and quality gates for diffusion inference")
    add = group.addoption
    add(
        "--gpu",
        metavar="NAME",
        help="hardware to gate on: auto, cpu, or a name such as h100 (checked against the device)",
    )
    add(
        "--fluxperf-model",
        metavar="NAME|PATH",
        help="tiny, flux-dev, flux-schnell, flux-dev@random, or a diffusers Flux repo or folder",
    )
    add("--fluxperf-update", metavar="WHICH", nargs="?", const="all", type=_update, default=None,
        help="record what was measured as the baseline: new, failed (and new), or all (default)")  # fmt: skip
    add("--fluxperf-append", action="store_true", help="add this run to each baseline instead of replacing it")
    add(
        "--fluxperf-strict",
        action="store_true",
        help="fail on inconclusive results and on recipes this environment cannot run",
    )
    add("--fluxperf-baselines", metavar="DIR", help="folder of the baselines (default: baselines)")
    add("--fluxperf-reports", metavar="DIR", help="folder of the reports (default: reports)")
    add("--fluxperf-latency", choices=("auto", "absolute", "relative"), default=None,
        help="gate absolute latency or the speed-up over the reference recipe (auto: relative on a CPU)")  # fmt: skip
    add(
        "--fluxperf-metrics",
        metavar="LIST",
        help=f"image metrics, from {','.join(METRICS)} (default: {','.join(DEFAULT_METRICS)})",
    )
    add("--fluxperf-old-python", metavar="PATH",
        help="Python or virtual environment with the old packages: what the baseline alone cannot pass is measured "
        "again, this environment and that one in turns")  # fmt: skip
    add("--fluxperf-ab-timeout", metavar="SECONDS", help="longest silence of a process in such a comparison (1800)")
    parser.addini("fluxperf_old_python", help="default of --fluxperf-old-python")
    parser.addini("fluxperf_ab_timeout", help="default of --fluxperf-ab-timeout")
    add("--fluxperf-profile", action="store_true",
        help="profile one more generation of each test: kernels that moved, traces for Perfetto")  # fmt: skip
    parser.addini("fluxperf_profile", type="bool", help="default of --fluxperf-profile")
    for name in CHECKS:
        add(f"--fluxperf-{name.replace('_', '-')}", metavar="VALUE", default=None, help=_HELP[name])
    for name in ("gpu", "model", "baselines", "reports", "latency", "metrics", *CHECKS):
        parser.addini(
            f"fluxperf_{name}",
            help=f"default of {'--gpu' if name == 'gpu' else '--fluxperf-' + name.replace('_', '-')}",
        )


def _update(value: str) -> str:
    if value not in ("new", "failed", "all"):
        # argparse hands over the word that follows; a path there is the usual slip
        import argparse

        raise argparse.ArgumentTypeError(
            f"takes new, failed or all, not {value!r} (write --fluxperf-update=all before a path)"
        )
    return value


def run_settings(config: pytest.Config) -> RunSettings:
    """Read the session's settings; raises :class:`SettingError` that names the option or ini key."""

    def pick(name: str) -> str | None:
        option = "gpu" if name == "gpu" else f"fluxperf_{name}"
        value = config.getoption(option, default=None) or config.getini(f"fluxperf_{name}") or None
        return None if value is None else str(value)

    def folder(name: str) -> Path:
        # the ini file speaks of its own folder, the command line of the current one
        given = config.getoption(f"fluxperf_{name}")
        if given:
            return Path(given).resolve()
        return config.rootpath / (config.getini(f"fluxperf_{name}") or name)

    metrics = tuple(m.strip().lower() for m in (pick("metrics") or ",".join(DEFAULT_METRICS)).split(",") if m.strip())
    for metric in metrics:
        if metric not in METRICS:
            raise SettingError(
                f"--fluxperf-metrics: unknown metric {metric!r}{_near(metric, METRICS)}; there are {', '.join(METRICS)}"
            )
    latency = pick("latency") or "auto"
    if latency not in ("auto", "absolute", "relative"):
        raise SettingError(f"fluxperf_latency must be auto, absolute or relative, not {latency!r}")
    update = config.getoption("fluxperf_update")
    if config.getoption("fluxperf_append"):
        if update:
            raise SettingError(
                "--fluxperf-update and --fluxperf-append exclude each other: replace a baseline or add a run to it"
            )
        update = "append"
    command_line = {
        name: _checked(name, value, f"--fluxperf-{name.replace('_', '-')}")
        for name in CHECKS
        if (value := config.getoption(f"fluxperf_{name}")) is not None
    }
    ini = {
        name: _checked(name, value, f"ini setting fluxperf_{name}")
        for name in CHECKS
        if (value := config.getini(f"fluxperf_{name}"))
    }
    return RunSettings(
        gpu=(pick("gpu") or "auto").lower(),
        model=pick("model"),
        baselines=folder("baselines"),
        reports=folder("reports"),
        update=update,
        strict=bool(config.getoption("fluxperf_strict")),
        latency=latency,  # type: ignore[arg-type]
        metrics=metrics,
        old_python=None if update else pick("old_python"),
        ab_timeout_s=_checked_timeout(pick("ab_timeout")),
        profile=bool(config.getoption("fluxperf_profile") or config.getini("fluxperf_profile")),
        command_line=command_line,
        ini=ini,
    )


def _checked_timeout(value: str | None) -> float:
    try:
        return 1800.0 if value is None else float(_number(0, strict=True)(value))
    except SettingError as error:
        raise SettingError(f"--fluxperf-ab-timeout {error}") from None


def item_settings(run: RunSettings, marks: list[pytest.Mark], test: str) -> ItemSettings:
    """Settings of one test from its ``fluxperf`` marks (closest first) and the session's.

    Raises :class:`SettingError` that names the test, the argument, and the valid ones.
    """
    marked: dict[str, Any] = {}
    for mark in reversed(marks):  # the closest mark wins
        if mark.args:
            raise SettingError(f"{test}: the fluxperf marker takes keyword arguments only, not {mark.args!r}")
        for name, value in mark.kwargs.items():
            if name not in CHECKS:
                known = f"{_near(name, CHECKS)}; valid: {', '.join(CHECKS)}"
                raise SettingError(f"{test}: the fluxperf marker has no argument {name!r}{known}")
            marked[name] = _checked(name, value, f"{test}: fluxperf({name}=...)")
    return ItemSettings(**{**run.ini, **marked, **run.command_line})


def _checked(name: str, value: Any, where: str) -> Any:
    try:
        return CHECKS[name](value)
    except SettingError as error:
        raise SettingError(f"{where} {error}") from None


def _near(word: str, words: Any) -> str:
    close = difflib.get_close_matches(word, list(words), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


assert {f.name for f in fields(ItemSettings)} == set(CHECKS)
