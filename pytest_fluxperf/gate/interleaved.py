"""Stage two: the latency of two environments that took turns on one device (docs/gate.md, rule 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.findings import log_latencies
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.gate.statistics import Array, ab_decide
from pytest_fluxperf.results import SEVERITY, Finding, Measurement, Result

MOST_CONFIRMED = 3
"""Confirmed regressions after which the rest is not worth its time, unless asked for."""


@dataclass(frozen=True)
class Interleaved:
    """What the blocks so far say."""

    finding: Finding
    another_block: bool
    """True when a fresh pair of processes should be measured."""
    warning: str | None = None


def suspects(results: Sequence[Result]) -> list[Result]:
    """The results whose latency stage one could not pass, the worst first: those to interleave.

    What is broken, or fails by something else than its latency, is no question of time and is left out.
    """
    found = []
    for result in results:
        for finding in result.judgement.findings:
            if finding.metric == "latency" and finding.verdict in ("regressed", "inconclusive"):
                found.append((SEVERITY[finding.verdict], -(finding.change or 0.0), result.test, result))
    return [result for *_, result in sorted(found, key=lambda entry: entry[:3])]


def judge_blocks(blocks: Sequence[tuple[Measurement, Measurement]], policy: Policy) -> Interleaved:
    """Judge the blocks so far, each the measurements of the old and the new environment in turns.

    The verdict is ``inconclusive`` as long as another block is wanted. Raises FluxPerfError when two measurements
    of a block do not hold the same number of generations.
    """
    differences = [_differences(old, new) for old, new in blocks]
    found = ab_decide(differences, policy.limit)
    before, now = (
        float(np.median([g.latency_s for pair in blocks for g in pair[side].generations])) for side in (0, 1)
    )
    change, low, high = map(math.expm1, (found.effect.value, found.low, found.high))
    n = sum(difference.size for difference in differences)
    counts = f"{n} pairs in {found.blocks} block{'s' if found.blocks > 1 else ''}"
    finding = Finding(
        metric="latency",
        verdict="inconclusive" if found.decision == "next block" else found.decision,
        unit="s",
        baseline=before,
        now=now,
        change=change,
        low=low,
        high=high,
        tolerance=policy.max_slowdown,
        n=n,
        message=f"latency p50 {before:.4g} s → {now:.4g} s interleaved ({change:+.1%} between {low:+.1%} and "
        f"{high:+.1%}, tolerance {policy.max_slowdown:.1%}, {counts})",
    )
    warning = f"{finding.message}: passed, but not shown to lie within the tolerance" if found.warning else None
    return Interleaved(finding, found.decision == "next block", warning)


def _differences(old: Measurement, new: Measurement) -> Array:
    before, after = (log_latencies(side.generations, relative=False) for side in (old, new))
    if before is None or after is None or before.shape != after.shape or not before.size:
        raise FluxPerfError(
            f"the old environment made {len(old.generations)} generations and the new one {len(new.generations)}: "
            "a block compares them in pairs"
        )
    difference: Array = after - before
    return difference
