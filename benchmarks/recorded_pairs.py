"""Every recorded session judged against every other of its kind of GPU: what would have failed, and for what reason.

    python benchmarks/recorded_pairs.py docs/measurements/h100-results*.json docs/measurements/h100-extra*.json

Nothing changed between these sessions but the machine, and what ``fastest`` stands for, so almost all of what fails is
a false alarm of a baseline of one session. Those that a slow host explains are measured once more in a real run.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable
from pathlib import Path

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.gate.pooled import compare_documents
from pytest_fluxperf.report.document import load_document
from pytest_fluxperf.results import Result

SLOW_HOST = "look at the host first"


def judged(paths: Iterable[Path]) -> list[Result]:
    """The tests of all ordered pairs of sessions of one kind of GPU that have a test in common."""
    found: list[Result] = []
    for old, new in itertools.permutations(map(load_document, paths), 2):
        if old.gpu == new.gpu:
            try:
                both = compare_documents(old, new, Policy.of("absolute", max_slowdown=None), own_tolerances=True)
            except FluxPerfError:  # nothing in common
                continue
            found += [result for result in both.results if result.judgement.gated]
    return found


def show(results: list[Result]) -> str:
    failed = [result for result in results if result.judgement.verdict in ("regressed", "broken")]
    slow = [result for result in failed if any(SLOW_HOST in reason for reason in result.judgement.attribution)]
    lines = [f"{len(results)} tests judged against one other session: {len(failed)} fail, {len(slow)} by a slow host"]
    for result in sorted(failed, key=lambda result: str(result.recipe)):
        (change,) = [f.change for f in result.judgement.findings if f.metric == "latency"]
        lines.append(f"{result.recipe:<50} {change:+7.1%}  {result.judgement.attribution[0]}")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS.json")
    print(show(judged(parser.parse_args().results)))
