"""Small records for the tests of the gate and of the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pytest_fluxperf.gate.case import Case
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.results import (
    Baseline,
    Environment,
    Generation,
    Hardware,
    Measurement,
    Prompt,
    Quality,
    Run,
    Sample,
    Similarity,
    Workload,
)

N = 8
H100 = Hardware(
    kind="cuda", name="NVIDIA H100 80GB HBM3", memory_mib=81559, power_limit_w=700.0, host_cpu="EPYC", host_cpus=64
)
CPU = Hardware(kind="cpu", name="AMD EPYC 7B13", host_cpu="AMD EPYC 7B13", host_cpus=2)
ENVIRONMENT = Environment(
    python="3.11.7", platform="Linux x86_64", packages={"torch": "2.11.0", "diffusers": "0.42.1", "ruff": "0.12"}
)
REFERENCE = "bf16"
RECIPE = "bf16+fbcache:0.3"


def workload(n: int = N, **changes: Any) -> Workload:
    values: dict[str, Any] = {
        "model": "tiny",
        "prompts": tuple(Prompt(text=f"a lighthouse, take {i}", seed=i) for i in range(n)),
        "height": 256,
        "width": 256,
        "steps": 28,
        "guidance": 3.5,
    }
    return Workload(**{**values, **changes})


def latencies(
    n: int = N, *, seconds: float = 2.0, noise: float = 0.002, seed: int = 0, shift: float = 0.0
) -> list[float]:
    """Log-normal around prompts that differ much more than runs do."""
    prompts = seconds * np.exp(np.linspace(-0.3, 0.3, n))
    rng = np.random.default_rng(seed)
    return [float(x) for x in prompts * np.exp(shift + noise * rng.standard_normal(n))]


def decisions(computed: int, steps: int = 28) -> str:
    return ("1" * computed).ljust(steps, "0")


def measurement(
    seconds: Sequence[float] | None = None,
    *,
    reference: Sequence[float] | None = None,
    computed: Sequence[int] | None = None,
    phases: tuple[float, float, float] = (0.05, 0.85, 0.10),
    **changes: Any,
) -> Measurement:
    """Phases are fractions of the latency: text encoding, denoising, decoding."""
    seconds = latencies() if seconds is None else seconds
    computed = [14] * len(seconds) if computed is None else computed
    made = tuple(
        Generation(
            latency_s=s,
            wall_s=s,
            reference_latency_s=None if reference is None else reference[i],
            text_encode_s=phases[0] * s,
            denoise_s=phases[1] * s,
            decode_s=phases[2] * s,
            decisions=decisions(computed[i % len(computed)]),
        )
        for i, s in enumerate(seconds)
    )
    return Measurement(**{"generations": made, "peak_memory_mib": 24000.0, **changes})


def score(**changes: Any) -> Similarity:
    return Similarity(**{"ssim": 0.90, "psnr_db": 28.0, "ms_ssim": 0.95, "flip": 0.08, "lpips": 0.10, **changes})


def quality(n: int = N, reference: str = REFERENCE, **changes: Any) -> Quality:
    return Quality(reference=reference, scores=tuple(score(**changes) for _ in range(n)))


def run(measured: Measurement | None = None, scores: Quality | None = None, session: str = "s0", **changes: Any) -> Run:
    measured = measurement() if measured is None else measured
    scores = quality(len(measured.generations)) if scores is None else scores
    samples = tuple(
        Sample(
            latency_s=g.latency_s,
            wall_s=g.wall_s,
            reference_latency_s=g.reference_latency_s,
            text_encode_s=g.text_encode_s,
            denoise_s=g.denoise_s,
            decode_s=g.decode_s,
            decisions=g.decisions,
            score=scores.scores[i],
        )
        for i, g in enumerate(measured.generations)
    )
    values: dict[str, Any] = {
        "session": session,
        "process": 1,
        "time_utc": "2026-01-02T03:04:05Z",
        "environment": ENVIRONMENT.digest,
        "samples": samples,
        "peak_memory_mib": measured.peak_memory_mib,
        "facts": measured.facts,
    }
    return Run(**{**values, **changes})


def case(**changes: Any) -> Case:
    values: dict[str, Any] = {
        "test": "perf/test_flux.py::test_recipe[a]",
        "recipe": RECIPE,
        "reference": REFERENCE,
        "workload": workload(),
        "hardware": H100,
        "environment": ENVIRONMENT,
        "policy": Policy.of(),
    }
    return Case(**{**values, **changes})


def baseline(*runs: Run, **changes: Any) -> Baseline:
    """Three runs of three sessions unless given."""
    runs = runs or tuple(run(measurement(latencies(seed=100 + r)), session=f"s{r}") for r in range(3))
    values: dict[str, Any] = {
        "format": 1,
        "test": "perf/test_flux.py::test_recipe[a]",
        "recipe": RECIPE,
        "reference": REFERENCE,
        "hardware": H100,
        "workload": workload(len(runs[0].samples)),
        "environments": {ENVIRONMENT.digest: ENVIRONMENT},
        "runs": runs,
        "tau0": 0.007,
        "nu0": 4.0,
    }
    return Baseline(**{**values, **changes})
