"""How the benchmarks start pytest: with the plugin, installed or not."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def suite(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import suite

    return suite


@pytest.mark.parametrize(("entries", "named"), [((), True), (("xdist",), True), (("xdist", "fluxperf"), False)])
def test_the_plugin_is_named_where_pytest_does_not_find_it(suite, monkeypatch, entries, named):
    found = [SimpleNamespace(name=name) for name in entries]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: found if group == "pytest11" else [])
    more = ["-p", "pytest_fluxperf.plugin"] if named else []
    assert suite.pytest_command() == [sys.executable, "-m", "pytest", *more]


def test_pytest_knows_the_options_when_the_plugin_runs_from_its_sources(suite, monkeypatch):
    """As on a machine that has everything but the package itself: no entry point is read at all."""
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [])
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [*suite.pytest_command(), "-q", "--collect-only", "perf_tests/test_dtype.py", "--gpu=cpu"]
    done = subprocess.run([*command, "-p", "no:cacheprovider"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_dtype[fp32]" in done.stdout
