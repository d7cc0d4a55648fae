"""Command line options and ini settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_fluxperf.settings import (
    CHECKS,
    DEFAULT_METRICS,
    METRICS,
    RunSettings,
    SettingError,
    Update,
    checked,
    near,
    number,
)

if TYPE_CHECKING:
    import pytest

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
    _add_run_options(group.addoption)
    _add_looks(group.addoption)
    for name in ("old_python", "ab_timeout", "ledger", "second_look"):
        parser.addini(f"fluxperf_{name}", help=f"default of --fluxperf-{name.replace('_', '-')}")
    parser.addini("fluxperf_profile", type="bool", help="default of --fluxperf-profile")
    for name in CHECKS:
        group.addoption(f"--fluxperf-{name.replace('_', '-')}", metavar="VALUE", default=None, help=_HELP[name])
    for name in ("gpu", "model", "baselines", "reports", "latency", "metrics", *CHECKS):
        parser.addini(
            f"fluxperf_{name}",
            help=f"default of {'--gpu' if name == 'gpu' else '--fluxperf-' + name.replace('_', '-')}",
        )


def _add_run_options(add: Callable[..., None]) -> None:
    """What is measured on, what is recorded, and what fails."""
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


def _add_looks(add: Callable[..., None]) -> None:
    """What is looked at beside the measurement itself."""
    add("--fluxperf-old-python", metavar="PATH",
        help="Python or virtual environment with the old packages: what the baseline alone cannot pass is measured "
        "again, this environment and that one in turns")  # fmt: skip
    add("--fluxperf-ab-timeout", metavar="SECONDS", help="longest silence of a process in such a comparison (1800)")
    add("--fluxperf-ledger", choices=("yes", "no"), default=None,
        help="count the work of one more generation of each test, and compare its transformer's answers to fixed "
        "inputs with the reference recipe's (default: yes)")  # fmt: skip
    add("--fluxperf-second-look", choices=("yes", "no"), default=None,
        help="measure what is slower by wall time alone once more, in a fresh process at the session's end (yes by "
             "default; needs absolute times)")  # fmt: skip
    add("--fluxperf-profile", action="store_true",
        help="profile one more generation of each test: kernels that moved, traces for Perfetto")  # fmt: skip


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

    latency = pick("latency") or "auto"
    if latency not in ("auto", "absolute", "relative"):
        raise SettingError(f"fluxperf_latency must be auto, absolute or relative, not {latency!r}")
    update = _update_mode(config)
    command_line = {
        name: checked(name, value, f"--fluxperf-{name.replace('_', '-')}")
        for name in CHECKS
        if (value := config.getoption(f"fluxperf_{name}")) is not None
    }
    ini = {
        name: checked(name, value, f"ini setting fluxperf_{name}")
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
        metrics=_metrics(pick("metrics") or ",".join(DEFAULT_METRICS)),
        old_python=None if update else pick("old_python"),
        ab_timeout_s=_checked_timeout(pick("ab_timeout")),
        ledger=_yes_or_no("ledger", pick("ledger") or "yes"),
        second_look=_yes_or_no("second_look", pick("second_look") or "yes"),
        profile=bool(config.getoption("fluxperf_profile") or config.getini("fluxperf_profile")),
        command_line=command_line,
        ini=ini,
    )


def _metrics(text: str) -> tuple[str, ...]:
    metrics = tuple(metric.strip().lower() for metric in text.split(",") if metric.strip())
    for metric in metrics:
        if metric not in METRICS:
            raise SettingError(
                f"--fluxperf-metrics: unknown metric {metric!r}{near(metric, METRICS)}; there are {', '.join(METRICS)}"
            )
    return metrics


def _update_mode(config: pytest.Config) -> Update | None:
    """How baselines are moved, by either option."""
    update: Update | None = config.getoption("fluxperf_update")
    if not config.getoption("fluxperf_append"):
        return update
    if update:
        raise SettingError(
            "--fluxperf-update and --fluxperf-append exclude each other: replace a baseline or add a run to it"
        )
    return "append"


def _yes_or_no(name: str, value: str) -> bool:
    if value not in ("yes", "no"):
        raise SettingError(f"fluxperf_{name} must be yes or no, not {value!r}")
    return value == "yes"


def _checked_timeout(value: str | None) -> float:
    try:
        return 1800.0 if value is None else float(number(0, strict=True)(value))
    except SettingError as error:
        raise SettingError(f"--fluxperf-ab-timeout {error}") from None
