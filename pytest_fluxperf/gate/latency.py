"""The judgement on one test's latency: the rule for times, and the witnesses that say what it means."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from pytest_fluxperf.baseline.run import host_pace
from pytest_fluxperf.gate import evidence, findings
from pytest_fluxperf.gate.case import Case
from pytest_fluxperf.gate.session_times import judge_results, process_and_card, timed_test
from pytest_fluxperf.gate.times import CommonShift, TimeVerdict, judge_times
from pytest_fluxperf.gate.witnesses import Host, Testimony, weigh
from pytest_fluxperf.results import BASELINE, NONE, Baseline, Finding, Measurement, Result


@dataclass(frozen=True)
class Grounds:
    """What was measured where the time was judged, from which a change is then explained."""

    measurement: Measurement
    baseline: Baseline


@dataclass(frozen=True)
class TimeJudgement:
    """A judgement on the latency."""

    findings: tuple[Finding, ...]
    warnings: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    """Why it moved, as far as the witnesses prove it, the strongest first."""
    grounds: Grounds | None = None
    """None where it rests on the test's own measurement and baseline."""
    relative: bool = False
    """Whether the speed-up over the reference recipe was judged instead."""
    again: bool = False
    """Whether a second measurement should confirm or refute it: wall time alone speaks, and says slower."""


CONFIRMING_ROUNDS = 4
"""Rounds over the prompts on which a slower speed-up is convicted: two measurements of two rounds each."""


def latency_alone(case: Case, measurement: Measurement, baseline: Baseline) -> TimeJudgement:
    """The judgement by the test's own numbers, while nothing is known of the other tests of its session.

    In relative mode, where the noise lies within the session, the later half of the rounds is the second measurement.
    """
    first, again = measurement, None
    if case.policy.mode == "relative":
        first, again = _halves(measurement, len(baseline.workload.prompts))
    test = timed_test(case.test, first, baseline, case.policy, card=case.card, process="", again=again)
    time = None
    if test is not None:
        time = judge_times([test], confidence=case.policy.pass_confidence, m=case.policy.m).tests[0]
    return judge_latency(case, measurement, baseline, time, twice=again is not None)


def _halves(measurement: Measurement, prompts: int) -> tuple[Measurement, Measurement | None]:
    """The rounds as two measurements, where there are enough of them."""
    made = measurement.generations
    rounds = len(made) // max(prompts, 1)
    if rounds < CONFIRMING_ROUNDS:
        return measurement, None
    border = (rounds // 2) * prompts
    return replace(measurement, generations=made[:border]), replace(measurement, generations=made[border:])


def session_latencies(
    cases: Mapping[str, Case], results: Sequence[Result], again: Mapping[str, Measurement] | None = None
) -> dict[str, TimeJudgement]:
    """The judgements on all latencies of a session together, by test; ``again`` holds second measurements by test.

    Left out are results without a baseline or without a run: what is broken says nothing of times.
    """
    known = [result for result in results if result.baseline is not None and result.run is not None]
    session = judge_results(known, {result.test: cases[result.test].policy for result in known}, again)
    shared = {(common.process, common.card): common for common in session.common}
    judged = {}
    for result in known:
        assert result.baseline is not None
        judged[result.test] = judge_latency(
            cases[result.test],
            result.measurement,
            result.baseline,
            session.tests.get(result.test),
            common=shared.get(process_and_card(result)),
            twice=result.test in (again or {}),
        )
    return judged


def judge_latency(
    case: Case,
    measurement: Measurement,
    baseline: Baseline,
    time: TimeVerdict | None,
    *,
    common: CommonShift | None = None,
    twice: bool = False,
) -> TimeJudgement:
    """The judgement that follows from ``time``, what the tests of its process and card have in ``common``, and the
    witnesses; ``twice`` where a second measurement was judged with the first. ``time`` is None where times are missing.
    """
    relative = case.policy.mode == "relative"
    reported = (findings.reported_latency(measurement, baseline),) if relative else ()
    if relative and (case.recipe in (None, baseline.reference) or baseline.reference in (NONE, BASELINE)):
        return TimeJudgement(reported, relative=True)  # over itself it is 1 whatever happens, and there may be none
    if time is None:
        return TimeJudgement((findings.unknown_speed_up(baseline, case.policy), *reported), relative=True)
    said = weigh(
        time,
        evidence_of(measurement, baseline),
        host_of(case, measurement, baseline),
        limit=case.policy.limit,
        twice=twice,
    )
    if common is not None:
        said = _with_common(said, time, common, case.policy.limit)
    finding = findings.speed_up if relative else findings.latency
    return TimeJudgement(
        (
            finding(time, said.decision, measurement, baseline, case.policy),
            *findings.outside_of_phases(measurement, baseline, case.policy),
            *reported,
        ),
        warnings=said.warnings,
        reasons=said.reasons,
        relative=relative,
        again=time.again and not twice and said.decision != "passed" and said.witness in ("wall time", "host"),
    )


def evidence_of(measurement: Measurement, baseline: Baseline) -> evidence.Evidence | None:
    """Work and device time against the baseline's; None where either side has no ledger."""
    stored = [run.ledger for run in baseline.by_time if run.ledger is not None]
    return evidence.compare(measurement.ledger, stored) if measurement.ledger is not None and stored else None


def host_of(case: Case, measurement: Measurement, baseline: Baseline) -> Host | None:
    """The host's pace against the baseline's; None where it is not known, or another Python did that work."""
    python = None if case.environment is None else case.environment.python
    stored = [
        run.host_s
        for run in baseline.runs
        if run.host_s is not None and baseline.environments[run.environment].python == python
    ]
    now = host_pace(measurement)
    return Host(statistics.median(stored), now) if stored and now is not None else None


def _with_common(said: Testimony, time: TimeVerdict, common: CommonShift, limit: float) -> Testimony:
    """A test that is slower with all others of its session fails with them, and says so before all else."""
    whole = time.effect.value + time.common
    if common.decision != "regressed" or whole <= limit:
        return said
    low, high = (math.expm1(bound) for bound in common.effect.interval())
    together = (
        f"slower together with the {common.tests} tests of this session ({math.expm1(common.effect.value):+.1%}, "
        f"between {low:+.1%} and {high:+.1%})"
    )
    return Testimony("regressed", "wall time", (together, *said.reasons), said.warnings)
