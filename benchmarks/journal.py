"""What it costs to save a run after each of its tests, and whether that grows with the tests before.

python benchmarks/journal.py [--tests 500 2000]

The sample results of the tests are used: eight prompts a test, three baseline runs. Prints for each number of tests the
milliseconds of a save (mean, slowest, and the mean of the first and the last tenth, which are the same where it is
linear), the journal's size, and the seconds of reading it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "report"))
import report_documents as documents

from pytest_fluxperf.bench.run import Origin, Run
from pytest_fluxperf.report import load_document
from pytest_fluxperf.report.journal import NAME


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, nargs="+", default=[500, 2000])
    for tests in parser.parse_args().tests:
        with tempfile.TemporaryDirectory() as name:
            print(measure(tests, Path(name)))


def measure(tests: int, folder: Path) -> str:
    sample = documents.document([documents.result("bf16")])
    (result,) = sample.results
    origin = Origin(gpu="h100", hardware=sample.hardware, command=("pytest",), baselines=documents.BASELINES)
    run = Run("benchmark", lambda: origin)
    run.configurations = tests
    run.environments[sample.environment.digest] = sample.environment
    spent = []
    for index in range(tests):
        one = msgspec.structs.replace(result, test=f"perf_tests/test_many.py::test_recipe[{index}]")
        run.add(one)
        start = time.perf_counter()
        run.save(folder, one)
        spent.append(1e3 * (time.perf_counter() - start))
    size = (folder / NAME).stat().st_size
    start = time.perf_counter()
    read = load_document(folder)
    seconds = time.perf_counter() - start
    assert len(read.results) == tests
    tenth = max(1, tests // 10)
    first, last = statistics.fmean(spent[:tenth]), statistics.fmean(spent[-tenth:])
    return (
        f"{tests} tests × {len(result.workload.prompts)} prompts: {statistics.fmean(spent):.2f} ms a save (slowest "
        f"{max(spent):.1f}, first tenth {first:.2f}, last tenth {last:.2f}), {size / 2**20:.1f} MiB, "
        f"read in {seconds:.2f} s"
    )


if __name__ == "__main__":
    main()
