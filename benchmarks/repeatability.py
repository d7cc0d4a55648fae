"""What repeats: the coefficient of variation within a process, and the shift of medians between processes.

    python benchmarks/repeatability.py [--processes 5] [--samples 5] [--recipes fp32,compile]
    python benchmarks/repeatability.py --model flux-dev@random --steps 8 --samples 4     # on a GPU
    python benchmarks/repeatability.py --from 'docs/measurements.tar.xz:h200-results*'      # sessions of the suite

docs/gate.md takes its prior tau0 and the noise of a process from these figures. Latencies are paired by prompt, so
that prompts that differ do not count as noise.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable
from typing import Any

from common import Machine, in_process, options, report

from pytest_fluxperf.results import RunDocument

GPU = "bf16,bf16+cudnn+compile,bf16+cudnn+fp8+compile"
CPU = "fp32,fp32+fora"

LEAST_PROCESSES = 3
"""Of sessions of the suite: some measured only a part of it."""


def run(chosen: argparse.Namespace) -> dict[str, Any]:
    """Latencies of every recipe in this process."""
    machine = Machine(chosen)
    latencies: dict[str, list[float]] = {}
    for text in chosen.recipes.split(","):
        prepared = machine.acquire(text)
        for _ in range(2):
            machine.generate(prepared)
        latencies[str(prepared.recipe)] = [machine.generate(prepared, index) for index in range(chosen.samples)]
        prepared.release()
    return machine.facts() | {"latencies": latencies}


def read(documents: Iterable[RunDocument]) -> list[dict[str, list[float]]]:
    """The same from sessions of the suite: recipe (what a whole recipe stood for) → latencies."""
    return [
        {
            result.ran: [generation.latency_s for generation in result.measurement.generations]
            for result in document.results
            if result.ran and not result.measurement.problems
        }
        for document in documents
    ]


def busy(documents: Iterable[RunDocument]) -> dict[str, float]:
    """Recipe → share of the time in which the device was busy by NVML, the median of all generations of the sessions.

    NVML samples; gaps of microseconds between kernels count as busy.
    """
    shares: dict[str, list[float]] = {}
    for document in documents:
        for result in document.results:
            for made in result.measurement.generations:
                if result.ran and made.device_busy_s is not None:
                    shares.setdefault(result.ran, []).append(made.device_busy_s / made.latency_s)
    return {recipe: statistics.median(found) for recipe, found in shares.items()}


def net_of_within(row: dict[str, Any]) -> float | None:
    """Standard deviation between processes, less what n generations leave uncertain of a median.

    That is 1.2533 s / sqrt(n) for normal noise of standard deviation s.
    """
    if row["within_cv"] is None or row["between_sd"] is None:
        return None
    left: float = row["between_sd"] ** 2 - (1.2533 * row["within_cv"]) ** 2 / row["n"]
    return math.sqrt(max(0.0, left))


def analyse(sessions: list[dict[str, list[float]]]) -> list[dict[str, Any]]:
    """One row a recipe that :data:`LEAST_PROCESSES` measured, or all if they are fewer; spreads are of log latency."""
    rows = []
    found = Counter(recipe for session in sessions for recipe in session)
    least = min(LEAST_PROCESSES, len(sessions))
    for recipe in sorted(recipe for recipe, times in found.items() if times >= least):
        runs = [[math.log(value) for value in session[recipe]] for session in sessions if recipe in session]
        prompts = min(map(len, runs))
        runs = [values[:prompts] for values in runs]
        centres = [statistics.median(values[i] for values in runs) for i in range(prompts)]
        shifts = [statistics.median(x - c for x, c in zip(values, centres, strict=True)) for values in runs]
        within = [
            [x - c - shift for x, c in zip(values, centres, strict=True)]
            for values, shift in zip(runs, shifts, strict=True)
        ]
        medians = [math.exp(statistics.median(values)) for values in runs]
        rows.append(
            {
                "recipe": recipe,
                "processes": len(runs),
                "n": prompts,
                "p50_s": statistics.median(medians),
                "within_cv": statistics.median(statistics.stdev(values) for values in within) if prompts > 1 else None,
                "between_sd": statistics.stdev(shifts) if len(shifts) > 1 else None,
                "between_range": max(shifts) - min(shifts),
                "medians_s": medians,
            }
        )
    return rows


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--recipes", default=None, metavar="LIST", help="separated by commas between recipes")
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--from", dest="recorded", nargs="+", metavar="RESULTS")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.recipes is None and not chosen.recorded:
        import torch

        on_cpu = (chosen.device or ("cuda" if torch.cuda.is_available() else "cpu")) == "cpu"
        chosen.recipes = CPU if on_cpu else GPU
    if chosen.here:
        print(json.dumps(run(chosen)))
        return
    facts: dict[str, Any] = {}
    if chosen.recorded:
        from tools.recorded.archive import read_documents

        sessions = read(read_documents(chosen.recorded))
    else:
        sessions = []
        arguments = ["--here", "--model", chosen.model, "--recipes", chosen.recipes, "--samples", str(chosen.samples)]
        for name in ("device", "size", "steps"):
            if (value := getattr(chosen, name)) is not None:
                arguments += [f"--{name}", str(value)]
        for number in range(chosen.processes):
            told = in_process("repeatability.py", arguments)
            sessions.append(told.pop("latencies"))
            facts = told
            print(
                f"process {number + 1}: " + ", ".join(f"{v:.4f}" for v in map(statistics.median, sessions[-1].values()))
            )
            report(chosen, {**facts, "latencies": sessions, "rows": analyse(sessions)})
    result = {**facts, "latencies": sessions, "rows": analyse(sessions)}
    report(chosen, result)
    print(show(result))


def show(result: dict[str, Any]) -> str:
    lines = []
    for row in result["rows"]:
        within = "-" if row["within_cv"] is None else f"{row['within_cv']:.2%}"
        between = "-" if row["between_sd"] is None else f"{row['between_sd']:.2%}"
        net = "" if (left := net_of_within(row)) is None or row["n"] < 4 else f", {left:.2%} without the noise within"
        ran = f", device busy {row['busy']:.0%}" if "busy" in row else ""
        lines.append(
            f"{row['recipe']:<48} p50 {row['p50_s']:7.4f} s, within {within}, between {between} "
            f"(range {row['between_range']:.2%}{net}{ran}; {row['processes']} processes, n={row['n']} each)"
        )
    spreads = sorted(row["between_sd"] for row in result["rows"] if row["between_sd"] is not None)
    if len(spreads) >= 10:
        quiet = spreads[: math.ceil(0.8 * len(spreads))]
        rms = math.sqrt(statistics.fmean(spread**2 for spread in quiet))
        lines.append(
            f"between, all {len(spreads)} recipes: {statistics.median(spreads):.2%} in the middle; "
            f"root mean square of the quieter {len(quiet)}: {rms:.2%}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
