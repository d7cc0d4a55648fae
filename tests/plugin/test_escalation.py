"""Suspects of stage one and the old environment: what a comparison decides, leaves open and does not see."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest
import records

from pytest_fluxperf.ab import process
from pytest_fluxperf.ab.trial import Trial
from pytest_fluxperf.gate.interleaved import judge_blocks
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.plugin import escalation
from pytest_fluxperf.results import Block

SUITE = """
import numpy as np
import pytest

pytestmark = pytest.mark.fluxperf(prompts=["one", "two"], warmup=0)

@pytest.fixture
def picture(work, fault):
    def made():
        work(float(fault or 1))
        return np.random.default_rng(0).random((32, 32, 3))
    return made

def test_one(picture):
    return picture()

def test_other(picture):
    return picture()
"""

HOOK = """
def pytest_fluxperf_result(item, result):
    with open("told.txt", "a") as file:
        file.write(f"{item.name} {result.judgement.verdict}\\n")
"""


@pytest.fixture
def compared(project, monkeypatch) -> Callable[..., pytest.RunResult]:
    """``compared(slow, change)``: a suite that takes ``slow`` times as long, old and new differing by ``change``.

    A change of None leaves the comparison undone.
    """

    def run_suite(slow: str, change: float | None, *options: str) -> pytest.RunResult:
        def run(conductor, order):
            trials = [Trial(test, environments=dict.fromkeys(("old", "new"), records.ENVIRONMENT)) for test in order]
            for trial in trials if change is not None else []:
                trial.blocks.append(Block(old_s=(1.0,) * 8, new_s=(1.0 + change,) * 8))
                trial.interleaved = judge_blocks(trial.blocks, Policy())
            conductor.ended = "3 regressions are confirmed" if change is None else None
            return trials

        monkeypatch.setattr(process, "check_protocol", lambda python: None)
        monkeypatch.setattr(escalation.Conductor, "run", run)
        project.pytester.makepyfile(test_suite=SUITE)
        project.run("--fluxperf-update").assert_outcomes(passed=2)
        return project.run(f"--fluxperf-old-python={sys.executable}", *options, fault=slow)

    return run_suite


def test_the_hook_hears_of_a_suspect_once_and_of_the_last_word(project, compared):
    conftest = project.pytester.path / "conftest.py"
    conftest.write_text(conftest.read_text() + HOOK)
    compared("1.02", 0.1).assert_outcomes(failed=2)
    told = (project.pytester.path / "told.txt").read_text().splitlines()[2:]  # after those of the update
    assert sorted(told) == ["test_one regressed", "test_other regressed"]


def test_suspects_that_were_left_uncompared_say_so(project, compared):
    result = compared("1.02", None)
    result.assert_outcomes(passed=2)
    why = "not compared with the old environment to the end: 3 regressions are confirmed"
    for found in project.results()["results"]:
        assert (found["judgement"]["verdict"], why in found["judgement"]["warnings"]) == ("inconclusive", True)
    result.stdout.fnmatch_lines([f"fluxperf: test_suite.py::test_o*: {why}"] * 2)


def test_what_only_the_baseline_shows_is_not_the_packages(project, compared, tmp_path):
    """A slow-down of the repository's own code is on both sides of the comparison, which does not see it."""
    compared("1.93", 0.001, f"--junitxml={tmp_path}/junit.xml").assert_outcomes(failed=2)
    judgement = project.judgement("test_one")
    assert judgement["verdict"] == "regressed"
    first, why, beside = judgement["message"].split("; ")[:3]
    assert why == "not the packages: this repository's code, or the machine"
    assert "+93.0%" in first
    assert "interleaved (+0.1%" in beside
    assert [f["verdict"] for f in judgement["findings"] if f["metric"] == "latency"] == ["regressed", "passed"]
    assert not any("torch" in reason for reason in judgement.get("attribution", ()))
    (case, _) = ET.parse(tmp_path / "junit.xml").iter("testcase")
    assert "not the packages" in case.find("failure").get("message")
    properties = [p.get("value") for p in case.iter("property") if p.get("name") == "fluxperf_verdict"]
    assert properties == ["regressed"]


RERUNS = """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for attempt in range(2):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if all(report.passed for report in reports):
            break
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
"""
"""What pytest-rerunfailures comes to."""


def test_junit_has_the_properties_of_the_last_attempt_alone(project, tmp_path):
    project.pytester.makepyfile(test_suite=SUITE)
    conftest = project.pytester.path / "conftest.py"
    conftest.write_text(conftest.read_text() + RERUNS)
    project.run("-k", "test_one", f"--junitxml={tmp_path}/junit.xml").assert_outcomes(failed=1)
    names = [p.get("name") for p in ET.parse(tmp_path / "junit.xml").iter("property")]
    assert names.count("fluxperf_verdict") == 1
    assert len(names) == len(set(names))
