"""What the programs here share: a pipeline under a recipe, a timed generation, results as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pytest_fluxperf.bench.prompts import FOLDER, load
from pytest_fluxperf.measure.clock import clock_for
from pytest_fluxperf.measure.inputs import GenerationInputs
from pytest_fluxperf.measure.runner import time_call
from pytest_fluxperf.pipelines.models import resolve
from pytest_fluxperf.pipelines.optimizations.stepcache import with_schedule
from pytest_fluxperf.pipelines.pool import Pool
from pytest_fluxperf.recipe import parse
from pytest_fluxperf.results import Workload


def options(description: str | None) -> argparse.ArgumentParser:
    """A parser with what every program takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="as --fluxperf-model")
    parser.add_argument("--device", default=None, help="cpu, cuda (default: cuda where there is one)")
    parser.add_argument("--size", type=int, help="picture side in pixels (default: the model's)")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the result as JSON")
    return parser


class Machine:
    """A model on a device, with the workload that the options ask for."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        import torch

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
        self.device = chosen.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.info = resolve(chosen.model)
        defaults = self.info.defaults
        self.steps = chosen.steps or defaults.steps
        self.size = chosen.size or defaults.size
        self.dtype = "fp32" if self.device == "cpu" else defaults.dtype
        self.workload = Workload(
            model=self.info.name,
            prompts=load("default", (0,), folder=self.info.prompts or FOLDER),
            height=self.size,
            width=self.size,
            steps=self.steps,
            guidance=defaults.guidance,
        )
        self.clock = clock_for(self.device)
        self.inputs = GenerationInputs(self.workload, {"max_sequence_length": defaults.max_sequence_length})
        self.pool = Pool(self.info, self.device)

    def recipe(self, text: str) -> Any:
        """The recipe in the device's dtype, its cache on a schedule where the weights are random."""
        recipe = parse(text, dtype=self.dtype)
        return with_schedule(recipe, self.steps) if self.info.random else recipe

    def acquire(self, text: str) -> Any:
        return self.pool.acquire(self.recipe(text), steps=self.steps)

    def generate(self, prepared: Any, prompt: int = 0) -> float:
        """Seconds of one generation by the device's clock."""
        self.inputs.load(self.workload.prompts[prompt % len(self.workload.prompts)])
        prepared.begin()
        return time_call(lambda: prepared.pipe(**self.inputs), self.clock)[0]

    def facts(self) -> dict[str, Any]:
        """What the figures belong to."""
        import torch

        name = torch.cuda.get_device_name() if self.device.startswith("cuda") else platform.processor()
        return {
            "device": name or self.device,
            "torch": torch.__version__,
            "model": self.info.name,
            "size": self.size,
            "steps": self.steps,
        }


def report(chosen: argparse.Namespace, result: dict[str, Any]) -> None:
    """Write the result where it was asked for."""
    if chosen.output:
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        chosen.output.write_text(json.dumps(result, indent=1) + "\n")


def standard_error_of_median(values: list[float]) -> float:
    """From the median absolute deviation (1.4826 to a standard deviation, times 1.2533 for a median)."""
    median = statistics.median(values)
    return 1.858 * statistics.median(abs(value - median) for value in values) / len(values) ** 0.5


def in_process(program: str, arguments: list[str], environment: dict[str, str] | None = None) -> Any:
    """Run a program of this folder in a process of its own; its last line of output is JSON."""
    start = time.perf_counter()
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(program)), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    if run.returncode:
        sys.exit(f"{program} {' '.join(arguments)} failed:\n{run.stderr[-3000:]}")
    return json.loads(run.stdout.strip().splitlines()[-1]) | {"process_s": round(time.perf_counter() - start, 2)}
