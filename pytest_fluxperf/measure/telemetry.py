"""State of an NVIDIA GPU by NVML, and whether it is fit to measure."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import Any

from pytest_fluxperf.results import Telemetry

# nvml.h: reasons that slow the chip for its protection. A software power cap is not among them:
# a busy data-centre GPU sits at its power limit in normal work.
_THROTTLE = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}


def read(gpu_uuid: str | None) -> Telemetry | None:
    """Clock, power, temperature, throttling and processes of a GPU; None without one or without NVML."""
    if gpu_uuid is None:
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no package or no driver: there is nothing to read
        return None
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(gpu_uuid)

        def ask(name: str, *args: Any) -> Any:
            try:
                return getattr(pynvml, name)(handle, *args)
            except (pynvml.NVMLError, AttributeError):  # not supported by this card, driver or package
                return None

        reasons = ask("nvmlDeviceGetCurrentClocksEventReasons") or 0
        power = ask("nvmlDeviceGetPowerUsage")
        return Telemetry(
            sm_clock_mhz=ask("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM),
            power_w=None if power is None else power / 1000,
            temperature_c=ask("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
            throttle_reasons=tuple(text for bit, text in _THROTTLE.items() if reasons & bit),
            other_processes=_strangers(p.pid for p in ask("nvmlDeviceGetComputeRunningProcesses") or ()),
        )
    finally:
        pynvml.nvmlShutdown()


def unfit(telemetry: Telemetry | None) -> tuple[str, ...]:
    """Why the GPU was not fit to measure; empty when it was, or when nobody can tell."""
    if telemetry is None:
        return ()
    reasons = [f"the GPU was throttled ({reason})" for reason in telemetry.throttle_reasons]
    if telemetry.other_processes:
        pids = ", ".join(map(str, telemetry.other_processes))
        reasons.append(f"another process was on the GPU (pid {pids})")
    return tuple(reasons)


def _strangers(pids: Iterable[int]) -> tuple[int, ...]:
    """Processes outside this one's group; xdist's workers share it and take turns on the device."""
    ours = os.getpgrp()
    found = []
    for pid in pids:
        # NVML may name processes of other containers by pids that mean nothing here
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) != ours:
                found.append(pid)
    return tuple(sorted(found))
