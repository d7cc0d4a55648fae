"""One judged quantity each: latency or speed-up, computed steps, peak memory, graph breaks, picture quality.

Every function reads a measurement and the baseline's runs and returns :class:`Finding` records; none of them
sees another test, so the verdict does not depend on the order in which tests ran.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.gate.session_times import judged_by_phases, outside_effect
from pytest_fluxperf.gate.statistics import Array, CacheChange, Decision, cache_change, decide
from pytest_fluxperf.gate.times import TimeVerdict
from pytest_fluxperf.results import (
    Baseline,
    Finding,
    Generation,
    Measurement,
    Sample,
    median_latency_s,
)

LEAST_COMMON = 0.003
"""A common change smaller than this is not told of: a card's own scatter between sessions (docs/gate.md)."""

# Latency and speed-up ------------------------------------------------------------------------------------


def latency(
    time: TimeVerdict, decision: Decision, measurement: Measurement, baseline: Baseline, policy: Policy
) -> Finding:
    """The latency itself, on which ``decision`` was reached with the test's own change in ``time``."""
    low, high = map(math.expm1, time.effect.interval())
    before, now = median_latency_s(baseline.samples), median_latency_s(measurement.generations)
    sessions = len({run.session for run in baseline.runs})
    change, common = math.expm1(time.effect.value), math.expm1(time.common)
    place = " in denoising and decoding" if judged_by_phases(measurement, baseline, policy) else ""
    shared = f", {common:+.1%} that all tests share taken out" if abs(common) >= LEAST_COMMON else ""
    slow = f", prompts {_list(time.slow_prompts)} by far slower" if time.slow_prompts else ""
    return Finding(
        metric="latency",
        verdict=decision,
        unit="s",
        baseline=before,
        now=now,
        change=change,
        low=low,
        high=high,
        tolerance=policy.max_slowdown,
        n=len(measurement.generations),
        message=f"latency p50 {before:.4g} s → {now:.4g} s ({change:+.1%}{place}{shared}, tolerance "
        f"{policy.max_slowdown:.1%}, {_counts(len(measurement.generations), sessions)}){slow}"
        f"{_undecided(decision, low, high)}",
    )


def outside_of_phases(measurement: Measurement, baseline: Baseline, policy: Policy) -> Iterator[Finding]:
    """What text encoding and all else outside of denoising and decoding make the whole latency longer by, where that
    alone is a regression: it varies more from session to session, and is judged by its own noise."""
    effect = outside_effect(measurement, baseline) if judged_by_phases(measurement, baseline, policy) else None
    if effect is None or decide(effect, policy.limit, policy.m) != "regressed":
        return
    low, high = effect.interval()
    n = len(measurement.generations)
    yield Finding(
        metric="text encoding and the rest",
        verdict="regressed",
        change=effect.value,
        low=low,
        high=high,
        tolerance=policy.max_slowdown,
        n=n,
        message=f"text encoding and all else outside of denoising and decoding add {effect.value:+.1%} to the latency "
        f"(tolerance {policy.max_slowdown:.1%}, n={n})",
    )


def reported_latency(measurement: Measurement, baseline: Baseline | None) -> Finding:
    """The latency where it is shown but not judged: relative mode."""
    now = median_latency_s(measurement.generations)
    before = None if baseline is None else median_latency_s(baseline.samples)
    old = "" if before is None else f"{before:.4g} s → "
    return Finding(
        metric="latency",
        verdict="passed",
        unit="s",
        baseline=before,
        now=now,
        change=None if before is None else now / before - 1,
        n=len(measurement.generations),
        message=f"latency p50 {old}{now:.4g} s (reported, not judged)",
    )


def speed_up(
    time: TimeVerdict, decision: Decision, measurement: Measurement, baseline: Baseline, policy: Policy
) -> Finding:
    """The speed-up over the reference recipe, paired by prompt and timed side by side.

    A tolerance of 17 % more time is one of 14.5 % less speed-up; the finding speaks of the speed-up.
    """
    tolerance = -math.expm1(-policy.limit)
    n = len(measurement.generations)
    upper, lower = time.effect.interval()
    low, high, change = math.expm1(-lower), math.expm1(-upper), math.expm1(-time.effect.value)
    before, now = _speed_up(baseline.samples), _speed_up(measurement.generations)
    sessions = len({run.session for run in baseline.runs})
    return Finding(
        metric="speed-up",
        verdict=decision,
        unit="x",
        baseline=before,
        now=now,
        change=change,
        low=low,
        high=high,
        tolerance=tolerance,
        n=n,
        message=f"speed-up over {baseline.reference} {before:.3g}x → {now:.3g}x ({change:+.1%}, tolerance "
        f"{tolerance:.1%}, {_counts(n, sessions)}){_undecided(decision, low, high)}",
    )


def unknown_speed_up(baseline: Baseline, policy: Policy) -> Finding:
    """That the speed-up cannot be judged."""
    return Finding(
        metric="speed-up",
        verdict="inconclusive",
        tolerance=-math.expm1(-policy.limit),
        message=f"speed-up over {baseline.reference} unknown: its latency was not measured beside this recipe's, "
        "now or in the baseline; record it anew with --fluxperf-update=all",
    )


def _counts(n: int, sessions: int) -> str:
    return f"n={n} against {sessions} session{'s' if sessions > 1 else ''}"


def _list(prompts: Sequence[int]) -> str:
    return ", ".join(str(prompt + 1) for prompt in prompts)


def _undecided(decision: Decision, low: float, high: float) -> str:
    return f", undecided between {low:+.1%} and {high:+.1%}" if decision == "inconclusive" else ""


def _speed_up(samples: Sequence[Generation] | Sequence[Sample]) -> float:
    timed = [(s.latency_s, s.reference_latency_s) for s in samples if s.reference_latency_s is not None]
    return float(np.median([reference / latency for latency, reference in timed]))


# Computed steps ------------------------------------------------------------------------------------------


def computed_steps(measurement: Measurement, baseline: Baseline, policy: Policy) -> Iterator[Finding]:
    """Rule 3, for recipes whose steps can be seen."""
    base = baseline_computed_steps(baseline)
    if base is None:
        return
    made = measurement.generations[: base.size]
    n = len(measurement.generations)
    now = [g.computed_steps for g in made if g.computed_steps is not None]
    if len(now) < len(made):
        message = "computed steps cannot be seen any more, the baseline has them: nothing guards the step cache"
        yield Finding(
            metric="computed steps", verdict="inconclusive", baseline=float(base.mean()), n=n, message=message
        )
        return
    steps = max(len(g.decisions or "") for g in made)
    change = cache_change(now, base, steps, policy.max_step_growth)
    before, after = change.baseline / base.size, change.now / base.size
    yield Finding(
        metric="computed steps",
        verdict=change.decision,
        unit="steps",
        baseline=before,
        now=after,
        change=after / before - 1 if before else None,
        tolerance=policy.max_step_growth,
        n=n,
        message=_steps_message(change, before, after, steps, policy.max_step_growth, n),
    )


def _steps_message(change: CacheChange, before: float, after: float, steps: int, tolerance: float, n: int) -> str:
    if change.hits_vanished:
        return f"the step cache never hit: {after:.4g} of {steps} steps computed, baseline {before:.4g}, n={n}"
    relative = f"{after / before - 1:+.1%}, " if before else ""
    return (
        f"computed steps {before:.4g} → {after:.4g} an image ({relative}tolerance {tolerance:.1%}, "
        f"{change.prompts_changed} of {n} prompts changed)"
    )


def baseline_computed_steps(baseline: Baseline) -> Array | None:
    """Computed steps of each prompt (n,), the median over runs; None where the baseline does not know them."""
    rows = [[sample.computed_steps for sample in run.samples] for run in baseline.runs]
    known = [[c for c in row if c is not None] for row in rows]
    complete = [row for row, all_of in zip(known, rows, strict=True) if len(row) == len(all_of)]
    return np.median(np.array(complete, dtype=float), axis=0) if complete else None


# Memory and graphs ---------------------------------------------------------------------------------------


def peak_memory(measurement: Measurement, baseline: Baseline, policy: Policy) -> Iterator[Finding]:
    """Peak memory against the median of the baseline's runs."""
    stored = [run.peak_memory_mib for run in baseline.runs if run.peak_memory_mib is not None]
    now, tolerance = measurement.peak_memory_mib, policy.max_memory_growth
    if not stored:
        return
    before = float(np.median(stored))
    if now is None or not now > 0:
        message = f"peak memory was not measured, the baseline has {before:.0f} MiB"
        verdict: Decision = "passed" if tolerance is None else "inconclusive"
        yield Finding(metric="peak memory", verdict=verdict, unit="MiB", baseline=before, message=message)
        return
    change = now / before - 1
    verdict = "passed"
    if tolerance is not None and now > before * (1 + tolerance):
        verdict = "regressed"
    elif tolerance is not None and now * (1 + tolerance) < before:
        verdict = "improved"
    rule = "reported, not judged" if tolerance is None else f"tolerance {tolerance:.1%}"
    yield Finding(
        metric="peak memory",
        verdict=verdict,
        unit="MiB",
        baseline=before,
        now=now,
        change=change,
        tolerance=tolerance,
        n=1,
        message=f"peak memory {before:.0f} MiB → {now:.0f} MiB ({change:+.1%}, {rule})",
    )


def graph_breaks(measurement: Measurement, baseline: Baseline) -> Iterator[Finding]:
    """A compiled graph that breaks more often than in any run of the baseline."""
    stored = [run.facts["graph_breaks"] for run in baseline.runs if isinstance(run.facts.get("graph_breaks"), int)]
    now = measurement.graph_breaks
    if not stored and not now:
        return
    before = max(stored, default=0)
    yield Finding(
        metric="graph breaks",
        verdict="regressed" if now > before else "passed",
        baseline=float(before),
        now=float(now),
        change=None,
        tolerance=0.0,
        n=len(measurement.generations),
        message=f"graph breaks {before} → {now}",
    )
