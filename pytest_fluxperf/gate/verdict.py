"""The decision on one test: a pure function of what was measured, what is stored, and the policy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from pytest_fluxperf.baseline.update import workload_differences
from pytest_fluxperf.gate import findings as judged
from pytest_fluxperf.gate import pictures
from pytest_fluxperf.gate.attribution import attribute, attribute_broken, kernel_difference, packages_that_differ
from pytest_fluxperf.gate.case import Case
from pytest_fluxperf.gate.fidelity import fidelity
from pytest_fluxperf.gate.latency import CONFIRMING_ROUNDS, Grounds, TimeJudgement, latency_alone
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.machine.hardware import hardware_differences
from pytest_fluxperf.results import (
    BASELINE,
    NONE,
    SEVERITY,
    Baseline,
    Finding,
    Judgement,
    Measurement,
    PictureScores,
)

UNEXPLAINED = "nothing that is recorded differs from the baseline: phases, steps, graphs, attention, dtypes, packages"

MOST_ROUNDS = 8
"""Rounds after which an undecided speed-up stays undecided."""


def judge(
    case: Case,
    measurement: Measurement,
    scores: PictureScores,
    baseline: Baseline | None,
    *,
    times: TimeJudgement | None = None,
    earlier: Sequence[Finding] = (),
) -> Judgement:
    """Judge one test; the verdict is that of the worst finding. Depends on nothing but its arguments.

    ``times`` is the judgement on the latency, where it rests on more than the test's own numbers. ``earlier`` are
    findings of a first look at the same test (see
    :func:`lasting`), which a second one does not take back.
    """
    if problem := _broken(case, measurement, scores):
        differs = () if baseline is None else attribute_broken(measurement, baseline, case.environment)
        return Judgement(verdict="broken", message=problem, attribution=differs, gated=True)
    if measurement.unfit:
        return Judgement(verdict="invalid", message=_first(measurement.unfit))
    beside = _worse(lasting(case, measurement, scores, baseline), earlier)
    if absent := _absent(case, baseline):
        return _without_baseline(case, absent, beside)
    assert baseline is not None
    times = times or latency_alone(case, measurement, baseline)
    return _explained(case, measurement, baseline, times, [*times.findings, *beside], _unguarded(scores, baseline))


def lasting(
    case: Case, measurement: Measurement, scores: PictureScores, baseline: Baseline | None
) -> tuple[Finding, ...]:
    """The findings on all but the time, which hold whatever the state of the machine was."""
    policy = case.policy
    floors = pictures.quality_floors(scores.test, policy)
    if baseline is None or _absent(case, baseline):
        return (*floors, *fidelity(measurement.fidelity, ()))
    return (
        *judged.computed_steps(measurement, baseline, policy),
        *judged.peak_memory(measurement, baseline, policy),
        *judged.graph_breaks(measurement, baseline),
        *fidelity(measurement.fidelity, [run.fidelity for run in baseline.by_time]),
        *pictures.prompt_collapse(scores.reference, baseline, policy),
        *pictures.quality_changes(scores.reference, baseline, policy),
        *_own_metrics(scores, baseline, policy),
        *pictures.drift(scores, policy),
        *floors,
    )


def another_round(judgement: Judgement, policy: Policy, rounds: int) -> bool:
    """Whether measuring every prompt once more, after ``rounds`` rounds, is worth its time.

    In relative mode the noise lies within the session (a busy machine), so more pairs narrow it: a slower
    speed-up is convicted on :data:`CONFIRMING_ROUNDS` rounds, an undecided one gets up to :data:`MOST_ROUNDS`.
    In absolute mode the noise lies between sessions and no repetition helps.
    """
    if policy.mode == "absolute" or judgement.verdict == "broken":
        return False
    verdicts = {finding.verdict for finding in judgement.findings if finding.metric == "speed-up" and finding.n}
    if "regressed" in verdicts:
        return rounds < CONFIRMING_ROUNDS
    return "inconclusive" in verdicts and rounds < MOST_ROUNDS


def _broken(case: Case, measurement: Measurement, scores: PictureScores) -> str | None:
    """Why nothing about this measurement may be believed, or None."""
    if measurement.problems:
        return _first(measurement.problems)
    if measurement.recompiles:
        reason = f": {measurement.recompile_reasons[0]}" if measurement.recompile_reasons else ""
        times = "once" if measurement.recompiles == 1 else f"{measurement.recompiles} times"
        return f"recompiled {times} in the measured region{reason}"
    made, prompts = measurement.generations, len(case.workload.prompts)
    if not made or not prompts or len(made) % prompts:
        return f"{len(made)} generations were measured for {prompts} prompts"
    for i, generation in enumerate(made):
        for name in ("latency_s", "wall_s", "reference_latency_s"):
            value = getattr(generation, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                return f"{name} of prompt {i % prompts + 1} is {value}"
    return pictures.broken_scores(scores, prompts)


def _absent(case: Case, baseline: Baseline | None) -> Finding | None:
    """That there is nothing to compare with and, where it can be had, how to get it; or None."""
    recorded = case.against == "session"
    which = "the first session" if recorded else "the baseline"
    if baseline is None:
        if recorded:
            return _nothing("the first session did not measure it")
        return _nothing("no baseline is stored", "record one with --fluxperf-update")
    if other := hardware_differences(baseline.hardware, case.hardware, cpu_model=case.policy.mode == "absolute"):
        remedy = (
            "record one for this hardware in a folder of its own (--gpu auto) or replace it with --fluxperf-update=all"
        )
        return _nothing(f"{which} was recorded on {other[0]}", "" if recorded else remedy)
    if other := workload_differences(baseline, case.recipe, case.reference, case.workload):
        remedy = "record it anew with --fluxperf-update"
        return _nothing(f"{which} is of another workload ({', '.join(other)})", "" if recorded else remedy)
    return None


def _nothing(why: str, remedy: str = "") -> Finding:
    return Finding(metric="baseline", verdict="no baseline", message=why, remedy=remedy)


def _without_baseline(case: Case, absent: Finding, floors: Sequence[Finding]) -> Judgement:
    """The judgement where nothing but the test's own floors can be held against it."""
    why = f"{absent.message}; {absent.remedy}" if absent.remedy else absent.message
    worst = _worst([absent, *[finding for finding in floors if finding.verdict != "passed"]])
    return Judgement(
        verdict=worst.verdict,
        message=why if worst is absent else f"{worst.message}; {why}",
        findings=(absent, *floors),
        warnings=case.policy.warnings,
        gated=worst is not absent,
    )


def _explained(
    case: Case,
    measurement: Measurement,
    baseline: Baseline,
    times: TimeJudgement,
    found: Sequence[Finding],
    unguarded: Sequence[str],
) -> Judgement:
    """The judgement that rests on ``found``, with the reasons of what moved."""
    worst = _worst(found)
    relative = times.relative
    grounds = times.grounds or Grounds(measurement, baseline)
    now, before = grounds.measurement, grounds.baseline
    kernels = kernel_difference(now, before, relative=relative)
    reasons: tuple[str, ...] = ()
    if worst.verdict != "passed":
        proved = times.reasons if worst in times.findings else ()
        reasons = attribute(now, before, case.environment, relative=relative, kernels=kernels, proved=proved)
    if worst.verdict == "regressed" and not reasons:
        reasons = (UNEXPLAINED,)
    return Judgement(
        verdict=worst.verdict,
        message=_message(worst, found, reasons, packages_that_differ(before, case.environment)),
        findings=tuple(found),
        warnings=(
            *times.warnings,
            *case.policy.warnings,
            *_doubts(found, case.policy),
            *(_unjudged_latency(baseline) if relative else ()),
            *unguarded,
            *_other_host(case, baseline),
        ),
        attribution=reasons,
        kernels=kernels,
        gated=any(finding.tolerance is not None for finding in found),
    )


def _own_metrics(scores: PictureScores, baseline: Baseline, policy: Policy) -> Iterator[Finding]:
    """The project's metrics: of pictures compared with the stored ones against these with themselves."""
    if scores.stored is None:
        return pictures.own_quality(scores.reference, baseline, policy)
    return pictures.own_drift(scores.stored, policy)


def _worse(found: Sequence[Finding], earlier: Sequence[Finding]) -> tuple[Finding, ...]:
    """Of each metric the worse finding; of equals that of the second look."""
    first = {finding.metric: finding for finding in earlier}
    merged = []
    for finding in found:
        before = first.pop(finding.metric, finding)
        worse = SEVERITY[before.verdict] < SEVERITY[finding.verdict]
        merged.append(_of_first_look(before) if worse else finding)
    return (*merged, *map(_of_first_look, first.values()))


def _of_first_look(finding: Finding) -> Finding:
    return replace(finding, message=f"{finding.message}, the first time it was measured")


def _worst(found: Sequence[Finding]) -> Finding:
    """The finding of the worst verdict, the first of equals."""
    return min(found, key=lambda finding: SEVERITY[finding.verdict])


def _message(worst: Finding, found: Sequence[Finding], reasons: tuple[str, ...], packages: str | None) -> str:
    parts = [worst.message]
    others = [f.metric for f in found if f is not worst and f.verdict == worst.verdict != "passed"]
    if others:
        parts.append("also " + ", ".join(others))
    if reasons:
        parts.append(reasons[0])
        if packages is not None and packages != reasons[0]:
            parts.append(packages)
    return "; ".join(parts)


def _doubts(found: Sequence[Finding], policy: Policy) -> Iterator[str]:
    """What is undecided, and reference pictures that moved without failing."""
    yield from (finding.message for finding in found if finding.verdict == "inconclusive")
    for finding in found:
        if finding.metric == pictures.DRIFT and finding.now is not None and finding.now < 1 - policy.max_ssim_loss:
            yield finding.message


def _unjudged_latency(baseline: Baseline) -> Iterator[str]:
    if baseline.recipe is None or baseline.reference in (NONE, BASELINE):
        yield "its latency is reported and not judged: on a CPU only a speed-up over a reference recipe is"


def _unguarded(scores: PictureScores, baseline: Baseline) -> list[str]:
    """Metrics that nothing guards, with the reason."""
    return [
        *(
            f"{metric} has no finite value for two equal pictures, so nothing guards it"
            for metric in pictures.without_start(scores.stored)
        ),
        *(
            f"{metric} has no baseline, so nothing guards it; record it with --fluxperf-update=all"
            for metric in pictures.unguarded_metrics(scores.reference, baseline)
        ),
    ]


def _other_host(case: Case, baseline: Baseline) -> Iterator[str]:
    before, now = baseline.hardware.host_cpu, case.hardware.host_cpu
    if before != now:
        yield f"the baseline's host has another CPU: {before}, here {now}"


def _first(problems: tuple[str, ...]) -> str:
    more = len(problems) - 1
    return problems[0] + (f" (and {more} more problem{'s' if more > 1 else ''})" if more else "")
