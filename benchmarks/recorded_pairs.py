"""Recorded sessions judged against others: what would have failed, and how far cards of one kind differ.

    python benchmarks/recorded_pairs.py docs/measurements/h100-results*.json docs/measurements/h100-extra*.json

Every session is judged against every other of the same packages, as if that were the baseline, in the tests that both
measured by the same recipe. Nothing changed between them but the machine, so what fails is a false alarm of a baseline
of one session. Then every session is judged against all the others together, a baseline of two sessions or more. What
a slow host explains is measured once more in a real run.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from pytest_fluxperf.baseline.run import busy_share
from pytest_fluxperf.baseline.update import plan_update
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.attribution import slow_host
from pytest_fluxperf.gate.compare import compare_documents
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.gate.verdict import judge
from pytest_fluxperf.machine.software import STACK
from pytest_fluxperf.report.document import load_document
from pytest_fluxperf.results import Baseline, Judgement, Result, RunDocument

BUSY = 0.98
"""Share of the time from which a device counts as busy: then the card alone makes the difference."""


def judged(documents: Iterable[RunDocument]) -> list[Result]:
    """The tests of all ordered pairs of sessions that have the same packages and a test in common."""
    found: list[Result] = []
    for old, new in itertools.permutations(documents, 2):
        if not _same_packages(old, new):
            continue
        try:
            both = compare_documents(old, new, Policy.of("absolute", max_slowdown=None), own_tolerances=True)
        except FluxPerfError:  # nothing in common
            continue
        ran = _ran(old) & _ran(new)
        found += [result for result in both.results if result.judgement.gated and (result.test, result.ran) in ran]
    return found


def judged_by_all(documents: list[RunDocument]) -> list[Result]:
    """The tests that a session shares with at least two others, judged against these, appended to each other."""
    found: list[Result] = []
    for new in documents:
        stored = _appended(document for document in documents if document is not new and _same_packages(document, new))
        tests = [(result, stored.get((result.test, result.ran))) for result in new.results]
        tests = [(result, baseline) for result, baseline in tests if baseline and len(baseline.runs) > 1]
        for result, baseline in tests:
            judgement = judge(
                result.measurement,
                result.quality,
                baseline,
                Policy.of("absolute", max_slowdown=result.max_slowdown, m=len(tests)),
                hardware=new.hardware,
                environment=new.environment,
                workload=result.workload,
                recipe=result.recipe,
                reference=result.reference,
            )
            found.append(msgspec.structs.replace(result, judgement=judgement, baseline=baseline))
    return [result for result in found if result.judgement.gated]


def _appended(documents: Iterable[RunDocument]) -> dict[tuple[str, str | None], Baseline]:
    """What ``fluxperf append`` would have stored of these sessions, by test and recipe."""
    policy = Policy.of("absolute")
    unjudged = Judgement(verdict="no baseline", message="")  # by what was stored then, which is not what is asked
    stored: dict[tuple[str, str | None], Baseline] = {}
    for document in documents:
        for result in document.results:
            key = (result.test, result.ran)
            change = plan_update(
                msgspec.structs.replace(result, judgement=unjudged),
                stored.get(key),
                "append",
                hardware=document.hardware,
                environments=document.measured_in,
                tau0=policy.tau0,
                nu0=policy.nu0,
            )
            if change.baseline is not None:
                stored[key] = change.baseline
    return stored


def _ran(document: RunDocument) -> set[tuple[str, str | None]]:
    """Tests and their recipes; what a name like ``fastest`` stands for differs between releases."""
    return {(result.test, result.ran) for result in document.results}


def _same_packages(one: RunDocument, other: RunDocument) -> bool:
    return all(one.environment.packages.get(name) == other.environment.packages.get(name) for name in STACK)


def differences(documents: Iterable[RunDocument]) -> dict[str, list[float]]:
    """Relative differences of the median latencies of recipes that kept the device busy, by whose card it was."""
    found: dict[str, list[float]] = {"the same card": [], "another card": []}
    for one, other in itertools.combinations([_busy(document) for document in documents], 2):
        for recipe in one.keys() & other.keys():
            (card, p50), (other_card, other_p50) = one[recipe], other[recipe]
            found["the same card" if card == other_card else "another card"].append(abs(other_p50 / p50 - 1))
    return found


def _busy(document: RunDocument) -> dict[str, tuple[str | None, float]]:
    """Recipe → card and median latency."""
    return {
        str(result.ran): (
            result.run.gpu_uuid,
            statistics.median(generation.latency_s for generation in result.measurement.generations),
        )
        for result in document.results
        if result.run is not None and (busy_share(result.measurement) or 0.0) >= BUSY
    }


def show(documents: list[RunDocument]) -> str:
    gpu = documents[0].gpu
    lines = [
        *_outcome(f"{gpu}: {{}} tests judged against one other session", judged(documents)),
        *_outcome(f"{gpu}: {{}} tests judged against all other sessions", judged_by_all(documents)),
    ]
    for whose, values in differences(documents).items():
        if values:
            lines.append(
                f"{gpu}, device busy, {whose}: {len(values)} medians differ by "
                f"{statistics.median(values):.2%} in the middle, {max(values):.2%} at most"
            )
    return "\n".join(lines)


def _outcome(title: str, results: list[Result]) -> Iterator[str]:
    """How many of the results fail, and each of them."""
    failed = [result for result in results if result.judgement.verdict in ("regressed", "broken")]
    again = [result for result in failed if result.baseline and slow_host(result.measurement, result.baseline)]
    yield f"{title.format(len(results))}, {len(failed)} fail, {len(again)} of them would be measured once more"
    for result in sorted(failed, key=lambda result: str(result.recipe)):
        yield f"{result.recipe:<50} {result.judgement.message}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS.json", help="of one kind of GPU")
    try:
        sessions = [load_document(path) for path in parser.parse_args().results]
    except FluxPerfError as error:
        parser.error(str(error))
    if len({document.gpu for document in sessions}) > 1:
        parser.error("these sessions are of different kinds of GPU")
    print(show(sessions))
