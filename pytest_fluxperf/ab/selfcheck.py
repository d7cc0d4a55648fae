"""Fresh processes of one environment, in which nothing changes: the machine's noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pytest_fluxperf.ab.measure import measure_once
from pytest_fluxperf.ab.process import Side
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.interleaved import LEAST_PAIRS
from pytest_fluxperf.gate.statistics import Array


def measure_processes(
    python: Path,
    arguments: tuple[str, ...],
    folder: Path,
    processes: int,
    timeout_s: float,
    show: Callable[[str], None],
) -> dict[str, Array]:
    """Log latencies (processes, generations) of every test that each process could measure.

    Raises FluxPerfError when no test was measured by all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, list[list[float]]] = {}
    for number in range(1, processes + 1):
        side = Side("checked", str(number), python, arguments, folder, timeout_s)
        for done in measure_once(side, least_pairs=LEAST_PAIRS):
            if (result := done.result) is None:
                show(f"process {number}: {done.test}: {done.skipped or done.failed}")
            elif result.run is None:
                show(f"process {number}: {done.test}: {result.judgement.message}")
            else:
                times = [generation.latency_s for generation in result.measurement.generations]
                made.setdefault(done.test, []).append(times)
                show(f"process {number}: {done.test}: p50 {np.median(times):.4g} s")
    whole = {test: np.log(np.array(rows)) for test, rows in made.items() if len(rows) == processes}
    if not whole:
        raise FluxPerfError(f"no test was measured in all {processes} processes; see the logs in {folder}")
    return whole
