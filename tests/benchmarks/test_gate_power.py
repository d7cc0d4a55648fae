"""The study of the gate reads what is stored of real hardware."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study(monkeypatch):
    spec = importlib.util.spec_from_file_location("gate_power", ROOT / "benchmarks" / "gate_power.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gate_power", module)
    spec.loader.exec_module(module)
    return module


def test_the_noise_of_the_stored_runs_is_told_and_published_figures_are_none(study):
    assert (ROOT / "baselines" / "published").is_dir()
    lines = list(study.measured(ROOT / "baselines"))
    assert any(line.startswith("baselines/cpu: ") for line in lines)
    assert any(line.startswith("baselines/h200: ") for line in lines)


def test_host_bound_configurations_are_noisier_the_others_are_not(study):
    noise = study.Noise(host_bound=4)
    case = study.Case(noise)
    assert [case.noise_of(c) for c in (0, study.M - 5)] == [noise, noise]
    assert {case.noise_of(c) for c in range(study.M - 4, study.M)} == {study.HOST_BOUND}
    rng = np.random.default_rng(1)
    spread = np.std([study.session_shifts(noise, rng) for _ in range(500)], axis=0)
    assert spread[: study.M - 4].max() < 2 * noise.tau < spread[-4:].min()


def test_a_session_is_what_its_danger_says(study):
    rng = np.random.default_rng(0)
    danger = study.Danger(0.03, 10, tests=12, runs=2, known=False, cards=2, twice=True)
    tests, changed = study.session_of(danger, rng)
    assert (len(tests), len(changed), {len(test.stored) for test in tests}) == (12, 10, {2})
    assert {test.card for test in tests} == {"GPU-0", "GPU-1"}
    assert all(stored.card != test.card for test in tests for stored in test.stored)
    assert all(test.again is not None for test in tests)


def test_a_slow_test_is_seen_where_nothing_else_changed(study):
    found = study.endangered((study.Danger(0.10, 1, tests=8), 3, 1))
    assert (found.false, found.seen, found.each) == (0, 1, 1)
    assert study.endangered((study.Danger(tests=8), 3, 1)).false == 0


def test_a_cpu_is_judged_by_rounds_against_three_stored_runs(study):
    policy = study.Policy.of("relative", m=20)
    rng = np.random.default_rng(0)
    assert study.cpu_gate(0.6, 0.02, 0.02, 3, policy, rng)[0]
    assert not study.cpu_gate(0.6, 0.02, 0.02, 1, policy, rng)[0]
    assert study.cpu_gate(0.0, 0.02, 0.02, 3, policy, rng) == (False, 1)
