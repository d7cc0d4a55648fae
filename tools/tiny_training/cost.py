"""What the embedded model costs on two CPU cores: ``python -m tools.tiny_training.cost [--write]``.

Prints the seconds of loading and of one picture, the memory of the process beyond its imports, and whether the same
prompt and seed give the bit-identical picture twice, in one process and in two. Every round is a fresh process.
Run it on an otherwise idle machine; ``--write`` puts the figures into the model card.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from pytest_fluxperf.machine.hardware import cpu_model
from pytest_fluxperf.pipelines.tiny import MODEL_DIR, held_out_prompts

from . import card

PICTURES = 3
THREADS = 2


def resident_mib() -> float:
    """Memory of this process now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_mib() -> float:
    """Largest memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure() -> dict[str, Any]:
    """One process: load the model, make the same picture :data:`PICTURES` times."""
    import torch
    from diffusers import FluxPipeline
    from transformers import CLIPTextModel, T5EncoderModel  # noqa: F401  (imports are not loading)

    from pytest_fluxperf.pipelines.models import resolve

    torch.set_num_threads(THREADS)
    prompt, defaults = held_out_prompts()[0], resolve("tiny").defaults
    imported = resident_mib()
    started = time.perf_counter()
    pipe = FluxPipeline.from_pretrained(MODEL_DIR, dtype=torch.float32)
    loading = time.perf_counter() - started
    pipe.set_progress_bar_config(disable=True)
    seconds, hashes = [], []
    for _ in range(PICTURES):
        started = time.perf_counter()
        picture = pipe(
            prompt,
            height=defaults.size,
            width=defaults.size,
            num_inference_steps=defaults.steps,
            guidance_scale=defaults.guidance,
            max_sequence_length=defaults.max_sequence_length,
            generator=torch.Generator().manual_seed(0),
        ).images[0]
        seconds.append(time.perf_counter() - started)
        hashes.append(hashlib.sha256(picture.tobytes()).hexdigest())
    return {
        "loading_s": loading,
        "picture_s": seconds,
        "memory_mib": peak_mib() - imported,
        "hashes": hashes,
        "torch": torch.__version__,
    }


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the model card, from what :func:`measure` gave in fresh processes.

    The first picture of a process pays for allocations that the others find made: its seconds are left out.
    """
    return {
        "loading_s": median(r["loading_s"] for r in rounds),
        "picture_s": median(s for r in rounds for s in r["picture_s"][1:]),
        "fastest_picture_s": min(s for r in rounds for s in r["picture_s"]),
        "memory_mib": max(r["memory_mib"] for r in rounds),
        "processes": len(rounds),
        "identical": len({h for r in rounds for h in r["hashes"]}) == 1,
        "machine": f"{THREADS} threads of an {cpu_model()}, torch {rounds[0]['torch']}",
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes")
    parser.add_argument("--write", action="store_true", help="put the figures into the model card")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        print(json.dumps(measure()))
        return 0
    command = [sys.executable, "-m", __spec__.name, "--child"]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(options.rounds)]
    cost = summary([json.loads(run.stdout.splitlines()[-1]) for run in runs])
    print(json.dumps(cost, indent=2))
    if options.write:
        path = MODEL_DIR / "evaluation.json"
        figures = json.loads(path.read_text()) | {"cost": cost}
        path.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
        card.write(MODEL_DIR)
    return 0


if __name__ == "__main__":
    sys.exit(main())
