"""What an A/B comparison is told, and where each of its tests stands."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from pytest_fluxperf.ab.protocol import Described, Finished
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.interleaved import LEAST_PAIRS, Interleaved, judge_blocks
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
    def begun(self) -> bool:
        """True once anything is known of it."""
        return bool(self.trouble or self.skipped or self.old or self.new)

    @property
    def confirmed(self) -> bool:
        """True for a regression that was confirmed."""
        return self.interleaved is not None and self.interleaved.finding.verdict == "regressed"

    @property
    def state(self) -> str:
        """Where it stands, in one line."""
        if self.trouble:
            return f"{self.trouble.verdict}: {self.trouble.message}"
        if self.skipped:
            return f"skipped: {self.skipped}"
        if self.interleaved:
            verdict = "undecided" if self.interleaved.another_block else self.interleaved.finding.verdict
            return f"{verdict}: {self.interleaved.finding.message}"
        return f"whole processes will alternate: {self.reason}"

    def of(self, side: str) -> list[Result]:
        """The results of a side."""
        return self.old if side == "old" else self.new

    def take(self, side: str, done: Finished) -> Result | None:
        """Keep what a side brings back at the end of a test; None when that is no whole measurement."""
        result = done.result
        if result is None:
            return None
        if done.environment is not None:
            self.environments[side] = done.environment
            if result.run is not None:  # another version's digest may count what this one does not know
                result = replace(result, run=replace(result.run, environment=done.environment.digest))
        if side == "new" and done.policy is not None:
            self.policy = done.policy
        self.of(side).append(result)
        return result if done.is_whole else None

    def conclude(self, old: Finished, new: Finished) -> None:
        """Judge by what both sides bring back at the end of a block; one that has no whole measurement ends it."""
        before, after = self.take("old", old), self.take("new", new)
        if before is not None and after is not None:
            self.judge([before], [after])
        elif before is not None:
            self.lose(new)
        elif after is not None:
            self.fail("no baseline", f"the old environment cannot run it: {why_not(old)}")
        elif old.skipped and new.skipped:
            self.skipped = new.skipped
        else:
            self.fail("broken", f"neither environment can run it: {why_not(new)}")

    def judge(self, old: Sequence[Result], new: Sequence[Result]) -> None:
        """Judge by a whole block, one result or several of each side."""
        for result in (*new, *old):
            if result.measurement.unfit:
                self.fail("invalid", result.measurement.unfit[0])
                return
        before, after = (
            tuple(made.latency_s for result in side for made in result.measurement.generations) for side in (old, new)
        )
        self.blocks.append(Block(old_s=before, new_s=after))
        try:
            self.interleaved = judge_blocks(self.blocks, self.policy, alternating=self.alternating)
        except FluxPerfError as error:  # the sides did not make the same number of pictures
            self.blocks.pop()
            self.fail("invalid", str(error))

    def alternate(self, reason: str) -> None:
        """Have whole processes take turns from here on, and begin anew: their blocks are of another kind."""
        self.alternating, self.reason = True, reason
        self.interleaved = None
        for known in (self.old, self.new, self.blocks):
            known.clear()

    def lose(self, done: Finished) -> None:
        """End it: the new environment does not do what the old one does."""
        self.fail("broken", f"the old environment runs it, the new one does not: {why_not(done)}")

    def fail(self, verdict: Verdict, message: str) -> None:
        """End it."""
        self.trouble = Trouble(verdict, message)


def why_not(done: Finished) -> str:
    """What a side said of a test that it did not measure."""
    if done.result is not None:
        problems = done.result.measurement.problems
        return problems[0] if problems else "it compiled anew while it was measured"
    return done.skipped or done.failed or "no measurement"


def slower(old: Sequence[Result], new: Sequence[Result], policy: Policy) -> bool:
    """Whether the first processes suggest a regression."""
    if not old or not new:
        return False
    pairs = zip(new[0].measurement.generations, old[0].measurement.generations, strict=False)
    ratios = [now.latency_s / before.latency_s for now, before in pairs]
    return bool(ratios) and statistics.median(ratios) > 1 + policy.max_slowdown
