"""The rule for times applied to a session's records: what :mod:`~pytest_fluxperf.gate.times` needs, read from them.

    tests = [timed_test(result.test, result.measurement, baseline, policy, card=..., process=...), ...]
    session = judge_times([test for test in tests if test is not None])

or, where all results of a session are at hand, :func:`judge_results`.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.gate.spread import settle
from pytest_fluxperf.gate.statistics import Array, Effect, robust_se
from pytest_fluxperf.gate.times import CommonShift, StoredTimes, TimedTest, TimeVerdict, judge_times
from pytest_fluxperf.results import Baseline, Generation, Measurement, Result, Run, Sample, median_latency_s

OUTSIDE_TAU0 = 0.25
"""Prior standard deviation between sessions of the time outside of denoising and decoding, of that time: text encoding
varied by 15 % between sessions and by 45 % in a slow one (recorded sessions, docs/gate.md)."""

OUTSIDE_NU0 = 4.0
"""Prior degrees of freedom of OUTSIDE_TAU0."""


@dataclass(frozen=True)
class SessionJudgement:
    """What the times of a session say."""

    tests: Mapping[str, TimeVerdict]
    """By test, of those whose times could be judged."""
    common: tuple[CommonShift, ...]
    """What tests share, by process and card: findings of the session, not of a test."""


def judge_results(
    results: Sequence[Result], policies: Mapping[str, Policy], again: Mapping[str, Measurement] | None = None
) -> SessionJudgement:
    """Judge the results of a session that have a baseline and a run, by the policy of each test.

    ``again`` holds second measurements by test. Left out are tests whose stored runs lack the times that the policy's
    mode needs, and those without a run: what is broken or was measured on an unfit machine says nothing about others.
    """
    tests = []
    for result in results:
        if result.baseline is None or result.run is None:
            continue
        process, card = process_and_card(result)
        test = timed_test(
            result.test,
            result.measurement,
            result.baseline,
            policies[result.test],
            card=card,
            process=process,
            again=(again or {}).get(result.test),
        )
        if test is not None:
            tests.append(test)
    session = judge_times(tests, confidence=min((p.pass_confidence for p in policies.values()), default=0.95))
    return SessionJudgement({verdict.test: verdict for verdict in session.tests}, session.common)


def process_and_card(result: Result) -> tuple[str, str | None]:
    """What measured a result that has a run: tests of one process and card share what the session shares."""
    assert result.run is not None
    return f"{result.worker}/{result.run.process}", result.run.gpu_uuid


def timed_test(
    test: str,
    measurement: Measurement,
    baseline: Baseline,
    policy: Policy,
    *,
    card: str | None,
    process: str,
    again: Measurement | None = None,
) -> TimedTest | None:
    """One test for :func:`~pytest_fluxperf.gate.times.judge_times`; None where times of either side are missing.

    Times are those of denoising and decoding where both sides know them: what lies outside is text encoding, which
    varies more between sessions than all the rest (:func:`outside_effect` judges it), else the whole latency.
    """
    relative = policy.mode == "relative"
    phases = judged_by_phases(measurement, baseline, policy)
    prompts = len(baseline.workload.prompts)
    now = log_times(measurement.generations, prompts, relative=relative, phases=phases)
    stored = stored_times(baseline, relative=relative, phases=phases)
    if now is None or not stored:
        return None
    busy = [run.device_busy for run in baseline.runs if run.device_busy is not None]
    return TimedTest(
        test=test,
        now=now,
        stored=stored,
        limit=policy.limit,
        busy=statistics.median(busy) if busy else None,
        card=card,
        process=process,
        relative=relative,
        again=None if again is None else log_times(again.generations, prompts, relative=relative, phases=phases),
    )


def judged_by_phases(measurement: Measurement, baseline: Baseline, policy: Policy) -> bool:
    """Whether denoising and decoding are judged instead of the whole latency: where all runs know them."""
    made: list[Generation | Sample] = [*measurement.generations, *(s for run in baseline.runs for s in run.samples)]
    return policy.mode != "relative" and all(_phases_s(one) is not None for one in made)


def stored_times(baseline: Baseline, *, relative: bool, phases: bool) -> tuple[StoredTimes, ...]:
    """Log times of the baseline, one a session in the order of storing: runs of one session share its shift."""
    prompts = len(baseline.workload.prompts)
    sessions: dict[str, list[tuple[Run, Array]]] = {}
    for run in baseline.runs:
        y = log_times(run.samples, prompts, relative=relative, phases=phases)
        if y is not None:
            sessions.setdefault(run.session, []).append((run, y))
    return tuple(
        StoredTimes(session, runs[0][0].gpu_uuid, np.median([y for _, y in runs], axis=0))
        for session, runs in sessions.items()
    )


def log_times(
    made: Sequence[Generation] | Sequence[Sample], prompts: int, *, relative: bool, phases: bool
) -> Array | None:
    """Natural logarithm of each prompt's time in seconds (prompts,), in relative mode of that over the reference's.

    Where prompts were gone through in several rounds, each prompt's median over the rounds: so the noise of a stored
    run, which is the same in every round, counts once. None where a time is missing or a round is not complete.
    """
    if not made or not prompts or len(made) % prompts:
        return None
    values = [_seconds(one, relative=relative, phases=phases) for one in made]
    known = [value for value in values if value is not None and value > 0]
    if len(known) < len(values):
        return None
    rounds: Array = np.median(np.log(known).reshape(-1, prompts), axis=0)
    return rounds


def _seconds(made: Generation | Sample, *, relative: bool, phases: bool) -> float | None:
    if relative:
        return made.latency_s / made.reference_latency_s if made.reference_latency_s else None
    return _phases_s(made) if phases else made.latency_s


def _phases_s(made: Generation | Sample) -> float | None:
    return None if made.denoise_s is None or made.decode_s is None else made.denoise_s + made.decode_s


def outside_effect(measurement: Measurement, baseline: Baseline) -> Effect | None:
    """Change of the time outside of denoising and decoding, as a share of the whole latency; None where not known.

    An effect of 0.03 makes the whole generation 3 % longer. It fails where
    :func:`~pytest_fluxperf.gate.statistics.decide` calls it regressed at the test's own tolerance, and decides nothing
    else: in short generations text encoding alone varies by more than that.
    """
    runs: dict[str, list[float]] = {}
    for run in baseline.runs:
        outside = _outside_s(run.samples)
        if outside is not None:
            runs.setdefault(run.session, []).append(float(np.median(outside)))
    now = _outside_s(measurement.generations)
    if not runs or now is None:
        return None
    whole = median_latency_s(baseline.samples)
    levels = np.array([statistics.median(values) for values in runs.values()]) / whole
    tau0 = OUTSIDE_TAU0 * max(float(np.median(levels)), 1e-4)
    centre, variance = settle(levels, tau0, OUTSIDE_NU0)
    se = float(np.hypot(np.sqrt(variance * (1 + 1 / len(levels))), robust_se(now / whole)))
    return Effect(float(np.median(now)) / whole - centre, se, int(OUTSIDE_NU0) + len(levels) - 1, float(variance**0.5))


def _outside_s(made: Sequence[Generation] | Sequence[Sample]) -> Array | None:
    """Seconds (n,) of each generation outside of denoising and decoding."""
    found = []
    for one in made:
        inside = _phases_s(one)
        if inside is None:
            return None
        found.append(one.latency_s - inside)
    return np.array(found) if found else None
