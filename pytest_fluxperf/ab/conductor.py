"""The order of turns, blocks and tests: who works when, and when enough is known.

Everything happens in one thread, and a child works only while it is asked for its next message: two processes are never
at work at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pytest_fluxperf.ab.process import Side, SideFailed
from pytest_fluxperf.ab.protocol import Collected, Finished, Generated, Go, Prepared
from pytest_fluxperf.ab.stage import Stage, device_lock, until_terminated
from pytest_fluxperf.ab.trial import Terms, Trial, slower, why_not
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.interleaved import ABBA_PASSES, MOST_BLOCKS, MOST_CONFIRMED, judge_blocks
from pytest_fluxperf.results import Block, Result

# What may come of it when two processes are to take turns over a test, beside a whole block:


@dataclass(frozen=True)
class Stopped:
    """A side has ended the test before its last turn."""

    side: Side
    done: Finished


@dataclass(frozen=True)
class TooLarge:
    """Two copies do not fit in memory."""

    reason: str


@dataclass(frozen=True)
class Different:
    """The sides were asked for different pictures."""


@dataclass
class Passes:
    """What four processes in turns (old, new, new, old) have measured of a test."""

    trial: Trial
    old: list[Result] = field(default_factory=list)
    new: list[Result] = field(default_factory=list)
    refused: Finished | None = None
    """What the first old process said, where it could not measure the test."""
    unreached: bool = False
    """A process was lost before it came to the test; the next block goes on with it."""

    def judge(self) -> None:
        """Decide on the trial by a block that is over."""
        if self.trial.trouble or self.trial.skipped:
            return
        if len(self.old) == len(self.new) == ABBA_PASSES:
            self.trial.judge(self.old, self.new)
        elif not self.unreached:
            self.trial.fail("no baseline", "the old environment cannot run it: it has no such test")


class Conductor:
    """Runs a comparison; ``show`` is told of its progress, a line at a time."""

    def __init__(self, terms: Terms, show: Callable[[str], None] = lambda _: None) -> None:
        self._terms = terms
        self._show = show
        self._stage = Stage(terms)
        self._trials: list[Trial] = []
        self._current: Trial | None = None
        self._profile_all = False
        self.collected: Collected | None = None
        """What the new environment (or, where it has no test, the old one) said of device and model."""
        self.ended: str | None = None
        """Why the comparison ended before all was compared."""

    def run(self, tests: Sequence[str] | None = None) -> list[Trial]:
        """Compare ``tests`` (the worst suspect first), or all that are collected.

        A child that dies, hangs, floods its log or says what it must not ends it; the test at hand fails then, the
        others are left as they stand. Raises FluxPerfError when nothing could be begun.
        """
        self._terms.folder.mkdir(parents=True, exist_ok=True)
        if tests is not None:
            self._trials = [Trial(test) for test in tests]
        try:
            with until_terminated():
                self._compare()
        except FluxPerfError as error:
            if isinstance(error, SideFailed) and self._current is not None:
                self._current.fail("broken" if error.name == "new" else "invalid", str(error))
            elif not any(trial.begun for trial in self._trials):
                raise
            self.ended = str(error)
        return self._trials

    def _compare(self) -> None:
        for number in range(1, MOST_BLOCKS + 1):
            if number == 1 or self._open(alternating=False):
                self._interleave(number, first=number == 1)
        for number in range(1, MOST_BLOCKS + 1):
            if self._open(alternating=True):
                self._alternate(number)
        if self._stage.lost and any(trial.open for trial in self._trials):
            self.ended = self._stage.lost[0]

    # -- generations in turns ------------------------------------------------------------------------------

    def _interleave(self, number: int, *, first: bool) -> None:
        """A block: a fresh pair of processes over everything that is open."""
        stage = self._stage
        with stage.process("old", str(number)) as old, stage.process("new", str(number)) as new:
            found_old, found_new = stage.collect(old, new)
            if first:
                self._begin(found_old, found_new)
            with device_lock(found_new):
                here = [trial for trial in self._open(alternating=False) if trial.test in found_new.tests]
                both = {trial.test for trial in here if trial.test in found_old.tests}
                stage.plan(old, [trial for trial in here if trial.test in both], new.group)
                stage.plan(new, here, old.group)
                for trial in here:
                    if self._enough():
                        break
                    self._current = trial
                    if trial.test in both:
                        self._pairs(trial, old, new)
                    else:
                        reason = found_old.why_not(trial.test)
                        trial.fail("no baseline", f"the old environment cannot run it: {reason}")
                        trial.take("new", stage.drive(new, trial))
                    self._tell(trial, number)
                    if old.lost or new.lost:  # the next block goes on with fresh ones
                        break
                self._current = None

    def _begin(self, old: Collected, new: Collected) -> None:
        """Make the trials of what was collected."""
        new.require_tests(old.tests)
        if old.gpu and new.gpu and (old.gpu, old.hardware) != (new.gpu, new.hardware):
            raise FluxPerfError(f"the environments see different hardware: {old.hardware} and {new.hardware}")
        self.collected, self._profile_all = new if new.tests else old, new.profile
        if self._trials:
            for trial in self._trials:
                if trial.test not in new.tests:
                    trial.fail("invalid", "the new environment's process did not collect the test again")
        else:
            self._trials = [Trial(test) for test in dict.fromkeys((*new.tests, *old.tests))]
            for trial in self._trials:
                if trial.test not in new.tests:
                    trial.fail("broken", f"the old environment has it, the new one does not: {new.why_not(trial.test)}")
        for trial in self._trials:
            trial.described = new.described.get(trial.test) or old.described.get(trial.test)
            known = {"old": old.environment, "new": new.environment}
            trial.environments |= {name: found for name, found in known.items() if found is not None}
            if self._terms.mode == "alternating" and trial.test in old.tests:
                trial.alternate("as asked for")  # what the old one lacks is measured by the new one alone

    def _pairs(self, trial: Trial, old: Side, new: Side) -> None:
        """One block of a test in two processes, to its end."""
        stage = self._stage
        match self._take_turns(trial, old, new):
            case Stopped(side, done) if self._lacks_room(done):
                other = new if side is old else old
                trial.alternate(f"beside the {other.name} environment's copy {why_not(done)}")
                stage.leave(other, trial.reason)
            case Stopped(side, done):  # what the other one can do is shown
                other = new if side is old else old
                ends = {side.name: done, other.name: stage.drive(other, trial)}
                trial.conclude(ends["old"], ends["new"])
            case TooLarge(reason):
                trial.alternate(reason)
                for side in (old, new):
                    stage.leave(side, reason)
            case Different():
                trial.fail("no baseline", "the two environments were asked for different pictures")
                for side in (old, new):
                    stage.leave(side, "no comparison is possible")
            case Block() as block:
                profile = self._is_worth_a_profile(trial, block)
                ends = {side.name: stage.drive(side, trial, profile=profile) for side in (old, new)}
                trial.conclude(ends["old"], ends["new"])

    def _take_turns(self, trial: Trial, old: Side, new: Side) -> Block | Stopped | TooLarge | Different:
        """Both warm up, then they take turns AB BA AB ..."""
        warm = old.ask(Go(), Prepared, Finished)
        if isinstance(warm, Finished):
            return Stopped(old, warm)
        if self._terms.mode == "auto" and not self._stage.fits(warm, new):
            there = warm.free_mib + self._stage.held_mib["new"]
            return TooLarge(
                f"two copies do not fit in memory: the old environment's holds {warm.held_mib:.0f} MiB, and "
                f"{there:.0f} MiB are there for the new one's"
            )
        ready = new.ask(Go(), Prepared, Finished)
        if isinstance(ready, Finished):
            return Stopped(new, ready)
        if (warm.workload, warm.generations) != (ready.workload, ready.generations):
            return Different()
        trial.policy = ready.policy or trial.policy
        seconds: dict[str, list[float]] = {"old": [], "new": []}
        for pair in range(warm.generations):
            for side in (old, new) if pair % 2 == 0 else (new, old):
                made = side.ask(Go(), Generated, Finished)
                if isinstance(made, Finished):
                    return Stopped(side, made)
                seconds[side.name].append(made.latency_s)
        return Block(old_s=tuple(seconds["old"]), new_s=tuple(seconds["new"]))

    def _lacks_room(self, done: Finished) -> bool:
        """Whether a side lacked the memory that the other one holds; then whole processes take turns."""
        return self._terms.mode == "auto" and done.out_of_memory

    def _is_worth_a_profile(self, trial: Trial, block: Block) -> bool:
        """Whether a generation of each side is profiled: a regression by the blocks so far, or as the user wants it."""
        if self._profile_all and not trial.blocks:
            return True
        return judge_blocks([*trial.blocks, block], trial.policy).finding.verdict == "regressed"

    # -- whole processes in turns --------------------------------------------------------------------------

    def _alternate(self, number: int) -> None:
        """A block of four fresh processes, old, new, new, old, over everything that is open and does not fit twice.

        The second ones profile what the first ones saw slower: none of them knows the verdict.
        """
        stage = self._stage
        block = [Passes(trial) for trial in self._open(alternating=True)]
        for label, name in (("a", "old"), ("a", "new"), ("b", "new"), ("b", "old")):
            with stage.process(name, f"{number}{label}-alone") as side:
                (found,) = stage.collect(side)
                here = [p for p in block if p.trial.open and p.trial.test in found.tests and not p.unreached]
                with device_lock(found):
                    stage.plan(side, [passes.trial for passes in here])
                    for at, passes in enumerate(here):
                        self._current = passes.trial
                        wanted = self._profile_all and number == 1
                        wanted = wanted or slower(passes.old, passes.new, passes.trial.policy)
                        self._pass(passes, side, profile=wanted and label == "b")
                        if side.lost:
                            for later in here[at + 1 :]:
                                later.unreached = True
                            break
                    self._current = None
        for passes in block:
            passes.judge()
            self._tell(passes.trial, number)

    def _pass(self, passes: Passes, side: Side, *, profile: bool) -> None:
        """One process over one test."""
        trial = passes.trial
        done = self._stage.drive(side, trial, profile=profile)
        if side.name == "new":
            if passes.refused is not None:
                trial.conclude(passes.refused, done)
            elif (result := trial.take("new", done)) is not None:
                passes.new.append(result)
            else:
                trial.lose(done)
        elif not done.is_whole and not passes.old:
            passes.refused = done  # the new one is measured all the same
        elif (result := trial.take("old", done)) is not None:
            passes.old.append(result)
        else:
            trial.fail("no baseline", f"the old environment cannot run it: {why_not(done)}")

    # -- what both have in common --------------------------------------------------------------------------

    def _open(self, *, alternating: bool) -> list[Trial]:
        """What is undecided, the worst suspect first (as given, before anything is known)."""
        if self._enough():
            return []
        found = [trial for trial in self._trials if trial.open and trial.alternating == alternating]

        def worst(trial: Trial) -> float:
            return -(trial.interleaved.finding.change or 0.0) if trial.interleaved else 0.0

        return sorted(found, key=worst)

    def _enough(self) -> bool:
        confirmed = sum(trial.confirmed for trial in self._trials)
        if self._terms.go_on or confirmed < MOST_CONFIRMED:
            return False
        if any(trial.open for trial in self._trials):
            self.ended = f"{confirmed} regressions are confirmed"
        return True

    def _tell(self, trial: Trial, number: int) -> None:
        self._show(f"block {number}: {trial.test}: {trial.state}")
