"""``fluxperf gate-check``: what this machine's noise lets the gate see."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from pytest_fluxperf.ab.process import find_python
from pytest_fluxperf.ab.selfcheck import measure_processes
from pytest_fluxperf.cli.processes import make_folder, refuse_own_options
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.noise import TOLERANCES, Noise, false_alarms, measure_noise, supported_tolerance
from pytest_fluxperf.report.document import new_run_name

ENOUGH_PROCESSES = 4
"""With fewer the upper end of tau's range is so far off that it says nothing."""


def gate_check(arguments: tuple[str, ...], processes: int, reports: Path, timeout_s: float) -> int:
    """Measure, and print the noise, the false alarms at several tolerances, and the tolerance it supports."""
    if processes < 2:
        raise FluxPerfError(f"--processes {processes}: noise between processes needs two or more, better four")
    refuse_own_options(arguments, "a check of the machine's noise, which keeps nothing")
    folder = make_folder(reports, new_run_name())
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
    print(f"\n{_advice(noise, m, supported_tolerance(found))}")
    return 0


def _advice(noise: Noise, m: int, supported: float | None) -> str:
    if supported is None:
        return f"no tolerance up to {TOLERANCES[-1]:.0%} is supported: too noisy for absolute latency"
    lines = [f"this machine supports a tolerance of {supported:.0%} (fluxperf_max_slowdown = {supported:g})"]
    if noise.processes < ENOUGH_PROCESSES:
        lines.append(
            f"but {noise.processes} processes hardly know τ; more processes needed: --processes {ENOUGH_PROCESSES}"
        )
    else:
        high = noise.tau_range[1]
        surely = supported_tolerance(false_alarms(replace(noise, tau=high), m))
        bound = f"no tolerance up to {TOLERANCES[-1]:.0%}" if surely is None else f"{surely:.0%}"
        lines.append(f"were τ at the upper end of its range, {high:.2%}, it would support {bound}")
    lines.append("on a CPU this is for fluxperf ab only: the suite itself judges the speed-up over the reference there")
    return "\n".join(lines)
