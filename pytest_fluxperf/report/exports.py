"""The run for other programs."""

from __future__ import annotations

from pytest_fluxperf.report.view import medians
from pytest_fluxperf.results import Result


def junit_properties(result: Result) -> list[tuple[str, str]]:
    """Name and value of what a JUnit test case carries: verdict, recipe, latency percentiles, quality, memory."""
    import numpy as np

    found: list[tuple[str, str]] = [("fluxperf_verdict", result.judgement.verdict)]
    if result.recipe:
        found.append(("fluxperf_recipe", result.recipe))
    latencies = [generation.latency_s for generation in result.measurement.generations]
    if latencies:
        found.append(("fluxperf_n", str(len(latencies))))
        found += [(f"fluxperf_p{q}_s", f"{np.percentile(latencies, q):.6g}") for q in (50, 90, 99)]
    if result.measurement.peak_memory_mib is not None:
        found.append(("fluxperf_peak_memory_mib", f"{result.measurement.peak_memory_mib:.6g}"))
    scores = medians(result.quality)
    for name in scores.__struct_fields__:
        if (value := getattr(scores, name)) is not None:
            found.append((f"fluxperf_{name}", f"{value:.6g}"))
    return found
