"""A verdict of the comparison with an old environment ends a test as any other does: xfail is pytest's business."""

from __future__ import annotations

import sys

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

def test_plain(picture):
    return picture()

@pytest.mark.xfail(reason="known", strict=False)
def test_expected(picture):
    return picture()

@pytest.mark.xfail(reason="known", strict=True)
def test_strict(picture):
    return picture()

@pytest.mark.xfail(reason="known", raises=ValueError, strict=False)
def test_other_error(picture):
    return picture()
"""


@pytest.mark.parametrize(
    ("slow", "change", "options", "expected"),
    [
        ("1.1", 0.1, (), {"xfailed": 2, "failed": 2}),
        ("1.02", 0.0, (), {"xpassed": 2, "failed": 1, "passed": 1}),
        ("1.1", 0.1, ("--runxfail",), {"failed": 4}),
    ],
)
def test_an_expected_failure_ends_as_it_would_without_an_old_environment(
    project, monkeypatch, slow, change, options, expected
):
    def run(conductor, order):
        trials = [Trial(test, environments=dict.fromkeys(("old", "new"), records.ENVIRONMENT)) for test in order]
        for trial in trials:
            trial.blocks.append(Block(old_s=(1.0,) * 8, new_s=(1.0 + change,) * 8))
            trial.interleaved = judge_blocks(trial.blocks, Policy())
        return trials

    monkeypatch.setattr(process, "check_protocol", lambda python: None)
    monkeypatch.setattr(escalation.Conductor, "run", run)
    project.pytester.makepyfile(test_suite=SUITE)
    project.run("--runxfail", "--fluxperf-update").assert_outcomes(passed=4)
    result = project.run(*options, f"--fluxperf-old-python={sys.executable}", fault=slow)
    result.assert_outcomes(**expected)
    verdicts = {found["judgement"]["verdict"] for found in project.results()["results"]}
    assert verdicts == {"regressed" if change else "passed"}
    result.stdout.fnmatch_lines(["*decided after the last test"] * 4)
    if "xpassed" in expected:
        result.stdout.fnmatch_lines(["*XPASS(strict)* known"])
