"""What the plugin costs a project that has no fluxperf test: ``pytest --collect-only`` with and without it, in pairs.

python benchmarks/plugin_overhead.py [--pairs 30]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_plain.py").write_text("def test_plain(): pass\n")
        base = [sys.executable, "-m", "pytest", "--collect-only", "-q"]
        environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

        def seconds(*arguments: str) -> float:
            start = time.perf_counter()
            subprocess.run([*base, *arguments], cwd=folder, env=environment, check=True, capture_output=True)
            return time.perf_counter() - start

        with_plugin = ("-p", "pytest_fluxperf.plugin")
        seconds()
        seconds(*with_plugin)
        pairs = [(seconds(), seconds(*with_plugin)) for _ in range(options.pairs)]
    costs = [b - a for a, b in pairs]
    median = statistics.median(costs)
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"the plugin costs {1000 * median:.1f} ms, {ratio:.3f} times the run without it, over {len(pairs)} pairs")


if __name__ == "__main__":
    main()
