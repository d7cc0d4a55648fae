"""Recorded sessions judged against others: what would have failed, and how far cards of one kind differ.

    python benchmarks/recorded_pairs.py 'docs/measurements.tar.xz:h100-results*' 'docs/measurements.tar.xz:h100-extra*'

Every session is judged against every other of the same packages, as if that were the baseline, in the tests that both
measured by the same recipe. Nothing changed between them but the machine, so what fails is a false alarm of a baseline
of one session. Then every session is judged against all the others together, a baseline of two sessions or more: as it
was, with each test in turn 3 or 5 % slower, and with all of them 3 % slower. A table tells how many tests of each
family were left undecided, failed, and were seen, and in how many sessions what all tests shared was.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from pytest_fluxperf.baseline.run import busy_share
from pytest_fluxperf.baseline.update import plan_update
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.attribution import slow_host
from pytest_fluxperf.gate.compare import compare_documents
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.gate.session_times import timed_test
from pytest_fluxperf.gate.times import TimedTest, TimeVerdict, judge_times
from pytest_fluxperf.machine.software import STACK
from pytest_fluxperf.results import Baseline, Judgement, Result, RunDocument
from tools.recorded.archive import read_documents

PLANTED = (0.03, 0.05)
"""How much slower one test is made, as a fraction."""

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


def judged_by_all(documents: list[RunDocument]) -> list[list[TimedTest]]:
    """Of each session the tests that it shares with at least two others, whose runs are appended to each other."""
    found = []
    for new in documents:
        stored = _appended(document for document in documents if document is not new and _same_packages(document, new))
        tests = []
        for result in new.results:
            baseline = stored.get((result.test, result.ran))
            if baseline is None or len(baseline.runs) < 2 or result.run is None:
                continue
            policy = Policy.of("absolute", max_slowdown=result.max_slowdown)
            name = f"{new.session} {result.recipe}"
            process = f"{result.worker}/{result.run.process}"
            tests.append(
                timed_test(name, result.measurement, baseline, policy, card=result.run.gpu_uuid, process=process)
            )
        if known := [test for test in tests if test is not None]:
            found.append(known)
    return found


@dataclass
class Seen:
    """What the rule for times made of the tests of one family."""

    tests: int = 0
    undecided: int = 0
    failed: int = 0
    slower: dict[float, int] = field(default_factory=lambda: dict.fromkeys(PLANTED, 0))
    """Tests that failed when they alone were slower by so much."""


def families(sessions: list[list[TimedTest]]) -> tuple[dict[str, Seen], list[TimeVerdict]]:
    """What is seen of each family's tests, and the tests that failed though nothing had changed."""
    found: dict[str, Seen] = {}
    failed = []
    for tests in sessions:
        for i, (test, verdict) in enumerate(zip(tests, judge_times(tests).tests, strict=True)):
            seen = found.setdefault(test.family, Seen())
            seen.tests += 1
            seen.undecided += verdict.decision == "inconclusive"
            if verdict.decision == "regressed":
                seen.failed += 1
                failed.append(verdict)
            for change in PLANTED:
                planted = [slowed(other, change) if other is test else other for other in tests]
                seen.slower[change] += judge_times(planted).tests[i].decision == "regressed"
    return found, failed


def everything_slower(sessions: list[list[TimedTest]], change: float = 0.03) -> dict[bool, tuple[int, int, int]]:
    """By whether the baseline knows the card: sessions, those that fail with all of it slower, and as it was."""
    found: dict[bool, tuple[int, int, int]] = {}
    for tests in sessions:
        planted, plain = judge_times([slowed(test, change) for test in tests]), judge_times(tests)
        known = any(shift.known_card for shift in plain.common)
        count, seen, false = found.get(known, (0, 0, 0))
        false += any(shift.decision == "regressed" for shift in plain.common)
        fails = any(one.decision == "regressed" for one in (*planted.common, *planted.tests))
        found[known] = (count + 1, seen + fails, false)
    return found


def slowed(test: TimedTest, change: float) -> TimedTest:
    """The test as it would have been, slower by ``change`` (a fraction)."""
    return replace(test, now=test.now + math.log1p(change))


def stored_limits(sessions: list[list[TimedTest]]) -> dict[str, list[float]]:
    """By family, once a test: the own change that is called a regression when a typical session is judged.

    The typical session is the stored run in the middle, judged against all of them.
    """
    found: dict[str, dict[str, float]] = {}
    for tests in sessions:
        typical = []
        for test in tests:
            levels = [float(np.median(stored.y)) for stored in test.stored]
            middle = test.stored[int(np.argsort(levels)[(len(levels) - 1) // 2])]
            typical.append(replace(test, now=middle.y, card=middle.card))
        # what they share is left in: stored runs in the middle are of different sessions
        for test, verdict in zip(typical, judge_times([replace(t, card=None) for t in typical]).tests, strict=True):
            recipe = test.test.split(" ", 1)[1]
            limits = found.setdefault(test.family, {})
            limits[recipe] = max(limits.get(recipe, 0.0), verdict.critical)
    return {family: list(limits.values()) for family, limits in found.items()}


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
    lines = [*_outcome(f"{gpu}: {{}} tests judged against one other session", judged(documents))]
    sessions = judged_by_all(documents)
    if sessions:
        lines += [f"{gpu}: {sum(map(len, sessions))} tests judged against all other sessions", *_table(sessions)]
    for whose, values in differences(documents).items():
        if values:
            lines.append(
                f"{gpu}, device busy, {whose}: {len(values)} medians differ by "
                f"{statistics.median(values):.2%} in the middle, {max(values):.2%} at most"
            )
    return "\n".join(lines)


def _table(sessions: list[list[TimedTest]]) -> Iterator[str]:
    found, failed = families(sessions)
    limits = stored_limits(sessions)
    yield "| tests | judged | undecided | false | +3 % in one | +5 % in one | limit, median | limits over 5 % |"
    yield "|---|---|---|---|---|---|---|---|"
    for family, seen in sorted(found.items()):
        slower = " | ".join(f"{seen.slower[change] / seen.tests:.1%}" for change in PLANTED)
        over = sum(limit > 0.05 for limit in limits[family])
        yield (
            f"| {family} | {seen.tests} | {seen.undecided / seen.tests:.1%} | {seen.failed} | {slower} "
            f"| {statistics.median(limits[family]):.1%} | {over} of {len(limits[family])} |"
        )
    for known, (count, seen_in, false) in sorted(everything_slower(sessions).items(), reverse=True):
        yield (
            f"{'known' if known else 'unknown'} card: all +3 % fails in {seen_in} of {count} sessions, "
            f"unchanged {false} fail together"
        )
    for verdict in failed:
        yield f"{verdict.test:<70} {verdict.effect.value:+.1%}, limit {verdict.critical:.1%}"


def _outcome(title: str, results: list[Result]) -> Iterator[str]:
    """How many of the results fail, and each of them."""
    failed = [result for result in results if result.judgement.verdict in ("regressed", "broken")]
    again = [result for result in failed if result.baseline and slow_host(result.measurement, result.baseline)]
    yield f"{title.format(len(results))}, {len(failed)} fail, {len(again)} of them would be measured once more"
    for result in sorted(failed, key=lambda result: str(result.recipe)):
        yield f"{result.recipe:<50} {result.judgement.message}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", metavar="RESULTS", help="of one kind of GPU")
    try:
        sessions = read_documents(parser.parse_args().results)
    except FluxPerfError as error:
        parser.error(str(error))
    if len({document.gpu for document in sessions}) > 1:
        parser.error("these sessions are of different kinds of GPU")
    print(show(sessions))
