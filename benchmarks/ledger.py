"""The work of a generation, counted in two processes: one on an idle machine, one beside busy processes.

    python benchmarks/ledger.py --recipes fp32 fp32+fbcache:0.1                       # the embedded model on a CPU
    python benchmarks/ledger.py --model flux-dev@random --budget-s 500 \\
        --recipes bf16 bf16+fbcache:0.3 fastest                                       # on a GPU

Prints for each recipe and process kernels, operators, Python calls and device time by phase as they come, whether the
second process counted the same, and what counting costs: starting the profiler, the counted generation against a plain
one, and stopping and reading it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from common import Machine, options, report

from pytest_fluxperf.gate import evidence
from pytest_fluxperf.measure.work import count
from pytest_fluxperf.results import Ledger

WARMUPS = 2
"""Generations before the plain ones: the first may compile, and what is made lazily is made."""


def counted(machine: Machine, recipe: str, repeats: int) -> dict[str, Any]:
    """Ledger and costs of one recipe, in this process."""
    start = time.perf_counter()
    prepared = machine.acquire(recipe)
    for _ in range(WARMUPS):
        machine.generate(prepared)
    ready = time.perf_counter()
    plain = [machine.generate(prepared) for _ in range(2)]
    ledgers, costs = [], []
    for _ in range(repeats):
        machine.inputs.load(machine.workload.prompts[0])
        prepared.begin()
        marks = [time.perf_counter()]

        def generate(marks: list[float] = marks) -> None:
            marks.append(time.perf_counter())
            prepared.pipe(**machine.inputs)
            machine.clock.synchronize()
            marks.append(time.perf_counter())

        ledger = count(generate, prepared.pipe, machine.device, lambda: prepared.steps.decisions)
        marks.append(time.perf_counter())
        assert ledger is not None, "another profiler runs"
        ledgers.append(ledger)
        costs.append([after - before for before, after in itertools.pairwise(marks)])
    spent = [ledger.device_s for ledger in ledgers if ledger.device_s is not None]
    prepared.park()
    return {
        "recipe": recipe,
        "ran": str(prepared.recipe),
        "ready_s": ready - start,
        "plain_s": statistics.median(plain),
        "cost_s": dict(zip(("start", "generation", "stop and read"), map(list, zip(*costs, strict=True)), strict=True)),
        "device_s": spent,
        "repeats": all(not evidence.compare(ledgers[0], [other]).changes for other in ledgers[1:]),
        "bytes": len(msgspec.json.encode(ledgers[0])),
        "ledger": msgspec.to_builtins(ledgers[0]),
    }


def child(chosen: argparse.Namespace) -> None:
    """Count all recipes and write one line of JSON each to the file descriptor that was given."""
    machine = Machine(chosen)
    with os.fdopen(chosen.lines, "w") as lines:
        for recipe in chosen.recipes:
            try:
                line = counted(machine, recipe, chosen.repeats)
            except Exception as error:
                traceback.print_exc()
                line = {"recipe": recipe, "error": f"{type(error).__name__}: {error}".splitlines()[0]}
            print(json.dumps(line), file=lines, flush=True)


def lines_of(deadline: float) -> Iterator[dict[str, Any]]:
    """The lines of a fresh process, as they come; it is killed at the deadline."""
    reading, writing = os.pipe()
    command = [sys.executable, __file__, *sys.argv[1:], "--lines", str(writing)]
    process = subprocess.Popen(command, pass_fds=[writing])
    os.close(writing)
    watch = threading.Timer(max(1.0, deadline - time.monotonic()), process.kill)
    watch.start()
    try:
        with os.fdopen(reading) as lines:
            for line in lines:
                yield json.loads(line)
    finally:
        watch.cancel()
        process.kill()
        process.wait()


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep that many processes computing."""
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in load:
            process.kill()
            process.wait()


def show(line: dict[str, Any], where: str, other: dict[str, Any] | None) -> str:
    if "error" in line:
        return f"{line['recipe']} ({where}): {line['error']}"
    cost = {name: statistics.median(values) for name, values in line["cost_s"].items()}
    extra = cost["generation"] - line["plain_s"]
    text = [
        f"{line['recipe']} ({where}): plain {line['plain_s']:.3f} s; counting took {sum(cost.values()):.3f} s: start "
        f"{cost['start']:.3f}, generation {cost['generation']:.3f} ({extra:+.3f}), stop and read "
        f"{cost['stop and read']:.3f}; {line['bytes']} bytes; again in this process: "
        + ("the same" if line["repeats"] else "NOT THE SAME")
    ]
    if line["device_s"]:
        text.append("  device time " + ", ".join(f"{time:.4f}" for time in line["device_s"]) + " s")
    ledger = msgspec.convert(line["ledger"], Ledger)
    for phase in ledger.phases:
        work = phase.total
        kernels = "" if work.kernels is None else f"{work.kernels:>9,} kernels {work.device_s:9.4f} s"
        operators = "" if work.operators is None else f"{work.operators:>10,} operators"
        text.append(f"  {phase.phase:>9} ×{phase.times:<3}{kernels}{operators} {work.calls:>9,} calls")
    if other is not None and "error" not in other:
        found = evidence.compare(ledger, [msgspec.convert(other["ledger"], Ledger)])
        same = "the same work as idle" if found.work == "same" else f"{found.work}: " + "; ".join(found.reasons)
        wall = line["plain_s"] / other["plain_s"] - 1
        device = "" if found.device is None else f", device time {found.device.change:+.2%}"
        text.append(f"  {same}{device}, wall time {wall:+.1%}")
    return "\n".join(text)


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    end = time.monotonic() + chosen.budget_s
    seen: dict[str, dict[str, dict[str, Any]]] = {"idle": {}, "busy": {}}
    result = {"recipes": chosen.recipes, "busy_processes": chosen.busy, "lines": seen}
    for where, deadline in (("idle", end - chosen.budget_s / 2), ("busy", end)):
        with busy(chosen.busy if where == "busy" else 0):
            for line in lines_of(deadline):
                seen[where][line["recipe"]] = line
                other = seen["idle"].get(line["recipe"]) if where == "busy" else None
                print(show(line, where, other), flush=True)
                report(chosen, result)
        for recipe in chosen.recipes:
            if recipe not in seen[where]:
                print(f"{recipe} ({where}): not reached within --budget-s", flush=True)
    return result


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--recipes", nargs="+", default=["fp32", "fp32+fbcache:0.1", "fp32+int8wo"])
    parser.add_argument("--repeats", type=int, default=2, help="counted generations a recipe and process")
    parser.add_argument("--busy", type=int, default=round(1.5 * (os.cpu_count() or 1)), help="busy processes")
    parser.add_argument("--budget-s", type=float, default=600.0, help="seconds for both processes")
    parser.add_argument("--lines", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.lines is not None:
        child(chosen)
    else:
        report(chosen, measure(chosen))


if __name__ == "__main__":
    main()
