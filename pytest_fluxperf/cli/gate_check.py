"""``fluxperf gate-check``: what this machine's noise lets the gate see."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_fluxperf.cli.arguments import Commands
from pytest_fluxperf.cli.processes import add_process_options, make_folder, refuse_own_options
from pytest_fluxperf.errors import FluxPerfError

if TYPE_CHECKING:
    from pytest_fluxperf.gate.noise import Noise

ENOUGH_PROCESSES = 4
"""With fewer the upper end of tau's range is so far off that it says nothing."""


def add_parser(commands: Commands) -> None:
    """What the command takes."""
    parser = commands.add_parser(
        "gate-check",
        help="measure this machine's noise in fresh processes, and the tolerance that it supports",
        usage="fluxperf gate-check [options] -- PYTEST_ARGUMENTS",
    )
    parser.add_argument(
        "--processes", type=int, default=4, metavar="N", help="fresh processes to measure in (default: 4)"
    )
    add_process_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, and print the noise, the false alarms at several tolerances, and the tolerance it supports."""
    from pytest_fluxperf.ab.process import find_python
    from pytest_fluxperf.ab.selfcheck import measure_processes
    from pytest_fluxperf.gate.noise import measure_noise
    from pytest_fluxperf.report.document import new_run_name

    if options.processes < 2:
        raise FluxPerfError(f"--processes {options.processes}: noise between processes needs two or more, better four")
    refuse_own_options(options.pytest, "a check of the machine's noise, which keeps nothing")
    tests = measure_processes(
        find_python(sys.executable),
        options.pytest,
        make_folder(options.reports, new_run_name()),
        options.processes,
        options.timeout,
        lambda line: print(line, flush=True),
    )
    _print(measure_noise(list(tests.values())), len(tests), options.processes)
    return 0


def _print(noise: Noise, tests: int, processes: int) -> None:
    from pytest_fluxperf.gate.noise import false_alarms, supported_tolerance

    print(f"\nwithin a process     {noise.within:.2%}   ({noise.residuals.size} generations)")
    counted = f"{tests} test{'s' if tests > 1 else ''}"
    low, high = noise.tau_range
    print(f"between processes τ  {noise.tau:.2%}   ({processes} processes, {counted}; {low:.2%} to {high:.2%} at 90 %)")
    print(f"\nunchanged sessions of {counted}, simulated with this noise:\n")
    print("tolerance  fail against 3 stored runs  tests left inconclusive  fail in an A/B")
    rates = false_alarms(noise, tests)
    for rate in rates:
        print(f"{rate.tolerance:>8.0%}  {rate.stored:>26.1%}  {rate.open:>23.1%}  {rate.interleaved:>14.1%}")
    print(f"\n{_advice(noise, tests, supported_tolerance(rates))}")


def _advice(noise: Noise, tests: int, supported: float | None) -> str:
    from pytest_fluxperf.gate.noise import TOLERANCES, false_alarms, supported_tolerance

    if supported is None:
        return f"no tolerance up to {TOLERANCES[-1]:.0%} is supported: too noisy for absolute latency"
    lines = [f"this machine supports a tolerance of {supported:.0%} (fluxperf_max_slowdown = {supported:g})"]
    if noise.processes < ENOUGH_PROCESSES:
        lines.append(
            f"but {noise.processes} processes hardly know τ; more processes needed: --processes {ENOUGH_PROCESSES}"
        )
    else:
        high = noise.tau_range[1]
        surely = supported_tolerance(false_alarms(replace(noise, tau=high), tests))
        bound = f"no tolerance up to {TOLERANCES[-1]:.0%}" if surely is None else f"{surely:.0%}"
        lines.append(f"were τ at the upper end of its range, {high:.2%}, it would support {bound}")
    lines.append("on a CPU this is for fluxperf ab only: the suite itself judges the speed-up over the reference there")
    return "\n".join(lines)
