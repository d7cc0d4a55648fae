"""Is the CPU gate flaky, and does it sleep? Repeats it on a loaded machine, unchanged and with one recipe slowed.

    python benchmarks/cpu_gate.py --runs 20             # unchanged, every core loaded: must be green every time
    python benchmarks/cpu_gate.py --runs 20 --slow 0.3  # one recipe 30 % slower: must be red every time

Prints a line a run and the share of expected outcomes; exit status 1 if any run was unexpected.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PLUGIN = '''
"""Makes one recipe slower by a fraction: after every transformer call it waits for a share of what the call took."""
import os
import time

SHARE = float(os.environ["FLUXPERF_SLOW"])
RECIPE = os.environ["FLUXPERF_SLOW_RECIPE"]


def pytest_fluxperf_pipeline(pipe, recipe, config):
    if not hasattr(pipe, "slowed"):
        object.__setattr__(pipe, "slowed", {"on": False, "start": 0.0})
        original = type(pipe).__call__

        def called(self, *args, **kwargs):
            start = time.perf_counter()
            result = original(self, *args, **kwargs)
            if getattr(self, "slowed", {}).get("on"):
                end = time.perf_counter() + SHARE * (time.perf_counter() - start)
                while time.perf_counter() < end:
                    pass
            return result

        pipe.__class__ = type(type(pipe).__name__, (type(pipe),), {"__call__": called})
    pipe.slowed["on"] = recipe.endswith(RECIPE)
'''


def _burn() -> None:
    while True:
        sum(range(10_000))


@contextlib.contextmanager
def load(cores: int) -> Iterator[None]:
    """Keep that many cores busy with other work."""
    workers = [multiprocessing.Process(target=_burn, daemon=True) for _ in range(cores)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def gate(arguments: list[str], slow: float, recipe: str) -> tuple[int, list[str]]:
    """One run of the CPU suite; its exit status and the tests that failed."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pytest", "perf_tests", "--gpu", "cpu", "-q", f"--fluxperf-reports={scratch}"]
        environment = dict(os.environ)
        if slow:
            (Path(scratch) / "slowed_recipe.py").write_text(PLUGIN)
            environment |= {"PYTHONPATH": scratch, "FLUXPERF_SLOW": str(slow), "FLUXPERF_SLOW_RECIPE": recipe}
            command += ["-p", "slowed_recipe"]
        done = subprocess.run([*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
        failed = []
        for path in Path(scratch).glob("*/results.json"):
            for result in json.loads(path.read_text())["results"]:
                if result["judgement"]["verdict"] not in ("passed", "improved", "inconclusive"):
                    failed.append(f"{result['test']}: {result['judgement']['message']}")
        return done.returncode, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--slow", type=float, default=0.0, help="fraction by which one recipe is slowed")
    parser.add_argument("--recipe", default="fbcache:0.3", help="end of the slowed recipe's canonical spelling")
    parser.add_argument("--load", type=int, default=os.cpu_count(), help="cores kept busy meanwhile")
    options, arguments = parser.parse_known_args()
    expected = 1 if options.slow else 0
    hits = 0
    for run in range(1, options.runs + 1):
        with load(options.load):
            status, failed = gate(arguments, options.slow, options.recipe)
        hits += status == expected
        print(f"run {run}: {'green' if status == 0 else 'red'} (exit {status})", *failed, sep="\n    ", flush=True)
    print(
        f"{hits} of {options.runs} runs {'red' if expected else 'green'}, as they must be; {options.load} cores loaded"
    )
    return int(hits != options.runs)


if __name__ == "__main__":
    sys.exit(main())
