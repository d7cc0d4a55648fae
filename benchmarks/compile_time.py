"""Seconds to compile a recipe: with an empty cache of compiled kernels, and in a fresh process that finds it filled.

    python benchmarks/compile_time.py [--recipes compile] [--steps 2]
    python benchmarks/compile_time.py --model flux-dev@random --steps 2     # on a GPU

The seconds are the first generation's less a later one's. The cache is inductor's: a folder that
TORCHINDUCTOR_CACHE_DIR names (by default in the system's temporary folder), which outlives the process.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from typing import Any

from common import Machine, in_process, options, report

from pytest_fluxperf.pipelines.compile_counters import snapshot

GPU = "bf16+cudnn+compile,bf16+cudnn+fp8+compile"
CPU = "fp32+compile"


def run(chosen: argparse.Namespace) -> dict[str, Any]:
    """All recipes, in this process."""
    machine = Machine(chosen)
    rows = []
    for text in chosen.recipes.split(","):
        start = time.perf_counter()
        prepared = machine.acquire(text)
        prepare_s = time.perf_counter() - start
        before = snapshot()
        first = machine.generate(prepared)
        graphs = (snapshot() - before).graphs
        later = min(machine.generate(prepared) for _ in range(2))
        facts = prepared.facts()
        rows.append(
            {
                "recipe": str(prepared.recipe),
                "prepare_s": prepare_s,
                "compile_s": first - later,
                "generation_s": later,
                "graphs": graphs,
                "graph_breaks": facts["graph_breaks"],
                "cache_hits": facts["inductor_cache_hits"],
                "cache_misses": facts["inductor_cache_misses"],
            }
        )
        prepared.release()
    return machine.facts() | {"rows": rows}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--recipes", default=None, metavar="LIST", help="separated by commas between recipes")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.recipes is None:
        import torch

        on_cpu = (chosen.device or ("cuda" if torch.cuda.is_available() else "cpu")) == "cpu"
        chosen.recipes = CPU if on_cpu else GPU
    if chosen.here:
        print(json.dumps(run(chosen)))
        return
    arguments = ["--here", "--model", chosen.model, "--recipes", chosen.recipes]
    for name in ("device", "size", "steps"):
        if (value := getattr(chosen, name)) is not None:
            arguments += [f"--{name}", str(value)]
    with tempfile.TemporaryDirectory() as cache:
        result = {}
        for state in ("cold", "warm"):
            result[state] = in_process("compile_time.py", arguments, {"TORCHINDUCTOR_CACHE_DIR": cache})
            report(chosen, result)
    print(show(result))


def show(result: dict[str, Any]) -> str:
    first = result["cold"]
    lines = [f"{first['model']} on {first['device']}, torch {first['torch']}; seconds to compile"]
    for cold, warm in zip(first["rows"], result["warm"]["rows"], strict=True):
        lines.append(
            f"{cold['recipe']:<36} cold {cold['compile_s']:6.1f} s, warm {warm['compile_s']:6.1f} s "
            f"({cold['graphs']} graphs, {cold['graph_breaks']} breaks; cache hits {warm['cache_hits']} of "
            f"{warm['cache_hits'] + warm['cache_misses']} when warm)"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
