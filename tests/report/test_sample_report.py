"""The program that makes the sample report: what it plants, and what it refuses to publish."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import report_documents as documents

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import sample_report

    return sample_report


@pytest.mark.parametrize("scheduled", [None, 2])
def test_the_planted_cache_computes_every_fourth_step(monkeypatch, pytestconfig, scheduled):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import planted_regression

    from pytest_fluxperf.pipelines.optimizations.fbcache import DiffusersFirstBlockCache

    recorded: list[bool] = []
    steps = SimpleNamespace(index=0, record=recorded.append)
    cache = DiffusersFirstBlockCache.__new__(DiffusersFirstBlockCache)
    cache.host, cache.computed, cache.consulted = SimpleNamespace(steps=steps, num_steps=8), scheduled, 0
    whole = DiffusersFirstBlockCache.decided
    undo: list = []
    planted_regression.pytest_configure(SimpleNamespace(add_cleanup=undo.append))
    try:
        assert [cache.decided(index == 0, index) for index in range(8)] == recorded
    finally:
        undo[0]()
    also = {0} if scheduled is None else {0, 4}
    assert {index for index, computed in enumerate(recorded) if computed} == also | {1, 5}
    assert cache.computed == scheduled
    assert DiffusersFirstBlockCache.decided is whole


def test_a_sample_is_one_regression_and_all_else_gated(program):
    run = documents.failing()
    worst = [r for r in run.results if r.judgement.verdict == "regressed" and "fbcache" in r.recipe][:1]
    fine = [r for r in run.results if r.judgement.verdict == "passed"]
    good = msgspec.structs.replace(run, results=(*worst, *fine), collected=5, gated=5)
    assert program.mistakes(good) == []
    assert "are: none" in program.mistakes(msgspec.structs.replace(good, results=tuple(fine)))[0]
    assert "gated 4 of 5" in program.mistakes(msgspec.structs.replace(good, gated=4))[0]


def test_folders_are_cut_off_and_what_is_left_of_them_is_an_error(program, tmp_path, monkeypatch):
    results = tmp_path / "results.json"
    results.write_text(f'["--baselines={tmp_path}/baselines", "{program.ROOT}/perf_tests", "{sys.prefix}"]')
    assert program.leaks([results], tmp_path) != []
    assert program.cleaned(results, tmp_path).read_text() == '["--baselines=baselines", "perf_tests", "."]'
    assert program.leaks([results], tmp_path) == []
    monkeypatch.setattr("socket.gethostname", lambda: "perf")
    assert program.leaks([results], tmp_path) == []  # part of a word
    results.write_text('"on perf-1"')
    assert program.leaks([results], tmp_path) == ["results.json names this host"]
    results.write_text("x" * 4 * 2**20)
    assert "4.0 MiB" in program.leaks([results], tmp_path)[0]
