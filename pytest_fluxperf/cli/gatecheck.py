"""``fluxperf gate-check``: what this machine's noise lets the gate see."""

from __future__ import annotations

import sys
from pathlib import Path

from pytest_fluxperf.ab.selfcheck import measure_processes
from pytest_fluxperf.ab.side import find_python
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.noise import false_alarms, measure_noise, supported_tolerance
from pytest_fluxperf.wiring import new_run_name


def gate_check(arguments: tuple[str, ...], processes: int, reports: Path, timeout_s: float) -> int:
    """Measure, and print the noise, the false alarms at several tolerances, and the tolerance it supports."""
    if processes < 2:
        raise FluxPerfError(f"--processes {processes}: noise between processes needs two or more, better four")
    folder = (reports / new_run_name()).absolute()
    tests = measure_processes(
        find_python(sys.executable), arguments, folder, processes, timeout_s, lambda line: print(line, flush=True)
    )
    noise = measure_noise(list(tests.values()))
    print(f"\nwithin a process     {noise.within:.2%}   ({noise.residuals.size} generations)")
    m = len(tests)
    counted = f"{m} test{'s' if m > 1 else ''}"
    low, high = noise.tau_range
    print(f"between processes τ  {noise.tau:.2%}   ({processes} processes, {counted}; {low:.2%} to {high:.2%} at 90 %)")
    print(f"\nunchanged sessions of {counted}, simulated with this noise:\n")
    print("tolerance  fail against 3 stored runs  tests left inconclusive  fail in an A/B")
    found = false_alarms(noise, m)
    for alarms in found:
        print(f"{alarms.tolerance:>8.0%}  {alarms.stored:>26.1%}  {alarms.open:>23.1%}  {alarms.interleaved:>14.1%}")
    supported = supported_tolerance(found)
    if supported is None:
        print(f"\nno tolerance up to {found[-1].tolerance:.0%} is supported: too noisy for absolute latency")
    else:
        print(f"\nthis machine supports a tolerance of {supported:.0%} (fluxperf_max_slowdown = {supported:g})")
    return 0
