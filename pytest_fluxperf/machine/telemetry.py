"""State of an NVIDIA GPU by NVML, and whether it is fit to measure."""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_fluxperf.machine import nvml
from pytest_fluxperf.results import Telemetry

# nvml.h: reasons that slow the chip for its protection. A software power cap is not among them:
# a busy data-centre GPU sits at its power limit in normal work.
_THROTTLE = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}


@dataclass(frozen=True)
class Load:
    """What the driver sampled while a generation ran."""

    busy: float
    """Share of the time in which at least one kernel ran."""
    sm_clock_mhz: int | None
    """Median clock under load; a reading afterwards is that of an idle device."""


_GPU_UTILIZATION_SAMPLES, _PROCESSOR_CLOCK_SAMPLES = 1, 5  # nvml.h: nvmlSamplingType_t


def read(gpu_uuid: str | None, companions: Collection[int] = ()) -> Telemetry | None:
    """Clock, power, temperature, throttling and processes of a GPU; None without one or without NVML.

    ``companions`` are process groups that hold the GPU by agreement and take turns on it with this process.
    """
    if gpu_uuid is None:
        return None
    with nvml.session() as library:
        if library is None:
            return None
        handle = library.nvmlDeviceGetHandleByUUID(gpu_uuid)

        def ask(name: str, *arguments: Any) -> Any:
            return nvml.optional(library, name, handle, *arguments)

        reasons = ask("nvmlDeviceGetCurrentClocksEventReasons") or 0
        power = ask("nvmlDeviceGetPowerUsage")
        return Telemetry(
            sm_clock_mhz=ask("nvmlDeviceGetClockInfo", library.NVML_CLOCK_SM),
            power_w=None if power is None else power / 1000,
            temperature_c=ask("nvmlDeviceGetTemperature", library.NVML_TEMPERATURE_GPU),
            throttle_reasons=tuple(text for bit, text in _THROTTLE.items() if reasons & bit),
            other_processes=_strangers((p.pid for p in ask("nvmlDeviceGetComputeRunningProcesses") or ()), companions),
        )


def during(gpu_uuid: str | None, began: float, ended: float) -> Load | None:
    """What the driver sampled between two times (Unix seconds); None where it keeps no samples or none fits inside.

    The driver samples some six times a second and keeps the last quarter of a minute or so: ask soon after.
    """
    if gpu_uuid is None:
        return None
    with nvml.session() as library:
        if library is None:
            return None
        handle = library.nvmlDeviceGetHandleByUUID(gpu_uuid)

        def sampled(kind: int) -> list[tuple[int, int]]:
            _, samples = nvml.optional(library, "nvmlDeviceGetSamples", handle, kind, 0) or (0, ())
            return [(sample.timeStamp, sample.sampleValue.uiVal) for sample in samples]

        busy = within(sampled(_GPU_UTILIZATION_SAMPLES), began, ended)
        clocks = within(sampled(_PROCESSOR_CLOCK_SAMPLES), began, ended)
    if not busy:
        return None
    return Load(statistics.fmean(busy) / 100, round(statistics.median(clocks)) if clocks else None)


def within(samples: Sequence[tuple[int, int]], began: float, ended: float) -> list[int]:
    """Values of the samples (µs, value) whose whole period, which ends at their time, lies between two times."""
    times = sorted({time for time, _ in samples})
    if len(times) < 2:
        return []
    period = statistics.median(later - earlier for earlier, later in itertools.pairwise(times))
    return [value for time, value in samples if time - period >= began * 1e6 and time <= ended * 1e6]


def unfit(telemetry: Telemetry | None) -> tuple[str, ...]:
    """Why the GPU was not fit to measure; empty when it was, or when nobody can tell."""
    if telemetry is None:
        return ()
    reasons = [f"the GPU was throttled ({reason})" for reason in telemetry.throttle_reasons]
    if telemetry.other_processes:
        pids = ", ".join(map(str, telemetry.other_processes))
        reasons.append(f"another process was on the GPU (pid {pids})")
    return tuple(reasons)


def _strangers(pids: Iterable[int], companions: Collection[int] = ()) -> tuple[int, ...]:
    """Processes outside this one's group (xdist's workers share it) and outside the companions'."""
    ours = {os.getpgrp(), *companions}
    found = []
    for pid in pids:
        # NVML may name processes of other containers by pids that mean nothing here
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) not in ours:
                found.append(pid)
    return tuple(sorted(found))
