"""What is seen while tests run: a line that is rewritten on a terminal, one line a test elsewhere."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys

import pytest


def on_a_terminal(project, *arguments: str) -> str:
    """Run the suite on a terminal of 80 columns without colours; returns all that was written to it."""
    (project.pytester.path / "fault.txt").write_text("")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *project._arguments, "--color=no", *arguments],
        cwd=project.pytester.path,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"},
    )
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while chunk := os.read(ours, 65_536):
            written += chunk
    assert process.wait() == 0, written.decode()
    os.close(ours)
    return written.decode()


def shown(line: str) -> str:
    """What a terminal shows of a line that was rewritten."""
    cells: list[str] = []
    for text in line.split("\r"):
        cells[: len(text)] = text
    return "".join(cells).rstrip()


@pytest.mark.parametrize(
    ("verbosity", "left"),
    [((), "test_suite.py .   "), (("-v",), "test_suite.py::test_recipe[fp32+fbcache:0.5] PASSED   ")],
    ids=["plain", "verbose"],
)
def test_a_terminal_shows_where_the_test_stands(recorded, verbosity, left):
    written = on_a_terminal(recorded, "-k", "fbcache", *verbosity)
    (line,) = [line for line in written.split("\n") if "warm-up" in line]
    told = [text.rstrip() for text in line.split("\r")]
    stages = ["waiting for the device", "being prepared", "reference fp32 6/6", "warm-up 1/2"]
    found = [text for text in told if text.removeprefix("test_recipe[fp32+fbcache:0.5] ") in stages]
    assert found == [f"test_recipe[fp32+fbcache:0.5] {stage}" for stage in stages]
    assert any(text.startswith("test_recipe[fp32+fbcache:0.5] 6/6  p50 0.") for text in told)
    assert shown(line).startswith(left)
    assert shown(line).endswith("[100%]")
    assert len(shown(line)) <= 80
    assert "fluxperf: passed" not in written


def test_elsewhere_a_test_is_one_line(recorded):
    result = recorded.run()
    lines = [line for line in result.stdout.lines if line.startswith("fluxperf: ")]
    assert len(lines) == 2
    assert all(line.startswith("fluxperf: passed, p50 0.") and "over 6" in line for line in lines)
    assert "warm-up" not in result.stdout.str()


def test_quiet_is_quiet(recorded):
    lines = recorded.run("-q").stdout.lines
    assert not [line for line in lines if line.startswith("fluxperf: passed")]
