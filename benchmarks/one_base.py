"""One loaded base for all recipes against a pipeline built anew for each, and how long switching takes.

    python benchmarks/one_base.py [--recipes fp32,fora,...] [--steps 4]
    python benchmarks/one_base.py --model flux-dev@random --steps 4     # on a GPU
    python benchmarks/one_base.py --model flux-dev@random --steps 4 --from-disk --recipes bf16,bf16+fa2,bf16+fora

With ``--from-disk`` the model is first saved to a temporary folder (34 GB for FLUX.1-dev) and loaded from there, as
real weights are: random ones are made on the device in no time.

Either way every recipe is prepared and makes one picture. Each way runs in a process of its own with an empty cache of
compiled kernels. Prints seconds a recipe (preparing; first picture, which includes compiling), in all, and what
switching to a recipe takes on one base.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from typing import Any

from common import Machine, in_process, options, report

from pytest_fluxperf.recipe import parse

GPU = (
    "bf16,bf16+fa2,bf16+cudnn,bf16+fbcache:0.3,bf16+teacache:0.6,bf16+fora,bf16+magcache,bf16+compile,"
    "bf16+compile+fbcache:0.3,bf16+compile+teacache:0.6,bf16+int8wo,bf16+fp8wo,bf16+fp8,bf16+cudnn+fp8+compile,"
    "bf16+cudnn+fp8+compile+fbcache:0.3,bf16+cudnn+fp8+compile+teacache:0.6"
)
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


def save(chosen: argparse.Namespace) -> dict[str, Any]:
    """Save the model where it is to be loaded from."""
    machine = Machine(chosen)
    start = time.perf_counter()
    machine.acquire(machine.dtype).pipe.save_pretrained(chosen.save)
    return {"save_s": time.perf_counter() - start}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--from-disk", action="store_true", help="save the model first, and load it from there")
    parser.add_argument("--save", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--recipes", default=None, metavar="LIST", help="separated by commas between recipes")
    parser.add_argument("--way", choices=("shared", "anew"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.recipes is None:
        import torch

        on_cpu = (chosen.device or ("cuda" if torch.cuda.is_available() else "cpu")) == "cpu"
        chosen.recipes = CPU if on_cpu else GPU
    if chosen.way or chosen.save:
        print(json.dumps(run(chosen) if chosen.way else save(chosen)))
        return
    settings = []
    for name in ("device", "size", "steps"):
        if (value := getattr(chosen, name)) is not None:
            settings += [f"--{name}", str(value)]
    ways = {}
    with tempfile.TemporaryDirectory() as folder:
        model = chosen.model
        if chosen.from_disk:
            in_process("one_base.py", ["--model", model, "--save", folder, *settings])
            model = folder
        for way in ("shared", "anew"):
            arguments = ["--way", way, "--model", model, "--recipes", chosen.recipes, *settings]
            with tempfile.TemporaryDirectory() as cache:
                ways[way] = in_process("one_base.py", arguments, {"TORCHINDUCTOR_CACHE_DIR": cache})
            ways[way]["model"] = f"{chosen.model}, from disk" if chosen.from_disk else chosen.model
            report(chosen, ways)
    shared, anew = ways["shared"], ways["anew"]
    result = {
        **ways,
        "ratio": anew["total_s"] / shared["total_s"],
        "preparing_ratio": preparing(anew) / preparing(shared),
        "switches_s": switches(shared),
    }
    report(chosen, result)
    print(show(result))


def show(result: dict[str, Any]) -> str:
    shared, anew = result["shared"], result["anew"]
    lines = [f"{shared['model']} on {shared['device']}, {shared['steps']} steps; seconds to prepare + first picture"]
    for one, new in zip(shared["rows"], anew["rows"], strict=True):
        lines.append(
            f"  {one['recipe']:<36} one base {one['prepare_s']:7.3f} + {one['first_picture_s']:7.3f}   "
            f"anew {new['prepare_s']:7.3f} + {new['first_picture_s']:7.3f}"
        )
    lines.append(
        f"all: one base {shared['total_s']:.1f} s, anew {anew['total_s']:.1f} s: {result['ratio']:.2f} times\n"
        f"preparing alone: {preparing(shared):.2f} s, {preparing(anew):.2f} s: {result['preparing_ratio']:.1f} times"
    )
    for kind, seconds in result["switches_s"].items():
        if seconds:
            lines.append(f"switching, {kind}: median {statistics.median(seconds):.3f} s, most {max(seconds):.3f} s")
    return "\n".join(lines)


def preparing(way: dict[str, Any]) -> float:
    return sum(row["prepare_s"] for row in way["rows"])


def switches(way: dict[str, Any]) -> dict[str, list[float]]:
    """Seconds to prepare every recipe but the first, which loads, by what is expensive about it."""
    kinds: dict[str, list[float]] = {"plain": [], "to or from compiled blocks": [], "quantizing": []}
    for two in itertools.pairwise(way["rows"]):
        before, after = (parse(row["recipe"]) for row in two)
        quantization = after.token("quantization")
        if quantization is not None and quantization != before.token("quantization"):
            kind = "quantizing"
        elif before.token("compile") != after.token("compile"):
            kind = "to or from compiled blocks"
        else:
            kind = "plain"
        kinds[kind].append(two[1]["prepare_s"])
    return kinds


if __name__ == "__main__":
    main()
