"""One process of a comparison, with the real plugin in it, asked by hand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import pytest_fluxperf
from pytest_fluxperf.ab.process import Side
from pytest_fluxperf.ab.protocol import AnyMessage, Finished, Go, Plan, Prepared

SUITE = """
import numpy as np
import pytest

def picture():
    return np.random.default_rng(0).random((32, 32, 3))

@pytest.mark.fluxperf(prompts=["one"], warmup=0)
def test_first():
    return picture()

@pytest.mark.fluxperf(prompts=["one"], warmup=0)
def test_second():
    return picture()

ONCE, MARKED = [], []

def picture_but_once(calls):
    calls.append(None)
    if len(calls) == 4:
        raise RuntimeError("out of luck")
    return picture()

@pytest.mark.fluxperf(prompts=["one"], warmup=0)
def test_fails_once():
    return picture_but_once(ONCE)

@pytest.mark.flaky(reruns=1)
@pytest.mark.fluxperf(prompts=["one"], warmup=0)
def test_marked():
    return picture_but_once(MARKED)
"""

RERUNS = """
import pytest
from _pytest.runner import runtestprotocol

def pytest_addoption(parser):
    parser.addoption("--reruns", type=int)

def pytest_configure(config):
    config.addinivalue_line("markers", "flaky(reruns)")

def pytest_runtest_protocol(item, nextitem):
    marker = item.get_closest_marker("flaky")
    for _ in range(1 + (marker.kwargs["reruns"] if marker else item.config.option.reruns or 0)):
        if all(report.passed for report in runtestprotocol(item, nextitem=nextitem)):
            break
    return True
"""
"""What pytest-rerunfailures comes to."""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(pytest_fluxperf.__file__).parents[1]))
    pytester.makepyfile(test_suite=SUITE, reruns=RERUNS)


@contextmanager
def started(
    folder: Path, *tests: str, compared: tuple[str, ...] = (), arguments: tuple[str, ...] = ()
) -> Iterator[Side]:
    """A process that is to run ``tests``."""
    named = [f"test_suite.py::{test}" for test in tests]
    with Side("new", "1", Path(sys.executable), ("--gpu=cpu", *arguments, *named), folder, 120.0) as side:
        side.greet()
        side.collect()
        side.plan(Plan(tests=tuple(named), least_pairs=8, quality=True, compared=compared))
        yield side


def ran(side: Side) -> list[AnyMessage]:
    """What a side says of its next test."""
    said = [side.ask(Go())]
    while not isinstance(said[-1], Finished):
        said.append(side.ask(Go()))
    return said


def test_pictures_of_what_was_compared_are_left_alone(suite, tmp_path: Path) -> None:
    with started(tmp_path, "test_first", "test_second", compared=("test_suite.py::test_first",)) as side:
        assert [ran(side)[-1].result.reference for _ in range(2)] == ["none", "baseline"]


def test_a_test_that_fails_is_not_run_again(suite, tmp_path: Path) -> None:
    """A second measurement would take no turns with the other environment."""
    with started(tmp_path, "test_fails_once", "test_marked", arguments=("-p", "reruns", "--reruns=1")) as side:
        for said in (ran(side), ran(side)):
            assert len([message for message in said if isinstance(message, Prepared)]) == 1
            assert said[-1].result.measurement.problems[0].startswith("raised RuntimeError: out of luck")
