"""The program that makes the sample report: what it plants, and what it refuses to publish."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import report_documents as documents

from pytest_fluxperf.report import load_document, render_markdown
from pytest_fluxperf.report.html.page import render_html

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
SAMPLE = ROOT / "reports" / "sample"


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
    whole = DiffusersFirstBlockCache.decide
    undo: list = []
    planted_regression.pytest_configure(SimpleNamespace(add_cleanup=undo.append))
    try:
        assert [cache.decide(index == 0, index) for index in range(8)] == recorded
    finally:
        undo[0]()
    also = {0} if scheduled is None else {0, 4}
    assert {index for index, computed in enumerate(recorded) if computed} == also | {1, 5}
    assert cache.computed == scheduled
    assert DiffusersFirstBlockCache.decide is whole


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


def test_both_the_suite_and_the_planted_regression_are_loaded_where_nothing_is_installed(
    program, tmp_path, monkeypatch
):
    commands = []

    def run(command, **_):
        commands.append(command)
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "results.json").touch()

    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: [])
    monkeypatch.setattr(program.subprocess, "run", run)
    chosen = SimpleNamespace(gpu="auto", model="flux-dev@random", samples=2, size=None, steps=None)
    assert program.run(chosen, tmp_path, "run", "-p", "planted_regression") == tmp_path / "run" / "results.json"
    loaded = [commands[0][i + 1] for i, word in enumerate(commands[0]) if word == "-p"]
    assert {"pytest_fluxperf.plugin", "planted_regression"} <= set(loaded)


def test_a_sample_keeps_no_links_to_pictures_that_it_does_not_keep(program, tmp_path):
    pictures = tmp_path / "run"
    pictures.mkdir()
    files = program.write(documents.failing(pictures), pictures, tmp_path / "sample")
    page = files[0].read_text()
    assert "data:image/webp" in page
    assert ".png" not in page
    assert [path.name for path in (tmp_path / "sample").iterdir() if path not in files] == []


# the sample that is kept


def test_the_kept_sample_is_what_a_sample_should_be(program):
    document = load_document(SAMPLE)
    assert program.mistakes(document) == []
    assert document.hardware.name == "NVIDIA H200"
    assert sorted(path.name for path in SAMPLE.iterdir()) == ["report.html", "results.json", "summary.md"]
    for path in SAMPLE.iterdir():
        assert not re.search(r"(?<![\w.])/(tmp|root|work|home|usr|opt|mnt)\b", path.read_text()), path.name


def test_the_kept_sample_is_what_the_code_makes_of_its_results(tmp_path):
    document = load_document(SAMPLE)
    again = "render it again: fluxperf report reports/sample --output reports/sample/{}"
    assert (SAMPLE / "summary.md").read_text() == render_markdown(document), again.format("summary.md")
    assert (SAMPLE / "report.html").read_text() == render_html(document, [SAMPLE]), again.format("report.html")
