"""Every token that this environment can run, once: is it active, does it repeat, is it undone bit for bit?

    python benchmarks/every_recipe.py [--steps 8] [--size 64]
    python benchmarks/every_recipe.py --model flux-dev@random --steps 4 --size 512     # on a GPU

Takes each token in each choice on one loaded base, with thresholds at which caches hit on a schedule. Prints a line a
token: seconds to apply, seconds of a generation, or what is wrong. Exits 1 if anything is.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import Machine, options, report

from pytest_fluxperf.errors import Unavailable
from pytest_fluxperf.pipelines.pool import survey

SLOW = ("compile:tuned", "compile:whole", "fp32")
"""Left out: minutes each."""

ADAPTER_LAYERS = re.compile(r"(single_)?transformer_blocks\.\d+\.(attn|ff|ff_context|proj_mlp|proj_out)\b")
"""What adapters in use change: all products of a block but those of its modulation."""


def adapter(transformer: Any, folder: Path) -> Path:
    """A file of LoRA weights, random and of rank 16, for the attention and feed-forward layers of every block."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    matrices = {}
    for name, layer in transformer.named_modules():
        if not (isinstance(layer, torch.nn.Linear) and ADAPTER_LAYERS.match(name)):
            continue
        for matrix, shape in ("A", (16, layer.in_features)), ("B", (layer.out_features, 16)):
            weight = 0.05 * torch.randn(shape, generator=generator)
            matrices[f"transformer.{name}.lora_{matrix}.weight"] = weight.to(layer.weight.dtype)
    path = folder / "lora.safetensors"
    save_file(matrices, path)
    return path


def spell(token: Any, machine: Machine, lora: Path) -> str:
    """A recipe that has the token, with values for what it requires."""
    text = str(token).replace(":T", ":0.3").replace(":PATH", f":{lora}")
    if token.family == "cache" and "computed" in [field.name for field in token.spec.options]:
        text += f"{',' if ':' in text else ':'}computed={max(1, machine.steps // 2)}"
        text += ",front=4" if token.name == "dbcache" else ""  # the embedded model has fewer blocks than its default
    text += f":{machine.size // 2}" if token.name == "vae_tiling" else ""  # the VAE's own tile is a whole picture
    if token.family in ("whole", "dtype"):
        return text
    return f"{machine.dtype}+{text}"


class Trial:
    """Every token on one base, against the plain recipe's picture."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        plain = machine.acquire(machine.dtype)
        self.untouched = self.pixels(plain)
        self.lora = adapter(plain.pipe.transformer, folder)
        plain.release()

    def pixels(self, prepared: Any, **more: Any) -> Any:
        self.machine.inputs.load(self.machine.workload.prompts[0])
        prepared.begin()
        return prepared.pipe(**self.machine.inputs, **more, output_type="np").images

    def row(self, token: Any) -> dict[str, Any]:
        """What came of a token; without ``wrong`` where this environment cannot run it."""
        row: dict[str, Any] = {"token": str(token)}
        try:
            problems = self.run(token, row)
        except Unavailable as error:
            return {"token": str(token), "state": str(error)}
        except Exception as error:  # whatever it is, the other tokens are still of interest
            problems = [f"raised {type(error).__name__}: {' '.join(str(error).split())[:160]}"]
            self.machine.pool.make_room()
        return row | {"state": "; ".join(problems) or "fine", "wrong": bool(problems)}

    def run(self, token: Any, row: dict[str, Any]) -> list[str]:
        """Measure a token into ``row``; what is wrong with it."""
        machine = self.machine
        start = time.perf_counter()
        prepared = machine.acquire(spell(token, machine, self.lora))
        machine.clock.synchronize()
        row["apply_s"] = round(time.perf_counter() - start, 3)
        pictures = {"num_images_per_prompt": 2} if token.name == "vae_slicing" else {}
        first, second = self.pixels(prepared, **pictures), self.pixels(prepared, **pictures)
        row["generation_s"] = round(machine.generate(prepared), 3)
        row["decisions"] = prepared.steps.decisions
        problems = list(prepared.problems())
        if not np.isfinite(first).all():
            problems.append("the picture is not finite")
        if not np.array_equal(first, second):
            problems.append(f"does not repeat (largest difference {np.abs(first - second).max():.3g})")
        prepared.release()
        if prepared.dtype != machine.dtype:
            machine.pool.make_room()
            return problems
        after = machine.acquire(machine.dtype)
        if not np.array_equal(self.pixels(after), self.untouched):
            problems.append("not undone bit for bit")
        after.release()
        return problems


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--compile", action="store_true", help="compile:tuned and compile:whole as well")
    parser.add_argument("--only", metavar="LIST", help="names of tokens, separated by commas (default: all)")
    chosen = parser.parse_args()
    only = set(chosen.only.split(",")) if chosen.only else None
    machine = Machine(chosen)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(machine, Path(folder))
        for token, lacking in survey(machine.device):
            if only and token.name not in only:
                continue
            if str(token) in SLOW and not chosen.compile:
                lacking = lacking or "takes minutes"
            rows.append({"token": str(token), "state": lacking} if lacking else trial.row(token))
            if "wrong" in rows[-1]:
                print(line(rows[-1]), flush=True)
            report(chosen, machine.facts() | {"rows": rows})
    print("\n".join(ending(rows)))
    return int(any(row.get("wrong") for row in rows))


def line(row: dict[str, Any]) -> str:
    """What came of a token that ran."""
    apply, generation = (f"{row[name]:.3f}" if name in row else "-" for name in ("apply_s", "generation_s"))
    return f"{row['token']:<36} apply {apply:>7} s, generation {generation:>7} s  {row['state']}"


def ending(rows: list[dict[str, Any]]) -> list[str]:
    """What did not run, and how many did."""
    ran = [row for row in rows if "wrong" in row]
    left_out = [f"{row['token']:<36} not run: {row['state']}" for row in rows if "wrong" not in row]
    return [*left_out, f"{len(ran)} tokens run, {sum(row['wrong'] for row in ran)} wrong"]


def show(rows: list[dict[str, Any]]) -> str:
    """All that was printed."""
    return "\n".join([*(line(row) for row in rows if "wrong" in row), *ending(rows)])


if __name__ == "__main__":
    sys.exit(main())
