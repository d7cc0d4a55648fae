from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.settings import CHECKS, ItemSettings, RunSettings, item_settings


def run(command_line: dict[str, Any] | None = None, ini: dict[str, Any] | None = None) -> RunSettings:
    return RunSettings(
        gpu="cpu",
        model=None,
        baselines=Path("baselines"),
        reports=Path("reports"),
        update=None,
        strict=False,
        latency="auto",
        metrics=("ssim",),
        command_line=command_line or {},
        ini=ini or {},
    )


def marks(*kwargs: dict[str, Any]) -> list[pytest.Mark]:
    return [getattr(pytest.mark.fluxperf(**arguments), "mark") for arguments in kwargs]  # noqa: B009


@pytest.mark.parametrize(
    ("command_line", "marker", "ini", "expected"),
    [
        ({"steps": 1}, {"steps": 2}, {"steps": 3}, 1),
        ({}, {"steps": 2}, {"steps": 3}, 2),
        ({}, {}, {"steps": 3}, 3),
        ({}, {}, {}, None),
    ],
)
def test_command_line_beats_marker_beats_ini_beats_default(command_line, marker, ini, expected):
    assert item_settings(run(command_line, ini), marks(marker), "t.py::t").steps == expected


def test_the_closest_mark_wins_and_others_fill_in():
    settings = item_settings(run(), marks({"steps": 4}, {"steps": 28, "size": 512}), "t.py::t")
    assert (settings.steps, settings.size) == (4, 512)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        (
            "stepz",
            3,
            r"t.py::t: the fluxperf marker has no argument 'stepz' \(did you mean 'steps'\?\); valid: recipe,",
        ),
        ("steps", -1, r"t.py::t: fluxperf\(steps=...\) must be an integer of at least 1, not -1"),
        ("steps", 2.5, "must be an integer"),
        ("steps", True, "must be an integer"),
        ("size", 1000, "must be divisible by 16 .*1000 is not, 992 is"),
        ("size", (512, 512, 3), r"one side or \(height, width\)"),
        ("max_slowdown", 0, "must be a number above 0"),
        ("max_slowdown", float("nan"), "must be a number above 0"),
        ("max_slowdown", 5, r"fluxperf\(max_slowdown=...\) must be a share of at most 1 .*not 5; was 0.05 meant\?"),
        ("max_slowdown", 1e308, r"must be a share of at most 1 .*not 1e\+308$"),
        ("max_memory_growth", "10", "was 0.1 meant"),
        ("quality_tolerance", 11, "must be a number above 0 and at most 10, not 11"),
        ("max_lpips", 100, "must be a number of at least 0 and at most 1, not 100"),
        ("prompts", [], "must be a prompt set's name"),
        ("seeds", [], "must be an integer or a non-empty list"),
        ("seeds", [-1], "must be an integer of at least 0"),
        ("recipe", "", "must be a non-empty string"),
        ("samples", 0, "must be an integer of at least 1"),
    ],
)
def test_a_bad_argument_is_named_with_the_remedy(name, value, complaint):
    with pytest.raises(FluxPerfError, match=complaint):
        item_settings(run(), marks({name: value}), "t.py::t")


def test_positional_arguments_are_refused():
    mark = getattr(pytest.mark.fluxperf("bf16"), "mark")  # noqa: B009
    with pytest.raises(FluxPerfError, match="keyword arguments only"):
        item_settings(run(), [mark], "t.py::t")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("size", "512", 512),
        ("size", "512x768", (512, 768)),
        ("seeds", "0, 1,2", (0, 1, 2)),
        ("steps", "4", 4),
        ("guidance", "3.5", 3.5),
        ("prompts", "extended", "extended"),
    ],
)
def test_text_from_command_line_and_ini_is_converted(name, text, value):
    assert CHECKS[name](text) == value


def test_every_setting_has_a_check():
    assert set(CHECKS) == set(ItemSettings.__dataclass_fields__)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--fluxperf-steps=-3"], "--fluxperf-steps must be an integer of at least 1, not -3"),
        (["--fluxperf-update=most"], "takes new, failed or all, not 'most'"),
        (["--fluxperf-update", "--fluxperf-append"], "exclude each other"),
        (["--fluxperf-metrics=ssin"], "unknown metric 'ssin' (did you mean 'ssim'?)"),
        (["--fluxperf-max-slowdown=5"], "--fluxperf-max-slowdown must be a share of at most 1"),
        (["--fluxperf-size=100"], "--fluxperf-size must be divisible by 16"),
        (["--fluxperf-size=128x"], "--fluxperf-size must be one side or HEIGHTxWIDTH, not '128x'"),
    ],
)
def test_a_bad_option_is_a_usage_error(pytester: pytest.Pytester, arguments, complaint):
    result = pytester.runpytest(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert complaint in result.stderr.str()


def test_a_bad_ini_setting_is_a_usage_error(pytester: pytest.Pytester):
    pytester.makeini("[pytest]\nfluxperf_steps = many")
    result = pytester.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "ini setting fluxperf_steps must be an integer of at least 1, not 'many'" in result.stderr.str()


def test_help_lists_every_option(pytester: pytest.Pytester):
    text = pytester.runpytest("--help").stdout.str()
    assert "--gpu" in text
    for name in CHECKS:
        assert f"--fluxperf-{name.replace('_', '-')}" in text
        assert f"fluxperf_{name}" in text
