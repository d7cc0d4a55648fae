"""What is judged over many tests at once: the pooled tail of a session, and one recorded session against another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec

from pytest_fluxperf.baseline.codec import check
from pytest_fluxperf.baseline.run import baseline_of
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.case import Case
from pytest_fluxperf.gate.latency import session_latencies
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.gate.session_times import log_times, stored_times
from pytest_fluxperf.gate.statistics import TAIL_RATIO, pooled_tail
from pytest_fluxperf.gate.verdict import judge
from pytest_fluxperf.machine.hardware import hardware_differences
from pytest_fluxperf.results import RESULTS_FORMAT, Baseline, Measurement, Result, RunDocument


def tail_warning(results: Sequence[Result]) -> str | None:
    """Rule 4 over the results that were judged in absolute mode: a warning that asks for a rerun, or None."""
    configurations = []
    for result in results:
        judged = any(f.metric == "latency" and f.tolerance is not None for f in result.judgement.findings)
        if result.baseline is None or not judged:
            continue
        stored = {run.session: run.y for run in stored_times(result.baseline, relative=False, phases=False)}
        now = log_times(result.measurement.generations, len(result.workload.prompts), relative=False, phases=False)
        if now is not None and all(now.shape == run.shape for run in stored.values()):
            configurations.append((now, stored))
    tail = pooled_tail(configurations)
    if tail is None or not tail.warn:
        return None
    return (
        f"{tail.count} of {tail.samples} generations took over {TAIL_RATIO - 1:.0%} longer than their prompt usually "
        f"does, {tail.baseline_count} of {tail.baseline_samples} in the baselines: run it again"
    )


def compare_documents(
    base: RunDocument, new: RunDocument, policy: Policy, *, own_tolerances: bool = False
) -> RunDocument:
    """Judge the results of ``new`` against those of ``base``, one recorded session each, by the same rule.

    Returns ``new`` with its judgements replaced, ready for a report. ``policy`` holds for every test; its ``m`` is
    replaced by the number of tests that can be compared, its other bounds by what a test was given in ``new``, and with
    ``own_tolerances`` its ``max_slowdown`` as well. Stored pictures are not compared again, so drift is not judged.
    What ``base`` measured and ``new`` could not run on the same hardware is broken; what it left out is warned about.
    Raises FluxPerfError when nothing can be compared, or ``base`` holds a value that no baseline may hold.
    """
    stored = _baselines(base, new, policy)
    policy = dataclasses.replace(policy, m=sum(stored.get(result.test) is not None for result in new.results))
    lost = _lost(base, new)
    cases: dict[str, Case] = {}
    compared = []
    for result in (*new.results, *lost):
        own = _own_policy(result, policy, own_tolerances)
        cases[result.test] = Case.of(
            result, hardware=new.hardware, environment=new.environment, policy=own, against="session"
        )
        compared.append(msgspec.structs.replace(result, baseline=stored.get(result.test), drift=None))
    times = session_latencies(cases, compared)
    judged = [
        msgspec.structs.replace(
            result,
            judgement=judge(
                cases[result.test], result.measurement, result.scores, result.baseline, times=times.get(result.test)
            ),
        )
        for result in compared
    ]
    left_out = sorted(set(stored) - {result.test for result in judged})
    warnings = [f"in the first session only: {', '.join(left_out)}"] if left_out else []
    if tail := tail_warning(judged):
        warnings.append(tail)
    return msgspec.structs.replace(
        new,
        results=tuple(judged),
        skipped=tuple(skip for skip in new.skipped if skip.test not in {result.test for result in lost}),
        gated=sum(result.judgement.gated for result in judged),
        warnings=tuple(warnings),
        update=None,
        command=("fluxperf", "compare"),
        against="session",
    )


def _own_policy(result: Result, policy: Policy, own_tolerances: bool) -> Policy:
    """``policy`` with the bounds that the test of ``result`` was given, and its tolerance of the latency if asked.

    Raises FluxPerfError, which names the test, for bounds that no test may be given.
    """
    tolerances = {field.name for field in dataclasses.fields(policy)}
    own: dict[str, Any] = {name: bound for name, bound in result.bounds.items() if name in tolerances}
    if own_tolerances and result.max_slowdown is not None:
        own["max_slowdown"] = result.max_slowdown
    try:
        return dataclasses.replace(policy, **own)
    except FluxPerfError as error:  # what the document says that the test was given
        raise error.at(test=result.test) from None


def _baselines(base: RunDocument, new: RunDocument, policy: Policy) -> dict[str, Baseline | None]:
    """What ``base`` measured, test by test; raises FluxPerfError where ``new`` has nothing that compares."""
    for document in (base, new):
        if document.format != RESULTS_FORMAT:
            raise FluxPerfError(
                f"results of format {document.format} cannot be compared, this version reads {RESULTS_FORMAT}"
            )
    stored = {result.test: _as_baseline(base, result, policy) for result in base.results}
    if not any(stored.get(result.test) is not None for result in new.results):
        raise FluxPerfError("the two sessions have no test in common that could be compared")
    return stored


def _lost(base: RunDocument, new: RunDocument) -> list[Result]:
    """What ``base`` measured and ``new`` could not run on the same hardware, as broken results."""
    if hardware_differences(base.hardware, new.hardware):
        return []
    measured = {result.test: result for result in base.results if result.run is not None}
    return [
        msgspec.structs.replace(
            measured[skip.test],
            measurement=Measurement(generations=(), problems=(f"was skipped: {skip.reason}",)),
            quality=None,
            run=None,
        )
        for skip in new.skipped
        if skip.test in measured and not skip.marked
    ]


def _as_baseline(document: RunDocument, result: Result, policy: Policy) -> Baseline | None:
    """``result`` as a baseline of one run, checked as a stored one is; None where its session could not measure it."""
    if result.run is None:
        return None
    baseline = baseline_of(
        result,
        (result.run,),
        hardware=document.hardware,
        environment=document.environment,
        tau0=policy.tau0,
        nu0=policy.nu0,
    )
    check(baseline, f"first session ({document.session}), {result.test}", "measure that session anew")
    return baseline
