"""The study of the gate reads what is stored of real hardware."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_noise_of_the_stored_runs_is_told_and_published_figures_are_none(monkeypatch):
    spec = importlib.util.spec_from_file_location("gate_power", ROOT / "benchmarks" / "gate_power.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gate_power", module)
    spec.loader.exec_module(module)
    assert (ROOT / "baselines" / "published").is_dir()
    lines = list(module.measured(ROOT / "baselines"))
    assert any(line.startswith("baselines/cpu: ") for line in lines)
