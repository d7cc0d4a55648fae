"""The decision on one test: a pure function of what was measured, what is stored, and the policy."""

from __future__ import annotations

import math

from pytest_fluxperf.baseline.run import record
from pytest_fluxperf.baseline.update import workload_differences
from pytest_fluxperf.gate import findings as judged
from pytest_fluxperf.gate import pictures
from pytest_fluxperf.gate.attribution import attribute, attribute_broken, kernel_difference, packages_that_differ
from pytest_fluxperf.gate.fidelity import fidelity
from pytest_fluxperf.gate.interleaved import Interleaved
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.machine.hardware import hardware_differences
from pytest_fluxperf.results import (
    BASELINE,
    NONE,
    SEVERITY,
    Baseline,
    Environment,
    Finding,
    Hardware,
    Judgement,
    Measurement,
    Quality,
    Workload,
)

__all__ = ["another_round", "judge", "record"]

UNEXPLAINED = "nothing that is recorded differs from the baseline: phases, steps, graphs, attention, dtypes, packages"

CONFIRMING_ROUNDS = 4
"""Rounds over the prompts on which a slower speed-up is convicted (benchmarks/gate_power.py, relative mode)."""

MOST_ROUNDS = 8
"""Rounds after which an undecided speed-up stays undecided."""


def judge(
    measurement: Measurement,
    quality: Quality | None,
    baseline: Baseline | None,
    policy: Policy,
    *,
    drift: Quality | None = None,
    hardware: Hardware,
    environment: Environment,
    workload: Workload,
    recipe: str | None,
    reference: str,
    interleaved: Interleaved | None = None,
    grounds: tuple[Measurement, Baseline] | None = None,
    stored: bool = True,
) -> Judgement:
    """Judge one test.

    ``quality`` compares its pictures with the reference recipe's, ``drift`` the reference recipe's with the
    baseline's stored ones. ``interleaved`` takes the place of rule 1 where an A/B has judged the latency; ``grounds``
    is what that A/B measured in the new and the old environment, from which a change is then explained. ``stored`` is
    False where the baseline is a recorded session, which no option records anew. The verdict is that of the worst
    finding. Depends on nothing but its arguments.
    """
    if problem := _broken(measurement, quality, drift, workload):
        differs = () if baseline is None else attribute_broken(measurement, baseline, environment)
        return Judgement(verdict="broken", message=problem, attribution=differs, gated=True)
    if measurement.unfit:
        return Judgement(verdict="invalid", message=_first(measurement.unfit))
    if _is_stored(quality):
        # Pictures of another environment differ without being worse, so this is drift, whoever made them.
        drift, scores = quality, None
    else:
        scores = quality
    # A body without our pipeline has no other pictures to be compared with than those stored, or the old environment's.
    floors = list(pictures.quality_floors(drift if quality is None and reference == BASELINE else quality, policy))
    if missing := _not_comparable(baseline, hardware, workload, recipe, reference, policy, stored):
        floors += fidelity(measurement.fidelity, ())
        absent = Finding(metric="baseline", verdict="no baseline", message=missing)
        worst = _worst([absent, *[f for f in floors if f.verdict != "passed"]])
        return Judgement(
            verdict=worst.verdict,
            message=worst.message if worst is absent else f"{worst.message}; {missing}",
            findings=(absent, *floors),
            warnings=policy.warnings,
            gated=worst is not absent,
        )
    assert baseline is not None
    found = [
        *([interleaved.finding] if interleaved else _latencies(measurement, baseline, policy, recipe)),
        *judged.computed_steps(measurement, baseline, policy),
        *judged.peak_memory(measurement, baseline, policy),
        *judged.graph_breaks(measurement, baseline),
        *fidelity(measurement.fidelity, [run.fidelity for run in baseline.runs]),
        *pictures.quality_changes(scores, baseline, policy),
        *(pictures.own_quality(scores, baseline, policy) if scores is quality else pictures.own_drift(quality, policy)),
        *pictures.drift_of_reference(drift, policy, its_own=reference == BASELINE),
        *floors,
    ]
    worst = _worst(found)
    relative = policy.mode == "relative" and interleaved is None
    now, before = grounds or (measurement, baseline)
    kernels = kernel_difference(now, before, relative=relative)
    reasons: tuple[str, ...] = ()
    if worst.verdict != "passed":
        reasons = attribute(now, before, environment, relative=relative, kernels=kernels)
    if worst.verdict == "regressed" and not reasons:
        reasons = (UNEXPLAINED,)
    return Judgement(
        verdict=worst.verdict,
        message=_message(worst, found, reasons, packages_that_differ(before, environment)),
        findings=tuple(found),
        warnings=(
            *([interleaved.warning] if interleaved and interleaved.warning else []),
            *_warnings(found, quality, baseline, policy, hardware, judged_latency=interleaved is not None),
        ),
        attribution=reasons,
        kernels=kernels,
        gated=any(finding.tolerance is not None for finding in found),
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


def _broken(measurement: Measurement, quality: Quality | None, drift: Quality | None, workload: Workload) -> str | None:
    """Why nothing about this measurement may be believed, or None."""
    if measurement.problems:
        return _first(measurement.problems)
    if measurement.recompiles:
        reason = f": {measurement.recompile_reasons[0]}" if measurement.recompile_reasons else ""
        times = "once" if measurement.recompiles == 1 else f"{measurement.recompiles} times"
        return f"recompiled {times} in the measured region{reason}"
    made, prompts = measurement.generations, len(workload.prompts)
    if not made or not prompts or len(made) % prompts:
        return f"{len(made)} generations were measured for {prompts} prompts"
    for i, generation in enumerate(made):
        for name in ("latency_s", "wall_s", "reference_latency_s"):
            value = getattr(generation, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                return f"{name} of prompt {i % prompts + 1} is {value}"
    return pictures.broken_scores(quality, prompts) or pictures.broken_scores(drift, prompts)


def _not_comparable(
    baseline: Baseline | None,
    hardware: Hardware,
    workload: Workload,
    recipe: str | None,
    reference: str,
    policy: Policy,
    stored: bool,
) -> str | None:
    """Why there is nothing to compare with and, where it can be had, how to get it; or None."""
    if baseline is None:
        return (
            "no baseline is stored; record one with --fluxperf-update"
            if stored
            else "the first session did not measure it"
        )
    if other := hardware_differences(baseline.hardware, hardware, cpu_model=policy.mode == "absolute"):
        if not stored:
            return f"the first session was recorded on {other[0]}"
        return (
            f"the baseline was recorded on {other[0]}; record one for this hardware in a folder of "
            "its own (--gpu auto) or replace it with --fluxperf-update=all"
        )
    if other := workload_differences(baseline, recipe, reference, workload):
        differs = f"is of another workload ({', '.join(other)})"
        return (
            f"the baseline {differs}; record it anew with --fluxperf-update"
            if stored
            else f"the first session {differs}"
        )
    return None


def _latencies(measurement: Measurement, baseline: Baseline, policy: Policy, recipe: str | None) -> list[Finding]:
    if policy.mode == "absolute":
        return [judged.latency(measurement, baseline, policy)]
    reported = judged.reported_latency(measurement, baseline)
    # The reference's speed-up over itself is 1 whatever happens, and there may be none.
    if recipe in (None, baseline.reference) or baseline.reference in (NONE, BASELINE):
        return [reported]
    return [judged.speed_up(measurement, baseline, policy), reported]


def _worst(found: list[Finding]) -> Finding:
    """The finding of the worst verdict, the first of equals."""
    return min(found, key=lambda finding: SEVERITY[finding.verdict])


def _message(worst: Finding, found: list[Finding], reasons: tuple[str, ...], packages: str | None) -> str:
    parts = [worst.message]
    others = [f.metric for f in found if f is not worst and f.verdict == worst.verdict != "passed"]
    if others:
        parts.append("also " + ", ".join(others))
    if reasons:
        parts.append(reasons[0])
        if packages is not None and packages != reasons[0]:
            parts.append(packages)
    return "; ".join(parts)


def _warnings(
    found: list[Finding],
    quality: Quality | None,
    baseline: Baseline,
    policy: Policy,
    hardware: Hardware,
    *,
    judged_latency: bool,
) -> list[str]:
    warnings = list(policy.warnings)
    warnings += [finding.message for finding in found if finding.verdict == "inconclusive"]
    for finding in found:
        if finding.metric == "drift" and finding.now is not None and finding.now < 1 - policy.max_ssim_loss:
            warnings.append(finding.message)
    if (
        policy.mode == "relative"
        and (baseline.recipe is None or baseline.reference in (NONE, BASELINE))
        and not judged_latency
    ):
        warnings.append("its latency is reported and not judged: on a CPU only a speed-up over a reference recipe is")
    for metric in pictures.without_start(quality):
        warnings.append(f"{metric} has no finite value for two equal pictures, so nothing guards it")
    for metric in pictures.unguarded_metrics(None if _is_stored(quality) else quality, baseline):
        warnings.append(f"{metric} has no baseline, so nothing guards it; record it with --fluxperf-update=all")
    if baseline.hardware.host_cpu != hardware.host_cpu:
        warnings.append(f"the baseline's host has another CPU: {baseline.hardware.host_cpu}, here {hardware.host_cpu}")
    return warnings


def _is_stored(quality: Quality | None) -> bool:
    return quality is not None and quality.reference == BASELINE


def _first(problems: tuple[str, ...]) -> str:
    more = len(problems) - 1
    return problems[0] + (f" (and {more} more problem{'s' if more > 1 else ''})" if more else "")
