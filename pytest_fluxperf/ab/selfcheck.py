"""Fresh processes of one environment, in which nothing changes: the machine's noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pytest_fluxperf.ab.process import Side
from pytest_fluxperf.ab.protocol import Finished, Go, Plan
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.files import locked
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
        with Side("checked", str(number), python, arguments, folder, timeout_s) as side:
            side.greet()
            found = side.collect()
            found.require_tests()
            assert found.lock is not None
            with locked(Path(found.lock)):
                side.plan(Plan(tests=found.tests, least_pairs=LEAST_PAIRS, quality=False))
                for test in found.tests:
                    while not isinstance(done := side.ask(Go()), Finished):
                        pass
                    if (result := done.result) is None:
                        show(f"process {number}: {test}: {done.skipped or done.failed}")
                        continue
                    times = [generation.latency_s for generation in result.measurement.generations]
                    if result.run is None:
                        show(f"process {number}: {test}: {result.judgement.message}")
                        continue
                    made.setdefault(test, []).append(times)
                    show(f"process {number}: {test}: p50 {np.median(times):.4g} s")
    whole = {test: np.log(np.array(rows)) for test, rows in made.items() if len(rows) == processes}
    if not whole:
        raise FluxPerfError(f"no test was measured in all {processes} processes; see the logs in {folder}")
    return whole
