"""A session that is killed leaves what it had measured."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from pytest_fluxperf.ab import process
from pytest_fluxperf.baseline.store import BaselineStore
from pytest_fluxperf.cli import main
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.plugin import escalation
from pytest_fluxperf.report import document as documents
from pytest_fluxperf.report import journal, load_document

SUITE = """
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch  # of which an environment tells, where it is loaded

@pytest.mark.fluxperf(prompts=["one", "fifteen"], warmup=0)
def test_first(flux_inputs):
    return picture(flux_inputs)

@pytest.mark.fluxperf(prompts=["one"], warmup=0)
def test_second(flux_inputs):
    deadline = time.monotonic() + 60
    while not list(Path("reports").glob("*/journal.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.01)  # xdist's controller is told of the first test while this one runs
    os.kill(KILLED, signal.SIGKILL)

def picture(inputs):
    from conftest import WorkClock

    WorkClock.now += 1.0
    return np.random.default_rng(len(inputs["prompt"])).random((48, 64, 3))
"""
WARNING = "the session had not ended when this was written; tests that were done: 1 of 2"


@pytest.mark.parametrize(("killed", "options"), [("getpid", ()), ("getppid", ("-n1",))], ids=["alone", "xdist"])
def test_what_a_killed_session_measured_is_rendered_and_appended(project, monkeypatch, capsys, killed, options):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    project.pytester.makepyfile(test_suite=SUITE.replace("KILLED", f"os.{killed}()"))
    ended = project.pytester.runpytest_subprocess(*project._arguments, *options)
    assert ended.ret == -signal.SIGKILL
    (folder,) = project.runs
    document = load_document(folder)
    assert [result.test for result in document.results] == ["test_suite.py::test_first"]
    assert (document.warnings[0], document.collected) == (WARNING, 2)
    assert "torch.num_threads" in document.environment.flags
    assert document.results[0].run.environment == document.environment.digest

    assert main(["report", str(folder), "--output", str(folder / "again.html")]) == 0
    assert main(["report", str(folder)]) == 0
    assert WARNING in (folder / "again.html").read_text()
    assert WARNING in capsys.readouterr().out

    monkeypatch.chdir(project.pytester.path)
    assert main(["append", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("test_suite.py::test_first: recorded, p50 1 s")
    stored = BaselineStore(Path("baselines"), "cpu").load("test_suite.py::test_first")
    assert [run.session for run in stored.runs] == [document.session]


def plain(project):
    text = (
        SUITE[: SUITE.index("    deadline")]
        + "    return picture(flux_inputs)\n"
        + SUITE[SUITE.index("\ndef picture") :]
    )
    project.pytester.makepyfile(test_suite=text)


def test_a_session_that_is_interrupted_has_not_passed_what_it_did_not_reach(project):
    project.pytester.makepyfile(test_suite=SUITE.replace("os.kill(KILLED, signal.SIGKILL)", "raise KeyboardInterrupt"))
    result = project.pytester.runpytest_subprocess(*project._arguments, "--fluxperf-update")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["None of 1 failed: 1 recorded for the first time, 1 not measured; *"])
    assert project.results()["collected"] == 2


def test_a_killed_session_has_moved_no_baseline(project):
    project.pytester.makepyfile(test_suite=SUITE.replace("KILLED", "os.getpid()"))
    project.pytester.runpytest_subprocess(*project._arguments, "--fluxperf-update")
    document = load_document(project.runs[-1])
    assert document.update is None
    assert document.warnings[0] == f"{WARNING}; no baseline was moved"


def test_a_session_that_ended_leaves_a_document_and_no_journal(project, monkeypatch):
    plain(project)
    entries = []
    add = journal.add_line
    monkeypatch.setattr(journal, "add_line", lambda path, line: entries.append(line) or add(path, line))
    project.run("--fluxperf-update").assert_outcomes(passed=2)
    start, first, second = entries
    assert (start.results, first.outcome.test, second.outcome.test) == (
        (), "test_suite.py::test_first", "test_suite.py::test_second",
    )  # fmt: skip
    assert (first.environments, second.environments) != ({}, {})
    assert second.environments == {}  # one is written once
    assert not list(project.runs[-1].glob("journal*"))
    assert "warnings" not in project.results()


def test_a_folder_that_cannot_be_written_fails_no_test_before_the_end(project, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    plain(project)
    monkeypatch.setattr(documents, "write_text", full)
    monkeypatch.setattr(journal, "add_line", full)
    result = project.run("--fluxperf-update")
    result.assert_outcomes(passed=2)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["cannot write */results.json: No space left on device"])
    assert "INTERNALERROR" not in result.stdout.str()


def test_what_awaits_a_comparison_with_the_old_environment_is_saved_as_well(recorded, monkeypatch):
    saved = []

    def run(conductor, order):
        saved.extend(result.test for result in load_document(recorded.runs[-1]).results)
        raise FluxPerfError("as if it were killed here")

    monkeypatch.setattr(process, "check_protocol", lambda python: None)
    monkeypatch.setattr(escalation.Conductor, "run", run)
    recorded.run("-k", "fbcache", f"--fluxperf-old-python={sys.executable}", fault="slow decode")
    assert saved == ["test_suite.py::test_recipe[fp32+fbcache:0.5]"]
