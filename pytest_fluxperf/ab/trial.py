"""What an A/B comparison is told, and where each of its tests stands."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pytest_fluxperf.ab.protocol import (
    Described,
    Finished,
    tolerant,
)
from pytest_fluxperf.gate.interleaved import (
    LEAST_PAIRS,
    Interleaved,
)
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.results import Block, Environment, Result, Verdict

Mode = Literal["auto", "interleaved", "alternating"]


TIMEOUT_S = 1800.0
"""Longest silence of a child that is believed: loading and compiling a model is one silence."""


@dataclass(frozen=True)
class Terms:
    """What is compared, and how."""

    old: Path
    new: Path
    """Interpreters."""
    arguments: tuple[str, ...]
    """Of pytest, the same for both."""
    folder: Path
    """For the logs and pictures."""
    timeout_s: float = TIMEOUT_S
    mode: Mode = "auto"
    go_on: bool = False
    """Whether to compare everything, however many regressions are confirmed."""
    quality: bool = True
    """Whether pictures are compared too, where a side measures a test for the first time."""
    least_pairs: int = LEAST_PAIRS
    companions: tuple[int, ...] = ()
    """Process groups that hold the device and keep still."""


@dataclass(frozen=True)
class Trouble:
    """Why a test could not be compared."""

    verdict: Verdict
    message: str


@dataclass
class Trial:
    """One test over the blocks so far."""

    test: str
    alternating: bool = False
    reason: str = ""
    """Why whole processes alternate."""
    old: list[Result] = field(default_factory=list)
    new: list[Result] = field(default_factory=list)
    environments: dict[str, Environment] = field(default_factory=dict)
    """By side."""
    policy: Policy = field(default_factory=Policy)
    blocks: list[Block] = field(default_factory=list)
    interleaved: Interleaved | None = None
    skipped: str | None = None
    """Why neither environment runs it."""
    trouble: Trouble | None = None
    notes: list[str] = field(default_factory=list)
    """What else went wrong."""
    described: Described | None = None
    """What is known of it without measuring."""

    @property
    def open(self) -> bool:
        """True as long as another block is wanted."""
        return not self.trouble and not self.skipped and (self.interleaved is None or self.interleaved.another_block)

    @property
    def confirmed(self) -> bool:
        """True for a regression that was confirmed."""
        return self.interleaved is not None and self.interleaved.finding.verdict == "regressed"

    def of(self, side: str) -> list[Result]:
        """The results of a side."""
        return self.old if side == "old" else self.new

    def take(self, side: str, done: Finished) -> Result | None:
        """Keep what a side brings back at the end of a test; None when that is no whole measurement."""
        if done.result is None:
            return None
        result: Result = tolerant(done.result, Result)
        if done.environment is not None:
            self.environments[side] = done.environment
        if side == "new":
            self.policy = tolerant(done.policy, Policy)
        self.of(side).append(result)
        return result if result.run is not None or result.measurement.unfit else None

    def alternate(self, reason: str) -> None:
        """Have whole processes take turns from here on, and begin anew: their blocks are of another kind."""
        self.alternating, self.reason = True, reason
        self.interleaved = None
        for known in (self.old, self.new, self.blocks):
            known.clear()

    def fail(self, verdict: Verdict, message: str) -> None:
        """End it."""
        self.trouble = Trouble(verdict, message)


def _slower(old: Sequence[Result], new: Sequence[Result], policy: Policy) -> bool:
    """Whether the first processes suggest a regression."""
    if not old or not new:
        return False
    pairs = zip(new[0].measurement.generations, old[0].measurement.generations, strict=False)
    ratios = [now.latency_s / before.latency_s for now, before in pairs]
    return bool(ratios) and statistics.median(ratios) > 1 + policy.max_slowdown
