"""The host's pace is a fixed piece of work: the same each time, and slower where the host is."""

from __future__ import annotations

import pytest

from pytest_fluxperf.machine import host


@pytest.fixture
def clock(monkeypatch):
    """Time that passes by calls of Python and of the driver."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(host.time, "perf_counter", lambda: Clock.now)
    monkeypatch.setattr(host, "_plain_python", lambda rounds: setattr(Clock, "now", Clock.now + rounds * 1e-6))
    return Clock


def test_on_a_cpu_plain_python_alone_is_timed(clock, monkeypatch):
    monkeypatch.setattr(host, "_driver", lambda: pytest.fail("was asked"))
    assert host.pace("cpu") == pytest.approx(host.ROUNDS * 1e-6)


def test_on_a_gpu_the_driver_is_asked_too(clock, monkeypatch):
    asked = []
    monkeypatch.setattr(host, "_driver", lambda: asked.append)
    host.pace("cuda:0")
    assert asked == [None] * host.DRIVER_CALLS


def test_without_the_drivers_library_plain_python_tells(clock, monkeypatch):
    monkeypatch.setattr(host.ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    host._driver.cache_clear()
    assert host.pace("cuda:0") == pytest.approx(host.ROUNDS * 1e-6)
    host._driver.cache_clear()


def test_the_work_is_the_same_each_time():
    assert host._plain_python(1000) == host._plain_python(1000)
