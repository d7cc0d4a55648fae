"""A machine that is disturbed while a test is measured: once more, before it is unfit or a change is convicted."""

from __future__ import annotations

import pytest

from pytest_fluxperf.machine import telemetry
from pytest_fluxperf.machine.telemetry import Load
from pytest_fluxperf.results import Telemetry

ONE = ("-k", "fbcache", "--fluxperf-max-slowdown=0.1")
READINGS = 2
"""Of the machine's state, in an attempt."""


@pytest.fixture
def machine(project, monkeypatch):
    """A project with a baseline of a busy device, whose machine is disturbed for some attempts."""

    class Machine:
        def __init__(self) -> None:
            self.slow, self.attempts, self.readings = project.pytester.path / "slow.txt", 0, 0
            self.state, self.throttled = "", False

        def run(self, attempts: int, state: str = "", throttled: bool = False):
            self.attempts, self.readings, self.state, self.throttled = attempts, 0, state, throttled
            result = project.run(*ONE)
            self.slow.unlink(missing_ok=True)
            return result, project.judgement("fbcache"), self.readings // READINGS

        def read(self, *_):
            disturbed = self.readings < READINGS * self.attempts
            self.readings += 1
            if disturbed and self.state:
                self.slow.write_text(self.state)
            else:
                self.slow.unlink(missing_ok=True)
            return Telemetry(throttle_reasons=("hardware thermal slowdown",) if disturbed and self.throttled else ())

        def during(self, *_):
            return Load(0.6 if self.slow.exists() else 0.99, None)

    found = Machine()
    monkeypatch.setattr(telemetry, "read", found.read)
    monkeypatch.setattr(telemetry, "during", found.during)
    project.run("--fluxperf-update", *ONE)
    return found


def test_a_regression_that_a_slow_host_explains_is_measured_once_more(machine):
    result, judgement, attempts = machine.run(1, "all 1.5")
    assert result.ret == 0
    assert (judgement["verdict"], attempts) == ("passed", 2)
    (warning,) = [text for text in judgement["warnings"] if "twice" in text]
    assert warning.startswith("measured twice: the first time the device waited for a slow host, p50 0.2")


def test_a_host_that_stays_slow_is_named_and_fails(machine):
    result, judgement, attempts = machine.run(9, "all 1.5")
    assert result.ret == 1
    assert (judgement["verdict"], attempts) == ("regressed", 2)
    assert judgement["attribution"][0].startswith("the device waited for the host +0.")
    assert judgement["attribution"][0].endswith("text encoding took 1.5 times as long, so look at the host first")


def test_what_is_new_on_the_hosts_side_is_convicted_at_once(machine):
    """The device waits as well, but text encoding takes its usual time."""
    result, judgement, attempts = machine.run(1, "block 1.5")
    assert result.ret == 1
    assert (judgement["verdict"], attempts) == ("regressed", 1)
    assert judgement["attribution"][0].startswith("the device waited for the host")
    assert "look at the host" not in judgement["attribution"][0]


@pytest.mark.parametrize(("throttled", "verdict", "status"), [(0, "passed", 0), (1, "passed", 0), (2, "invalid", 1)])
def test_a_machine_is_unfit_when_it_was_so_twice_in_a_row(machine, throttled, verdict, status):
    result, judgement, attempts = machine.run(throttled, throttled=True)
    assert (judgement["verdict"], result.ret) == (verdict, status)
    assert attempts == (2 if throttled else 1)
    told = ["measured twice: the first time the GPU was throttled (hardware thermal slowdown)"]
    assert [text for text in judgement.get("warnings", ()) if "twice" in text] == (told if throttled else [])
