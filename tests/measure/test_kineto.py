from __future__ import annotations

import os

import pytest

from pytest_fluxperf.measure import kineto


class Profiler:
    """Writes as libkineto does, past Python."""

    def start(self):
        os.write(2, b"USDT:2026-11-25 11:31:34 1:1 Handler.cpp:52] profiler_start\nERROR: no CUPTI\n")

    def stop(self):
        os.write(2, b"ERROR: lost 3 events\nUSDT:2026-11-25 11:31:34 1:1 Handler.cpp:59] profiler_stop\n")
        raise RuntimeError("not running")


def test_announcements_are_left_out_and_errors_are_not(capfd):
    os.write(2, b"before\n")
    kineto.start(Profiler())
    with pytest.raises(RuntimeError, match="not running"):
        kineto.stop(Profiler())
    os.write(2, b"after\n")
    assert capfd.readouterr().err.splitlines() == ["before", "ERROR: no CUPTI", "ERROR: lost 3 events", "after"]


def test_a_process_without_standard_error_profiles_too(monkeypatch):
    def closed(descriptor):
        raise OSError("Bad file descriptor")

    monkeypatch.setattr(os, "dup", closed)
    started = []
    kineto.start(type("Quiet", (), {"start": lambda self: started.append(self)})())
    assert len(started) == 1
