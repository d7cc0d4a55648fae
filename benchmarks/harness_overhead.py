"""What the harness adds to a generation: our timed region against a bare pipeline call, in pairs, on one pipeline.

    python benchmarks/harness_overhead.py [--pairs 40] [--model tiny] [--device cpu]

Prints the median ratio of paired latencies with its standard error; 1 is no difference.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from pytest_fluxperf.measure.clock import clock_for
from pytest_fluxperf.measure.inputs import GenerationInputs
from pytest_fluxperf.measure.phases import PhaseTracer
from pytest_fluxperf.measure.runner import timed
from pytest_fluxperf.pipelines.models import resolve
from pytest_fluxperf.pipelines.pool import Pool
from pytest_fluxperf.prompts import FOLDER, load
from pytest_fluxperf.recipe import parse
from pytest_fluxperf.results import Workload


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int)
    options = parser.parse_args()
    info = resolve(options.model)
    steps = options.steps or info.defaults.steps
    prompts = load("default", (0,), folder=info.prompts or FOLDER)
    size = info.defaults.size
    workload = Workload(
        model=info.name, prompts=prompts, height=size, width=size, steps=steps, guidance=info.defaults.guidance
    )
    dtype = "fp32" if options.device == "cpu" else info.defaults.dtype
    prepared = Pool(info, options.device).acquire(parse(dtype), steps=steps)
    inputs = GenerationInputs(workload, {"max_sequence_length": info.defaults.max_sequence_length})
    clock = clock_for(options.device)

    def bare() -> float:
        inputs.load(prompts[0])
        if options.device != "cpu":
            torch.cuda.synchronize()
        start = time.perf_counter()
        prepared.pipe(**inputs)
        if options.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def ours() -> float:
        inputs.load(prompts[0])
        prepared.begin()
        with PhaseTracer(prepared.pipe, clock):
            return timed(lambda: prepared.pipe(**inputs), clock)[0]

    for _ in range(2):
        bare()
        ours()
    ratios = []
    for pair in range(options.pairs):
        a, b = (bare(), ours()) if pair % 2 else (ours(), bare())[::-1]
        ratios.append(b / a)
    median = statistics.median(ratios)
    spread = statistics.median(abs(r - median) for r in ratios)
    error = 1.858 * spread / len(ratios) ** 0.5  # standard error of a median from the median absolute deviation
    print(f"harness / bare: {median:.4f} ± {error:.4f} over {len(ratios)} pairs ({options.model}, {options.device})")


if __name__ == "__main__":
    main()
