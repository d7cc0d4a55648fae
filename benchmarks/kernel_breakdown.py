"""Where a generation's time goes by kernels, and how far that is from the floor of the device.

    python benchmarks/kernel_breakdown.py                                        # FLUX.1-dev's architecture on a GPU
    python benchmarks/kernel_breakdown.py --model tiny --device cpu --steps 4    # the same program on a CPU

For each recipe one generation is profiled, its kernels are put into a few parts, and each part is set against its
floor: FLOPs counted by torch's flop counter on the uncompiled pipeline, over the rate of one large matrix product
measured in the same process (bf16, and fp8 for the layers that the recipe quantizes). The floor of what computes
no products is taken as nothing, since it could be fused away or hidden. Text encoding and decoding are included.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pytest_fluxperf.measure.clock import clock_for
from pytest_fluxperf.measure.inputs import GenerationInputs
from pytest_fluxperf.measure.profile import profile_generation
from pytest_fluxperf.measure.runner import time_call
from pytest_fluxperf.pipelines.models import ModelInfo, resolve
from pytest_fluxperf.pipelines.pool import Pool, Prepared
from pytest_fluxperf.recipe import parse
from pytest_fluxperf.results import KernelTable, Prompt, Workload

_PRODUCTS = r"gemm|gemv|nvjet|cutlass|xmma|cublas|_mm\b|mm$|::linear|_linear_|triton_tem"
PARTS = (
    ("attention", re.compile(r"sdpa|flash|fmha|attention", re.IGNORECASE)),
    ("convolutions", re.compile(r"conv|fprop|winograd", re.IGNORECASE)),
    ("matrix products", re.compile(_PRODUCTS, re.IGNORECASE)),
    ("copies", re.compile(r"^Mem(cpy|set)")),
)
"""In this order, as a convolution's kernel may be called an implicit gemm, and an attention's holds a cutlass name."""

_FUSED = re.compile(r"triton_(poi|per|red)_")
"""Compiled kernels without products, though the products around them may be in their names."""

REST = "element-wise, norms and the rest"
IDLE = "outside of kernels"


def part_of(family: str) -> str:
    if _FUSED.match(family):
        return REST
    return next((part for part, pattern in PARTS if pattern.search(family)), REST)


class Bench:
    """One model on one device."""

    def __init__(self, info: ModelInfo, device: str, size: int, steps: int) -> None:
        self.info, self.device, self.size, self.steps = info, device, size, steps
        self.pool = Pool(info, device)
        self.clock = clock_for(device)

    def generate(self, prepared: Prepared, steps: int) -> None:
        workload = Workload(
            model=self.info.name,
            prompts=(Prompt(text="a red circle on a blue ground", seed=0),),
            height=self.size,
            width=self.size,
            steps=steps,
            guidance=self.info.defaults.guidance,
        )
        inputs = GenerationInputs(workload, {"max_sequence_length": self.info.defaults.max_sequence_length})
        prepared.begin()
        prepared.pipe(**inputs)

    def flops(self, dtype: str) -> tuple[Counter[str], Counter[str]]:
        """FLOPs of a whole generation by part, and of one step by linear layer of the transformer, uncompiled."""
        prepared = self.pool.acquire(parse(dtype), steps=1)
        linears: Counter[str] = Counter()
        handles = []
        for name, module in prepared.pipe.transformer.named_modules():
            if isinstance(module, torch.nn.Linear):

                def count(module: Any, _: Any, output: Any, name: str = name) -> None:
                    linears[name] += 2 * output.numel() * module.in_features

                handles.append(module.register_forward_hook(count))
        one = self._counted(prepared, 1)
        for handle in handles:
            handle.remove()
        two = self._counted(prepared, 2)
        prepared.release()
        whole = Counter({part: one[part] + (self.steps - 1) * (two[part] - one[part]) for part in two})
        return whole, linears

    def _counted(self, prepared: Prepared, steps: int) -> Counter[str]:
        cpu_attention = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)

        def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
            batch, heads, rows, depth = query  # shapes
            return int(2 * batch * heads * rows * key[-2] * (depth + value[-1]))

        counter = FlopCounterMode(display=False, custom_mapping={cpu_attention: attention} if cpu_attention else {})
        with counter:
            self.generate(prepared, steps)
        parts: Counter[str] = Counter()
        for operator, flops in counter.get_flop_counts()["Global"].items():
            name = str(operator)
            part = "attention" if "attention" in name else "convolutions" if "conv" in name else "matrix products"
            parts[part] += flops
        return parts

    def measure(self, recipe: str, repeats: int) -> tuple[Prepared, float, KernelTable, float]:
        """The pipeline, its median latency, a profile, and the seconds that preparing and compiling took."""
        start = time.perf_counter()
        prepared = self.pool.acquire(parse(recipe, dtype=recipe.partition("+")[0]), steps=self.steps)
        for _ in range(2):  # compiles, then settles
            self.generate(prepared, 2)
        ready = time.perf_counter() - start
        latencies = [time_call(lambda: self.generate(prepared, self.steps), self.clock)[0] for _ in range(repeats)]
        latency = statistics.median(latencies)
        table = profile_generation(
            lambda: self.generate(prepared, self.steps),
            self.device,
            transformer=prepared.pipe.transformer,
            latency_s=latency,
        )
        return prepared, latency, table, ready


def rate(device: str, dtype: str) -> float | None:
    """FLOP/s of one large square matrix product, the best of several bursts; None where the device cannot."""
    cuda = device.startswith("cuda")
    side = 8192 if cuda else 1024
    if dtype == "fp8":
        if not cuda or torch.cuda.get_device_capability(device) < (8, 9):
            return None
        a, b = (torch.randn(side, side, device=device).to(torch.float8_e4m3fn) for _ in range(2))
        rows, columns = torch.ones(side, 1, device=device), torch.ones(1, side, device=device)

        def product() -> Any:
            return torch._scaled_mm(a, b.t(), rows, columns, out_dtype=torch.bfloat16, use_fast_accum=True)
    else:
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[dtype]
        x, y = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))

        def product() -> Any:
            return x @ y

    clock = clock_for(device)
    burst = 20 if cuda else 2

    def several() -> None:
        for _ in range(burst):
            product()

    several()
    return burst * 2 * side**3 / min(time_call(several, clock)[0] for _ in range(5))


def breakdown(bench: Bench, recipe: str, repeats: int, rates: dict[str, float | None]) -> dict[str, Any]:
    dtype = recipe.partition("+")[0]
    flops, linears = bench.flops(dtype)
    prepared, latency, table, ready = bench.measure(recipe, repeats)
    modules = dict(prepared.pipe.transformer.named_modules())
    quantized = [name for name in linears if type(modules[name].weight) is not torch.nn.Parameter]
    in_fp8 = bench.steps * sum(linears[name] for name in quantized)
    base, fp8 = rates[dtype], rates.get("fp8")
    assert base is not None
    dynamic = any(token.name == "fp8" for token in parse(recipe, dtype=dtype).tokens)
    known = not quantized or (dynamic and fp8 is not None)
    floors: dict[str, float | None] = {part: flops[part] / base for part in ("attention", "convolutions")}
    floors["matrix products"] = (flops["matrix products"] - in_fp8) / base + in_fp8 / (fp8 or base) if known else None
    seconds: Counter[str] = Counter()
    for kernel in table.kernels:
        seconds[part_of(kernel.family)] += kernel.time_s
    rows = [
        {
            "part": part,
            "measured_ms": 1e3 * seconds[part],
            "floor_ms": None if (floor := floors.get(part, 0.0)) is None else 1e3 * floor,
            "tflop": flops[part] / 1e12 if part in flops else None,
        }
        for part in ("matrix products", "attention", "convolutions", REST, "copies")
    ]
    rows.append({"part": IDLE, "measured_ms": 1e3 * (latency - table.busy_s), "floor_ms": 0.0, "tflop": None})
    return {
        "recipe": recipe,
        "latency_s": latency,
        "busy_s": table.busy_s,
        "ready_s": ready,
        "quantized_layers": len(quantized),
        "quantized_tflop": in_fp8 / 1e12,
        "rows": rows,
        "kernels": [{"family": k.family, "calls": k.calls, "ms": 1e3 * k.time_s} for k in table.kernels],
    }


def show(document: dict[str, Any], longest: int = 15) -> str:
    """The whole document as Markdown."""
    rates = [
        f"- {dtype} matrix product: {'not on this device' if found is None else f'{found:.1f} TFLOP/s'}"
        for dtype, found in sorted(document["rates_tflops"].items())
    ]
    what = f"{document['model']}, {document['size']}×{document['size']}, {document['steps']} steps"
    head = f"{what} on {document['device']}, torch {document['torch']}\n"
    return "\n".join([head, *rates, "", *(markdown(result, longest) for result in document["results"])])


def markdown(result: dict[str, Any], longest: int) -> str:
    def ms(value: float | None) -> str:
        return "unknown" if value is None else f"{value:.1f}"

    lines = [
        f"### {result['recipe']}: {1e3 * result['latency_s']:.1f} ms an image, kernels {1e3 * result['busy_s']:.1f} ms",
        "",
        "| part | measured ms | floor ms | measured / floor | TFLOP | TFLOP/s |",
        "| :-- | --: | --: | --: | --: | --: |",
    ]
    for row in result["rows"]:
        measured, floor, tflop = row["measured_ms"], row["floor_ms"], row["tflop"]
        ratio = f"{measured / floor:.2f}" if floor else "–"
        speed = f"{1e3 * tflop / measured:.3g}" if tflop and measured > 0 else "–"
        work = "–" if tflop is None else f"{tflop:.3g}"
        lines.append(f"| {row['part']} | {ms(measured)} | {ms(floor)} | {ratio} | {work} | {speed} |")
    floors = [row["floor_ms"] for row in result["rows"]]
    total = None if None in floors else sum(floors)
    ratio = f"{1e3 * result['latency_s'] / total:.2f}" if total else "–"
    lines.append(f"| **whole** | {1e3 * result['latency_s']:.1f} | {ms(total)} | {ratio} | | |")
    lines += ["", f"| longest of {len(result['kernels'])} families | part | calls | ms |", "| :-- | :-- | --: | --: |"]
    for kernel in result["kernels"][:longest]:
        lines.append(f"| `{kernel['family']}` | {part_of(kernel['family'])} | {kernel['calls']} | {kernel['ms']:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", help="default: bf16+cudnn+compile bf16+fp8+cudnn+compile; CPU: fp32")
    parser.add_argument("--model", default="flux-dev@random")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, help="side in pixels; default: the model's")
    parser.add_argument("--steps", type=int, help="denoising steps; default: the model's")
    parser.add_argument("--repeats", type=int, default=2, help="timed generations a recipe")
    parser.add_argument("--longest", type=int, default=15, help="families shown")
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON file with everything, also while it runs")
    options = parser.parse_args()
    cuda = options.device.startswith("cuda")
    recipes = options.recipes or (["bf16+cudnn+compile", "bf16+fp8+cudnn+compile"] if cuda else ["fp32"])
    info = resolve(options.model)
    bench = Bench(info, options.device, options.size or info.defaults.size, options.steps or info.defaults.steps)
    rates = {name: rate(options.device, name) for name in {*(r.partition("+")[0] for r in recipes), "fp8"}}
    name = torch.cuda.get_device_name(options.device) if cuda else "CPU"
    head = {
        "device": name,
        "torch": torch.__version__,
        "model": info.name,
        "size": bench.size,
        "steps": bench.steps,
        "rates_tflops": {dtype: None if r is None else r / 1e12 for dtype, r in rates.items()},
    }
    results: list[dict[str, Any]] = []
    for recipe in recipes:
        print(f"{recipe} ...", flush=True)
        results.append(breakdown(bench, recipe, options.repeats, rates))
        if options.output:
            options.output.write_text(json.dumps({**head, "results": results}, indent=1) + "\n")
    print("\n" + show({**head, "results": results}, options.longest), flush=True)
    bench.pool.close()


if __name__ == "__main__":
    main()
