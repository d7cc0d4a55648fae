"""What inductor's options do to compiled blocks: seconds of a generation and of compiling, longest fused kernels.

    python benchmarks/inductor_options.py --model flux-dev@random     # on a GPU
    python benchmarks/inductor_options.py --steps 4 --sets blocks,tuned

Each set compiles the blocks of one recipe anew, past inductor's cache, and makes pictures. The sets add to each other,
from what ``compile`` does to what ``compile:tuned`` does; ``--sets`` chooses among them. The difference is that of
the latents after two steps from those of the same recipe uncompiled, by their Euclidean norms.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
from common import Machine, options, report
from kernel_breakdown import REST, part_of

from pytest_fluxperf.measure.profile import profile_generation
from pytest_fluxperf.pipelines.optimizations import tuning

POINTWISE = {"max_autotune_pointwise": True}
UNSPLIT = POINTWISE | {"split_reductions": False}

SETS: dict[str, dict[str, Any]] = {
    "blocks": {},
    "pointwise": {"options": POINTWISE},
    "unsplit": {"options": UNSPLIT},
    "logistic": {"options": UNSPLIT | {"post_grad_custom_pre_pass": tuning.TanhByLogistic()}},
    "tuned": {"backend": tuning.backend},
    "descent": {"options": POINTWISE | {"coordinate_descent_tuning": True}},
}
"""What torch.compile is told, by the name that the table gives it."""


class Comparison:
    """One recipe on one base."""

    def __init__(self, machine: Machine, recipe: str, repeats: int) -> None:
        self.machine, self.recipe, self.repeats = machine, recipe, repeats
        prepared = machine.acquire(recipe)
        self.uncompiled = self.latents(prepared)
        prepared.release()

    def latents(self, prepared: Any) -> torch.Tensor:
        """After two steps, as the transformer left them."""
        self.machine.inputs.load(self.machine.workload.prompts[0])
        prepared.begin()
        inputs = {**self.machine.inputs, "num_inference_steps": 2, "output_type": "latent"}
        return prepared.pipe(**inputs).images.float()

    def measure(self, name: str) -> dict[str, Any]:
        """One set of options on a fresh pipeline."""
        machine = self.machine
        prepared = machine.acquire(self.recipe)
        transformer = prepared.pipe.transformer
        blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
        try:
            for block in blocks:
                block.forward = torch.compile(block.forward, fullgraph=True, **SETS[name])
            with torch._inductor.config.patch(force_disable_caches=True):
                first = machine.generate(prepared)
            difference = (self.latents(prepared) - self.uncompiled).norm() / self.uncompiled.norm()
            latencies = [machine.generate(prepared) for _ in range(self.repeats)]
            table = profile_generation(
                lambda: machine.generate(prepared),
                machine.device,
                transformer=transformer,
                latency_s=statistics.median(latencies),
            )
        finally:
            for block in blocks:
                block.__dict__.pop("forward", None)
            prepared.release()
            torch._dynamo.reset()
        fused = [kernel for kernel in table.kernels if part_of(kernel.family) == REST]
        return {
            "set": name,
            "latencies_s": latencies,
            "compile_s": first - min(latencies),
            "difference": float(difference),
            "fused_s": sum(kernel.time_s for kernel in fused),
            "busy_s": table.busy_s,
            "longest": [{"family": k.family, "calls": k.calls, "ms": 1e3 * k.time_s} for k in fused[:10]],
        }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--recipe", help="without its token of compiling (default: bf16+cudnn+fp8, fp32 on a CPU)")
    parser.add_argument("--sets", default=",".join(SETS), metavar="LIST", help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="timed generations a set")
    chosen = parser.parse_args()
    names = chosen.sets.split(",")
    if unknown := sorted(set(names) - set(SETS)):
        parser.error(f"no set {', '.join(unknown)}; there are {', '.join(SETS)}")
    machine = Machine(chosen)
    recipe = chosen.recipe or ("fp32" if machine.device == "cpu" else "bf16+cudnn+fp8")
    result = machine.facts() | {"recipe": recipe, "rows": []}
    print(head(result))
    comparison = Comparison(machine, recipe, chosen.repeats)
    for name in names:
        result["rows"].append(measured(comparison, name))
        print(line(result["rows"][-1]), flush=True)
        report(chosen, result)


def measured(comparison: Comparison, name: str) -> dict[str, Any]:
    """A set's figures, or why there are none: an option that this torch lacks, a kernel that does not compile."""
    try:
        return comparison.measure(name)
    except Exception as error:
        return {"set": name, "error": f"{type(error).__name__}: {str(error)[:300]}"}


def head(result: dict[str, Any]) -> str:
    where = f"{result['device']}, torch {result['torch']}, {result['size']} pixels, {result['steps']} steps"
    return f"{result['model']} {result['recipe']}: {where}"


def line(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['set']:<10} {row['error'].splitlines()[0]}"
    latencies = row["latencies_s"]
    figures = (
        f"{row['set']:<10} p50 {statistics.median(latencies):.3f} s (least {min(latencies):.3f}, n={len(latencies)}), "
        f"compile {row['compile_s']:.1f} s, fused kernels {1e3 * row['fused_s']:.0f} of {1e3 * row['busy_s']:.0f} ms, "
        f"difference {row['difference']:.1e}"
    )
    return "\n".join([figures, *(f"    {k['ms']:7.1f} ms {k['calls']:6d}  {k['family']}" for k in row["longest"][:3])])


def show(result: dict[str, Any]) -> str:
    """All that was printed."""
    return "\n".join([head(result), *map(line, result["rows"])])


if __name__ == "__main__":
    main()
