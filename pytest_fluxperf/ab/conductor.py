"""The order of turns, blocks and tests: who works when, and when enough is known.

Everything happens in one thread, and a child works only while it is asked for its next message: two processes are never
at work at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from filelock import FileLock

from pytest_fluxperf.ab.process import Side, SideFailed
from pytest_fluxperf.ab.protocol import (
    Collected,
    Finished,
    Generated,
    Go,
    Measured,
    Plan,
    Prepared,
    Skip,
    tolerant,
)
from pytest_fluxperf.ab.stage import _until_terminated, fits, trace_folder
from pytest_fluxperf.ab.trial import Terms, Trial, _slower
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.interleaved import (
    ABBA_PASSES,
    MOST_BLOCKS,
    MOST_CONFIRMED,
    judge_blocks,
)
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.pipelines.out_of_memory import SHORT
from pytest_fluxperf.results import TRACES, Block, Result


class Conductor:
    """Runs a comparison; ``show`` is told of its progress, a line at a time."""

    def __init__(self, terms: Terms, show: Callable[[str], None] = lambda _: None) -> None:
        self._terms = terms
        self._show = show
        self._trials: list[Trial] = []
        self._current: Trial | None = None
        self._held: dict[str, float] = {}
        self.collected: Collected | None = None
        """What the new environment (or, where it has no test, the old one) said of device and model."""
        self.ended: str | None = None
        """Why the comparison ended before all was compared."""
        self._profile_all = False
        self._lost: list[str] = []
        """Processes that were lost in a profile; what they had measured was not."""

    def run(self, tests: Sequence[str] | None = None) -> list[Trial]:
        """Compare ``tests`` (the worst suspect first), or all that are collected.

        A child that dies, hangs or speaks gibberish ends it; the test at hand fails then, the others are left as they
        stand. Raises FluxPerfError when nothing could be begun.
        """
        self._terms.folder.mkdir(parents=True, exist_ok=True)
        if tests is not None:
            self._trials = [Trial(test) for test in tests]
        try:
            with _until_terminated():
                self._compare()
        except SideFailed as error:
            if self._current is None:
                raise
            self._current.fail("broken" if error.name == "new" else "invalid", str(error))
            self.ended = str(error)
        return self._trials

    def _compare(self) -> None:
        for number in range(1, MOST_BLOCKS + 1):
            if number == 1 or self._open(alternating=False):
                self._interleave(number, first=number == 1)
        for number in range(1, MOST_BLOCKS + 1):
            if self._open(alternating=True):
                self._alternate(number)
        if self._lost and any(trial.open for trial in self._trials):
            self.ended = self._lost[0]

    # -- generations in turns ------------------------------------------------------------------------------

    def _interleave(self, number: int, *, first: bool) -> None:
        """A block: a fresh pair of processes over everything that is open."""
        with self._process("old", str(number)) as old, self._process("new", str(number)) as new:
            found_old, found_new = self._greeted(old, new)
            if first:
                self._begin(found_old, found_new)
                if self._terms.mode == "alternating":
                    for trial in self._trials:  # what the old one lacks is measured here, by the new one alone
                        if trial.test in found_old.tests:
                            trial.alternate("as asked for")
            with self._device(found_new):
                plan = [trial for trial in self._open(alternating=False) if trial.test in found_new.tests]
                both = {trial.test for trial in plan if trial.test in found_old.tests}
                self._plan(old, [trial for trial in plan if trial.test in both], new.group)
                self._plan(new, plan, old.group)
                self._held = {"old": 0.0, "new": 0.0}
                for trial in plan:
                    if self._enough():
                        break
                    self._current = trial
                    if trial.test in both:
                        self._pairs(trial, old, new)
                    else:
                        reason = found_old.why_not(trial.test)
                        trial.fail("no baseline", f"the old environment cannot run it: {reason}")
                        trial.take("new", self._drive(new, trial))
                    self._tell(trial, number)
                    if old.lost or new.lost:  # the next block goes on with fresh ones
                        break
                self._current = None

    def _greeted(self, *sides: Side) -> list[Collected]:
        """Both are understood before either collects, and have collected before either measures."""
        for side in sides:
            side.greet()
        return [side.collect() for side in sides]

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

    def _pairs(self, trial: Trial, old: Side, new: Side) -> None:
        """One test: both warm up, then they take turns AB BA AB ..."""
        warm = old.ask(Go())
        if isinstance(warm, Finished):
            if not self._no_room(trial, warm, new):
                self._old_cannot(trial, warm, lambda: self._drive(new, trial))
            return
        assert isinstance(warm, Prepared)
        if self._terms.mode == "auto" and not fits(warm, self._held["new"]):
            trial.alternate(
                f"two copies do not fit in memory: the old environment's holds {warm.held_mib:.0f} MiB, and "
                f"{warm.free_mib + self._held['new']:.0f} MiB are there for the new one's"
            )
            for side in (old, new):
                self._leave(side, trial.reason)
            return
        ready = new.ask(Go())
        if isinstance(ready, Finished):
            if self._no_room(trial, ready, old):
                return
            self._new_cannot(trial, ready)
            known = self._drive(old, trial)  # what was lost is shown, and is a failure, not a skip
            trial.take("old", known)
            self._held["old"] = known.held_mib
            return
        assert isinstance(ready, Prepared)
        if warm.workload != ready.workload or warm.generations != ready.generations:
            trial.fail("no baseline", "the two environments were asked for different pictures")
            for side in (old, new):
                self._leave(side, "no comparison is possible")
            return
        seconds: dict[str, list[float]] = {"old": [], "new": []}
        for pair in range(warm.generations):
            for side in (old, new) if pair % 2 == 0 else (new, old):
                made = side.ask(Go())
                if isinstance(made, Generated):
                    seconds[side.name].append(made.latency_s)
                    continue
                assert isinstance(made, Finished)
                if self._no_room(trial, made, new if side is old else old):
                    return
                if side is old:
                    self._old_cannot(trial, made, lambda: self._drive(new, trial))
                else:
                    self._new_cannot(trial, made)
                    self._leave(old, "the new environment failed")
                return
        policy = trial.policy if ready.policy is None else tolerant(ready.policy, Policy)
        block = Block(old_s=tuple(seconds["old"]), new_s=tuple(seconds["new"]))
        regressed = judge_blocks([*trial.blocks, block], policy).finding.verdict == "regressed"
        profile = regressed or (self._profile_all and not trial.blocks)
        done = {side.name: self._drive(side, trial, profile=profile) for side in (old, new)}
        self._held |= {name: finished.held_mib for name, finished in done.items()}
        before, after = trial.take("old", done["old"]), trial.take("new", done["new"])
        if after is None and before is None:
            trial.fail("broken", f"neither environment can run it: {self._why(done['new'])}")
        elif after is None:
            self._new_cannot(trial, done["new"], taken=True)
        elif before is None:
            self._old_cannot(trial, done["old"])
        else:
            self._judge(trial, [before], [after])

    def _no_room(self, trial: Trial, done: Finished, other: Side) -> bool:
        """Whether a side lacked the memory that the other one holds; then whole processes take turns."""
        if self._terms.mode != "auto" or SHORT not in (why := self._why(done)):
            return False
        trial.alternate(f"beside the {other.name} environment's copy {why}")
        self._leave(other, trial.reason)
        return True

    # -- whole processes in turns --------------------------------------------------------------------------

    def _alternate(self, number: int) -> None:
        """A block of four fresh processes, old, new, new, old, over everything that is open and does not fit twice.

        The second ones profile what the first ones saw slower: none of them knows the verdict.
        """
        unreached: set[str] = set()
        cannot: dict[str, Finished] = {}  # what the first old process said of tests it did not measure
        plan = self._open(alternating=True)
        done: dict[str, dict[str, list[Result]]] = {trial.test: {"old": [], "new": []} for trial in plan}
        for label, name in (("a", "old"), ("a", "new"), ("b", "new"), ("b", "old")):
            with self._process(name, f"{number}{label}-alone") as side:
                (found,) = self._greeted(side)
                with self._device(found):
                    here = [t for t in plan if t.open and t.test in found.tests and t.test not in unreached]
                    self._plan(side, here)
                    for at, trial in enumerate(here):
                        self._current = trial
                        if name == "new" and trial.test in cannot:
                            self._old_cannot(trial, cannot.pop(trial.test), partial(self._drive, side, trial))
                            continue
                        sides = done[trial.test]
                        wanted = self._profile_all and number == 1
                        wanted = wanted or _slower(sides["old"], sides["new"], trial.policy)
                        profile = wanted and label == "b"
                        finished = self._drive(side, trial, profile=profile)
                        result = trial.take(name, finished)
                        if result is not None:
                            sides[name].append(result)
                        elif name == "new":
                            self._new_cannot(trial, finished, taken=True)
                        elif label == "a":
                            cannot[trial.test] = finished
                        else:
                            self._old_cannot(trial, finished)
                        if side.lost:
                            unreached |= {t.test for t in here[at + 1 :]}
                            break
                    self._current = None
        for trial in plan:
            if not trial.trouble and not trial.skipped:
                sides = done[trial.test]
                if len(sides["old"]) == len(sides["new"]) == ABBA_PASSES:
                    self._judge(trial, sides["old"], sides["new"])
                elif trial.test not in unreached:
                    trial.fail("no baseline", "the old environment cannot run it: it has no such test")
            self._tell(trial, number)

    # -- what both have in common --------------------------------------------------------------------------

    @contextmanager
    def _process(self, name: str, label: str) -> Iterator[Side]:
        terms = self._terms
        python = terms.old if name == "old" else terms.new
        side = Side(name, label, python, terms.arguments, terms.folder, terms.timeout_s)
        try:
            with side:
                yield side
        finally:  # also of one that died: what was compared before is reported
            self._keep_files(side)

    def _keep_files(self, side: Side) -> None:
        """Move a side's pictures, which are named by their content, and its traces to the comparison's own."""
        images = self._terms.folder / "images"
        images.mkdir(exist_ok=True)
        for picture in (side.folder / "images").glob("*"):
            picture.replace(images / picture.name)
        traces = self._terms.folder / trace_folder(side.run)
        if (side.folder / TRACES).is_dir():
            traces.parent.mkdir(exist_ok=True)
            (side.folder / TRACES).replace(traces)
        shutil.rmtree(side.folder, ignore_errors=True)

    @contextmanager
    def _device(self, found: Collected) -> Iterator[None]:
        with ExitStack() as stack:
            if found.lock:
                stack.enter_context(FileLock(found.lock))
            yield

    def _plan(self, side: Side, trials: Sequence[Trial], *companions: int) -> None:
        compared = tuple(trial.test for trial in trials if trial.of(side.name))
        side.plan(
            Plan(
                tests=tuple(trial.test for trial in trials),
                least_pairs=self._terms.least_pairs,
                # a version that does not know what was compared compares all again, so it is asked only when it must
                quality=self._terms.quality and len(compared) < len(trials),
                compared=compared,
                companions=(*self._terms.companions, *companions),
            )
        )

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

    def _judge(self, trial: Trial, old: Sequence[Result], new: Sequence[Result]) -> None:
        for result in (*new, *old):
            if result.measurement.unfit:
                trial.fail("invalid", result.measurement.unfit[0])
                return
        before, after = (
            tuple(made.latency_s for result in side for made in result.measurement.generations) for side in (old, new)
        )
        trial.blocks.append(Block(old_s=before, new_s=after))
        trial.interleaved = judge_blocks(trial.blocks, trial.policy, alternating=trial.alternating)

    def _drive(self, side: Side, trial: Trial, *, profile: bool = False) -> Finished:
        """Let a side run its test to the end without turns; one that is lost in the profile has finished before."""
        measured: Measured | None = None
        while True:
            try:
                message = side.ask(Go(profile=profile))
            except SideFailed as error:
                if measured is None:
                    raise
                side.lost = True
                self._lost.append(str(error))
                trial.notes.append(f"not profiled: {error}")
                return Finished(
                    test=measured.test,
                    result=measured.result,
                    policy=measured.policy,
                    environment=measured.environment,
                )
            if isinstance(message, Finished):
                if message.unprofiled:
                    trial.notes.append(f"the {side.name} environment could not be profiled: {message.unprofiled}")
                return message
            if isinstance(message, Measured):
                measured = message

    def _leave(self, side: Side, reason: str) -> None:
        """Have a side leave its current test, or its next one."""
        done = side.ask(Skip(reason=reason))
        assert isinstance(done, Finished)
        self._held[side.name] = done.held_mib

    def _old_cannot(self, trial: Trial, done: Finished, run_new: Callable[[], Finished] | None = None) -> None:
        """The old environment has no whole measurement: the new one is measured alone, with nothing to compare."""
        trial.fail("no baseline", f"the old environment cannot run it: {self._why(done)}")
        if run_new is None:
            return
        finished = run_new()
        if trial.take("new", finished) is not None:
            return
        if done.skipped and finished.skipped:
            trial.trouble, trial.skipped = None, finished.skipped
        else:
            trial.fail("broken", f"neither environment can run it: {self._why(finished)}")

    def _new_cannot(self, trial: Trial, done: Finished, *, taken: bool = False) -> None:
        if not taken:
            trial.take("new", done)
        trial.fail("broken", f"the old environment runs it, the new one does not: {self._why(done)}")

    @staticmethod
    def _why(done: Finished) -> str:
        """What a side said of a test that it did not measure."""
        if done.result is not None:
            problems = tolerant(done.result, Result).measurement.problems
            return str(problems[0]) if problems else "it compiled anew while it was measured"
        return done.skipped or done.failed or "no measurement"

    def _tell(self, trial: Trial, number: int) -> None:
        if trial.trouble:
            said = f"{trial.trouble.verdict}: {trial.trouble.message}"
        elif trial.skipped:
            said = f"skipped: {trial.skipped}"
        elif trial.interleaved:
            found = trial.interleaved.finding
            verdict = "undecided" if trial.interleaved.another_block else found.verdict
            said = f"{verdict}: {found.message}"
        else:
            said = f"whole processes will alternate: {trial.reason}"
        self._show(f"block {number}: {trial.test}: {said}")
