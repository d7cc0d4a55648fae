"""Stage two: the latency of two environments that took turns on one device (docs/comparing.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.latency import Grounds, TimeJudgement
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.gate.statistics import AB_MAX_BLOCKS, ab_decide, paired_differences
from pytest_fluxperf.results import SEVERITY, Block, Finding, Result

MOST_BLOCKS = AB_MAX_BLOCKS

MOST_CONFIRMED = 3
"""Confirmed regressions after which the rest is not worth its time, unless asked for."""

LEAST_PAIRS = 8
"""Pairs of a block: fewer prompts are gone through several times."""

ABBA_PASSES = 2
"""Processes of each side in a block where whole processes alternate."""


@dataclass(frozen=True)
class Interleaved:
    """What the blocks so far say."""

    finding: Finding
    another_block: bool
    """True when a fresh pair of processes should be measured."""
    warning: str | None = None

    def judgement(self, grounds: Grounds | None = None) -> TimeJudgement:
        """What it says of a test's latency; ``grounds`` is what was measured in the new and the old environment."""
        return TimeJudgement((self.finding,), (self.warning,) if self.warning else (), grounds=grounds)


def suspects(results: Sequence[Result]) -> list[Result]:
    """The results whose latency stage one could not pass, the worst first: those to interleave.

    On a CPU stage one judges the speed-up, the comparison the latency itself. What is broken, or fails by something
    else than its time, is no question of time and is left out.
    """
    found = []
    for result in results:
        for finding in result.judgement.findings:
            if finding.metric in ("latency", "speed-up") and finding.verdict in ("regressed", "inconclusive"):
                slower = (finding.change or 0.0) * (-1 if finding.metric == "speed-up" else 1)
                found.append((SEVERITY[finding.verdict], -slower, result.test, result))
    return [result for *_, result in sorted(found, key=lambda entry: entry[:3])]


def judge_blocks(blocks: Sequence[Block], policy: Policy, *, alternating: bool = False) -> Interleaved:
    """Judge the blocks so far; ``alternating`` where whole processes took turns instead of generations.

    The verdict is ``inconclusive`` as long as another block is wanted. Raises FluxPerfError when the sides of a
    block do not hold the same number of generations.
    """
    passes = ABBA_PASSES if alternating else 1
    try:
        differences = [paired_differences(block.old_s, block.new_s, passes) for block in blocks]
    except ValueError:
        sides = ", ".join(f"{len(block.old_s)} and {len(block.new_s)}" for block in blocks)
        raise FluxPerfError(
            f"old and new environment made {sides} generations: a block compares them in pairs"
        ) from None
    found = ab_decide(differences, policy.limit, policy.m)
    before = float(np.median([s for block in blocks for s in block.old_s]))
    now = float(np.median([s for block in blocks for s in block.new_s]))
    change, low, high = map(math.expm1, (found.effect.value, found.low, found.high))
    n = sum(len(block.old_s) for block in blocks)
    counts = f"{n} pairs in {found.blocks} block{'s' if found.blocks > 1 else ''}"
    how = "in alternating processes" if alternating else "interleaved"
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
        message=f"latency p50 {before:.4g} s → {now:.4g} s {how} ({change:+.1%} between {low:+.1%} and "
        f"{high:+.1%}, tolerance {policy.max_slowdown:.1%}, {counts})",
    )
    warning = f"{finding.message}: passed, but not shown to lie within the tolerance" if found.warning else None
    return Interleaved(finding, found.decision == "next block", warning)
