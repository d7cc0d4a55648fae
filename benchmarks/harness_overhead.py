"""What the harness adds to a generation: our timed region against a hand-written loop, in pairs on one pipeline.

    python benchmarks/harness_overhead.py [--pairs 40]
    python benchmarks/harness_overhead.py --model flux-dev@random --pairs 8     # on a GPU

The hand-written loop is the pipeline without any hook of ours between two device events (on a CPU, two readings of the
clock); ours is what a test's figure is. The order alternates. Prints both medians and the median ratio of the pairs
with its standard error; 1 is no difference.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from common import Machine, options, report, standard_error_of_median

from pytest_fluxperf.measure.phases import PhaseTracer
from pytest_fluxperf.measure.runner import time_call


@contextmanager
def without_hooks(transformer: Any) -> Iterator[None]:
    """The transformer as a serving process has it."""
    hooks = [transformer._forward_hooks, transformer._forward_pre_hooks]
    kept = [dict(each) for each in hooks]
    for each in hooks:
        each.clear()
    try:
        yield
    finally:
        for each, before in zip(hooks, kept, strict=True):
            each.update(before)


def by_hand(machine: Machine, prepared: Any) -> float:
    """Seconds of one generation, as somebody would time it without this project."""
    import torch

    machine.inputs.load(machine.workload.prompts[0])
    arguments = dict(machine.inputs)
    with without_hooks(prepared.pipe.transformer):
        if machine.device == "cpu":
            start = time.perf_counter()
            prepared.pipe(**arguments)
            return time.perf_counter() - start
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        begin.record()
        prepared.pipe(**arguments)
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3


def by_harness(machine: Machine, prepared: Any) -> float:
    """Seconds of one generation, as a test's are taken."""
    machine.inputs.load(machine.workload.prompts[0])
    with PhaseTracer(prepared.pipe, machine.clock) as tracer:
        prepared.begin()
        tracer.begin()
        seconds = time_call(lambda: prepared.pipe(**machine.inputs), machine.clock)[0]
        tracer.read()
        return seconds


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    machine = Machine(chosen)
    prepared = machine.acquire(chosen.recipe or machine.dtype)
    for warm_up in (by_hand, by_hand, by_harness):
        warm_up(machine, prepared)
    pairs = []
    for index in range(chosen.pairs):
        order = (by_harness, by_hand) if index % 2 else (by_hand, by_harness)
        seconds = {way: way(machine, prepared) for way in order}
        pairs.append((seconds[by_hand], seconds[by_harness]))
    ratios = [ours / bare for bare, ours in pairs]
    return machine.facts() | {
        "recipe": str(prepared.recipe),
        "pairs": pairs,
        "by_hand_p50_s": statistics.median(bare for bare, _ in pairs),
        "ours_p50_s": statistics.median(ours for _, ours in pairs),
        "ratio": statistics.median(ratios),
        "ratio_standard_error": standard_error_of_median(ratios),
    }


def show(result: dict[str, Any]) -> str:
    return (
        f"{result['model']} {result['recipe']}: {result['device']}, {result['size']} pixels, {result['steps']} steps\n"
        f"by hand {result['by_hand_p50_s']:.4f} s, ours {result['ours_p50_s']:.4f} s, ratio {result['ratio']:.5f} ± "
        f"{result['ratio_standard_error']:.5f} (n={len(result['pairs'])} pairs)"
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--recipe", help="default: the device's usual dtype alone")
    chosen = parser.parse_args()
    result = measure(chosen)
    report(chosen, result)
    print(show(result))


if __name__ == "__main__":
    main()
