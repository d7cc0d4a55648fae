"""What the plugin costs a project that has no fluxperf test: ``pytest --collect-only`` against ``-p no:fluxperf``.

python benchmarks/plugin_overhead.py [--pairs 40]

Fresh processes in pairs, in the order AB BA AB ..., so that drift of the machine cancels; the median of the differences
with its distribution-free 95 % interval, for wall time and for processor time (user and system), which neighbours on
the machine disturb least.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

WITHOUT = ("-p", "no:fluxperf")


def spent(folder: str, arguments: Sequence[str]) -> tuple[float, float]:
    """Seconds of wall and of processor time that collecting takes."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *arguments], cwd=folder, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"pytest --collect-only {' '.join(arguments)} exited with {process.returncode}")
    return wall, usage.ru_utime + usage.ru_stime


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Order statistics that enclose the population's median with 95 % confidence (binomial, normal approximation)."""
    ordered, n = sorted(values), len(values)
    reach = 0.98 * math.sqrt(n)  # 1.96 standard deviations of a binomial of one half
    low = max(0, math.floor(n / 2 - reach))
    return ordered[low], ordered[n - 1 - low]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_plain.py").write_text("def test_plain(): pass\n")
        spent(folder, WITHOUT), spent(folder, ())  # bytecode is written, files are in the page cache
        costs: list[tuple[float, float]] = []
        for pair in range(options.pairs):
            first, second = (WITHOUT, ()) if pair % 2 == 0 else ((), WITHOUT)
            a, b = spent(folder, first), spent(folder, second)
            without, with_plugin = (a, b) if pair % 2 == 0 else (b, a)
            costs.append((with_plugin[0] - without[0], with_plugin[1] - without[1]))
    for name, differences in zip(("wall", "processor"), zip(*costs, strict=True), strict=True):
        low, high = interval(differences)
        median = statistics.median(differences)
        print(
            f"{name:>9} time: the plugin costs {1000 * median:.1f} ms "
            f"(95 % interval {1000 * low:.1f} to {1000 * high:.1f}, {len(costs)} pairs)"
        )


if __name__ == "__main__":
    main()
