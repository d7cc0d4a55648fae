from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from pytest_fluxperf.machine import telemetry


class NVMLError(Exception):
    pass


@pytest.fixture
def nvml(monkeypatch):
    """A GPU that reports what the test sets."""
    state = SimpleNamespace(reasons=0, pids=[], clock=1980)

    def unsupported(*_):
        raise NVMLError("not supported")

    fake = SimpleNamespace(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetCurrentClocksEventReasons=lambda handle: state.reasons,
        nvmlDeviceGetPowerUsage=lambda handle: 650_500,
        nvmlDeviceGetClockInfo=lambda handle, kind: state.clock,
        nvmlDeviceGetTemperature=unsupported,
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [SimpleNamespace(pid=pid) for pid in state.pids],
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return state


def test_reads_what_the_card_tells_and_none_for_the_rest(nvml):
    reading = telemetry.read("GPU-1")
    assert (reading.sm_clock_mhz, reading.power_w, reading.temperature_c) == (1980, 650.5, None)
    assert telemetry.unfit(reading) == ()


def test_a_power_cap_is_normal_work_but_heat_is_not(nvml):
    nvml.reasons = 0x04
    assert telemetry.unfit(telemetry.read("GPU-1")) == ()
    nvml.reasons = 0x04 | 0x40
    assert telemetry.unfit(telemetry.read("GPU-1")) == ("the GPU was throttled (hardware thermal slowdown)",)


def test_another_process_makes_the_gpu_unfit_but_our_own_does_not(nvml):
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        nvml.pids = [os.getpid(), stranger.pid, 2**22 + 1]
        assert telemetry.unfit(telemetry.read("GPU-1")) == (f"another process was on the GPU (pid {stranger.pid})",)
    finally:
        stranger.communicate(b"\n")


def test_no_gpu_or_no_driver_is_nothing_to_read(monkeypatch):
    assert telemetry.read(None) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert telemetry.read("GPU-1") is None
    assert telemetry.unfit(None) == ()


def samples(values, start=1000.0, period=0.16):
    """What the driver sampled, one value a period, from ``start`` (Unix seconds)."""
    return [
        SimpleNamespace(timeStamp=int((start + i * period) * 1e6), sampleValue=SimpleNamespace(uiVal=value))
        for i, value in enumerate(values)
    ]


def test_load_is_taken_from_whole_sampling_periods_inside_the_generation(nvml):
    busy = samples([0, 0, 50, 90, 100, 10, 0])  # at 1000.00, 1000.16, ...
    clocks = samples([1980, 1980, 1500, 1410, 1400, 1980, 1980])
    kinds = {1: busy, 5: clocks}
    sys.modules["pynvml"].nvmlDeviceGetSamples = lambda handle, kind, since: (1, kinds[kind])
    load = telemetry.during("GPU-1", 1000.30, 1000.70)  # the periods that end at .48 and .64
    assert load.busy == pytest.approx(0.95)
    assert load.sm_clock_mhz == 1405
    assert telemetry.during("GPU-1", 1000.33, 1000.45) is None, "no whole period lies inside"
    assert telemetry.during("GPU-1", 2000.0, 2001.0) is None
    assert telemetry.during(None, 1000.0, 1001.0) is None


def test_a_card_without_samples_has_no_load(nvml):
    assert telemetry.during("GPU-1", 1000.0, 1001.0) is None
