"""One loaded base for all recipes against a pipeline built anew for each, and how long switching takes.

    python benchmarks/one_base.py [--recipes fp32,fora,...] [--steps 4]
    python benchmarks/one_base.py --model flux-dev@random --steps 4     # on a GPU

Either way every recipe is prepared and makes one picture. Each way runs in a process of its own with an empty cache of
compiled kernels. Prints seconds a recipe (preparing; first picture, which includes compiling) and in all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from typing import Any

from common import Machine, in_process, options, report

GPU = "bf16,bf16+fa2,bf16+fbcache:0.3,bf16+teacache:0.6,bf16+compile,bf16+compile+fbcache:0.3,bf16+fp8wo,bf16+fp8"
CPU = "fp32,fp32+math,fp32+fbcache:0.3,fp32+fora,fp32+compile,fp32+compile+fbcache:0.3,fp32+int8wo"


def run(chosen: argparse.Namespace) -> dict[str, Any]:
    """One way, in this process."""
    machine = Machine(chosen)
    rows = []
    machine.acquire(machine.dtype).release()  # libraries and the device are initialized before the clock starts
    machine.pool.close()
    begun = time.perf_counter()
    for text in chosen.recipes.split(","):
        start = time.perf_counter()
        prepared = machine.acquire(text)
        machine.clock.synchronize()
        prepare_s = time.perf_counter() - start
        picture_s = machine.generate(prepared)
        rows.append({"recipe": str(prepared.recipe), "prepare_s": prepare_s, "first_picture_s": picture_s})
        if chosen.way == "anew":
            prepared.release()
            machine.pool.close()
        else:
            prepared.park()
    return machine.facts() | {"rows": rows, "total_s": time.perf_counter() - begun}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--recipes", default=None, metavar="LIST", help="separated by commas between recipes")
    parser.add_argument("--way", choices=("shared", "anew"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.recipes is None:
        import torch

        on_cpu = (chosen.device or ("cuda" if torch.cuda.is_available() else "cpu")) == "cpu"
        chosen.recipes = CPU if on_cpu else GPU
    if chosen.way:
        print(json.dumps(run(chosen)))
        return
    ways = {}
    for way in ("shared", "anew"):
        arguments = ["--way", way, "--model", chosen.model, "--recipes", chosen.recipes]
        for name in ("device", "size", "steps"):
            if (value := getattr(chosen, name)) is not None:
                arguments += [f"--{name}", str(value)]
        with tempfile.TemporaryDirectory() as cache:
            ways[way] = in_process("one_base.py", arguments, {"TORCHINDUCTOR_CACHE_DIR": cache})
    shared, anew = ways["shared"], ways["anew"]
    cheap = [
        row["prepare_s"]
        for row in shared["rows"][1:]
        if not any(word in row["recipe"] for word in ("compile", "fp8", "int8", "int4"))
    ]
    result = {**ways, "ratio": anew["total_s"] / shared["total_s"], "plain_switches_s": cheap}
    report(chosen, result)
    print(f"{shared['model']} on {shared['device']}, {shared['steps']} steps; seconds to prepare + first picture")
    for one, new in zip(shared["rows"], anew["rows"], strict=True):
        print(
            f"  {one['recipe']:<36} one base {one['prepare_s']:7.3f} + {one['first_picture_s']:7.3f}   "
            f"anew {new['prepare_s']:7.3f} + {new['first_picture_s']:7.3f}"
        )
    print(
        f"all: one base {shared['total_s']:.1f} s, anew {anew['total_s']:.1f} s, {result['ratio']:.2f} times; "
        f"switches without compile and quantization: median {statistics.median(cheap):.3f} s, most {max(cheap):.3f} s"
    )


if __name__ == "__main__":
    main()
