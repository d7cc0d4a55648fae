"""The rule for times: the tests of a session judged together (docs/gate.md, section 1).

    session = judge_times([TimedTest(...), ...])
    session.tests[i]     # TimeVerdict of the i-th test: its own change, what was taken out, the decision
    session.common       # CommonShift of each process and card: what everything together did

Times enter as natural logarithms of seconds: of denoising and decoding where all runs have phases, else of the whole
latency; in relative mode of the latency over the reference's. An effect of 0.03 is 3 % more time.

What the tests of a process share (the card, the room, an upgrade that slows everything) is estimated for each test
from the others, taken out of it, and judged by itself. ``TimeVerdict.again`` asks for a second measurement of the test
in the same session; judged with it (``TimedTest.again``), the second measurement decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pytest_fluxperf.gate.spread import PINNED, common_shift, lower_median, scatter, settle, within_run
from pytest_fluxperf.gate.statistics import (
    PASS_CONFIDENCE,
    Array,
    Decision,
    Effect,
    median,
    robust_se,
    student_t_quantile,
)

Family = Literal["dense", "mid", "host", "speed-up"]

DENSE_BUSY, MID_BUSY = 0.98, 0.93
"""Share of the time in which the device computes, from which a test is dense, or mid; below, it waits for the host."""

TAU0: dict[Family, float] = {"dense": 0.0035, "mid": 0.006, "host": 0.025, "speed-up": 0.02}
"""Prior standard deviation between sessions of a test's own log time (recorded sessions, docs/gate.md)."""

NU0: dict[Family, float] = {"dense": 4.0, "mid": 4.0, "host": 4.0, "speed-up": 20.0}
"""Prior degrees of freedom of TAU0."""

WITHIN_NU0 = 4.0
"""Prior degrees of freedom of the noise within a run; its prior size is what the other tests of its family show, and
TAU0 at least."""

COMMON_TAU0 = 0.006
"""Prior standard deviation between sessions of what tests share, over cards of one kind."""

CARD_TAU0 = 0.003
"""The same on one card."""

UNKNOWN_TAU0 = 0.012
"""The same on a card that the baseline does not know: as far as cards of one kind were seen to differ."""

COMMON_NU0 = 8.0
"""Prior degrees of freedom of these three. What tests share that all wait for the host has their own TAU0."""

LEAST_SHARING = 4
"""Tests of a stored session from which what they share is estimated."""

LEAST_SPEED_UP_RUNS = 3
"""Stored sessions from which a slower speed-up fails: with fewer, one loaded session is the whole baseline."""

SLOW_PROMPT = math.log(1.05)
SLOW_PROMPT_SD = 5.0
"""Least change, and in standard deviations, of a prompt that is slower by itself."""

TEST_ERROR, COMMON_ERROR = 0.04, 0.01
"""What a session may fail wrongly: by any of its tests, and by what they share."""


@dataclass(frozen=True)
class StoredTimes:
    """One stored session of a test: log times (n,), prompts in the workload's order."""

    session: str
    card: str | None
    y: Array


@dataclass(frozen=True)
class TimedTest:
    """What was measured and what is stored of one test, and how much slower it may be."""

    test: str
    now: Array
    """Log times (n,); where prompts were measured in several rounds, each prompt's median over them."""
    stored: tuple[StoredTimes, ...]
    """One a session, in the order in which they were stored."""
    limit: float
    """``ln(1 + tolerance)``."""
    busy: float | None = None
    """Median over the stored runs of the share of time in which the device computed; None where unknown."""
    card: str | None = None
    """UUID of the card of ``now``."""
    process: str = ""
    """What measured it: tests of one process and card share what the session shares."""
    relative: bool = False
    """A speed-up: its reference beside it has taken out already what the session shares."""
    again: Array | None = None
    """The second measurement (n,) of this session, where there was one."""

    @property
    def family(self) -> Family:
        """How much such a test moves from session to session; one of unknown busy share is in the middle."""
        if self.relative:
            return "speed-up"
        if self.busy is None:
            return "mid"
        return "dense" if self.busy >= DENSE_BUSY else "mid" if self.busy >= MID_BUSY else "host"


@dataclass(frozen=True)
class TimeVerdict:
    """What the times of one test say."""

    test: str
    decision: Decision
    effect: Effect
    """The test's own change: what is shared is taken out."""
    common: float
    """What was taken out: ``effect.value + common`` is the whole change."""
    critical: float
    """Least own change that is called a regression; infinite where none may be."""
    slow_prompts: tuple[int, ...] = ()
    """Prompts (0-based) that are slower by far where the median over prompts does not show it."""
    again: bool = False
    """Whether a second measurement should confirm or refute what was seen."""


@dataclass(frozen=True)
class CommonShift:
    """What the tests of one process and card share."""

    process: str
    card: str | None
    decision: Decision
    effect: Effect
    critical: float
    """Least common change that is called a regression."""
    known_card: bool
    """Whether it was judged against stored runs of this very card."""
    tests: int
    """Tests in which it was looked for."""


@dataclass(frozen=True)
class SessionTimes:
    """Verdicts in the order of the tests, and what tests share, by process and card."""

    tests: tuple[TimeVerdict, ...]
    common: tuple[CommonShift, ...]


def judge_times(
    tests: Sequence[TimedTest], *, confidence: float = PASS_CONFIDENCE, m: int | None = None
) -> SessionTimes:
    """Judge all tests of a session. ``confidence`` is the one at which a test passes.

    ``m`` is the number of tests that the session judges where these are a part of them.
    Raises ValueError where a test has no stored session or one of another number of prompts.
    """
    pools: dict[tuple[str, str | None], list[int]] = {}
    for i, test in enumerate(tests):
        pools.setdefault((f"{test.process}/{i}" if test.relative else test.process, test.card), []).append(i)
    verdicts: dict[int, TimeVerdict] = {}
    shared: list[CommonShift] = []
    for members in pools.values():
        pool = _Pool([tests[i] for i in members], m or len(tests), confidence)
        verdicts.update(zip(members, pool.verdicts(), strict=True))
        if pool.common is not None:
            shared.append(pool.common)
    return SessionTimes(tuple(verdicts[i] for i in range(len(tests))), tuple(shared))


# One test against its stored runs -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Estimate:
    """The whole change of one test, and what is known of its noise."""

    value: float
    sd: float
    df: int
    tau: float
    prompts: Array
    """The whole change of each prompt (n,)."""
    prompt_sd: float


@dataclass(frozen=True)
class _Stored:
    """What the stored sessions of one test say by themselves."""

    runs: Array
    """(R, n)."""
    centres: Array
    """Of the prompts (n,): medians over the sessions."""
    levels: Array
    """Of the sessions (R,): medians over the prompts of the deviations from their centres."""
    within: tuple[float, float]
    """Noise within a run, today's included, and its degrees of freedom."""

    @classmethod
    def of(cls, test: TimedTest) -> _Stored:
        """Raises ValueError where there is no stored session, or one of another number of prompts."""
        runs = np.array([stored.y for stored in test.stored], dtype=float)
        if runs.ndim != 2 or not runs.size or runs.shape[1:] != np.shape(test.now):
            raise ValueError(f"{test.test}: stored runs of {np.size(test.now)} prompts are needed, not {runs.shape}")
        centres: Array = median(runs, axis=0)
        return cls(runs, centres, median(runs - centres, axis=1), within_run(np.vstack([runs, test.now])))

    @property
    def pinned(self) -> float:
        """Where the test belongs."""
        return lower_median(self.levels[:PINNED])


def _estimate(test: TimedTest, now: Array, stored: _Stored, levels: Array, within0: float) -> _Estimate:
    """The change of ``now`` (n,) from stored ``levels`` (R,); ``within0`` is the prior noise within a run."""
    tau0, nu0 = TAU0[test.family], NU0[test.family]
    centre, variance = settle(levels, tau0, nu0)
    count, n = len(levels), now.size
    within, within_df = stored.within
    within = math.sqrt((WITHIN_NU0 * within0**2 + within_df * within**2) / (WITHIN_NU0 + within_df))
    # Of a median, and of the stored sessions' centres from which it is taken.
    pooled = within * math.sqrt((math.pi / 2 if n > 2 else 1.0) / n * (1 + 1 / count))
    between, se2 = variance * (1 + 1 / count), max(pooled, robust_se(now - stored.centres)) ** 2
    # Satterthwaite's degrees of freedom of a sum of two variances.
    df = (between + se2) ** 2 / (between**2 / (nu0 + count - 1) + se2**2 / (WITHIN_NU0 + within_df))
    return _Estimate(
        value=float(median(now - stored.centres)) - centre,
        sd=math.sqrt(between + se2),
        df=max(1, int(df)),
        tau=math.sqrt(variance),
        prompts=now - stored.centres - centre,
        prompt_sd=math.sqrt(within**2 * (1 + 1 / count) + variance),
    )


# What tests share ----------------------------------------------------------------------------------------


class _Pool:
    """Tests of one process and card."""

    def __init__(self, tests: Sequence[TimedTest], m: int, confidence: float) -> None:
        self.tests = tests
        self.m = m
        self.confidence = confidence
        self.stored = [_Stored.of(test) for test in tests]
        self.device = [i for i, test in enumerate(tests) if test.family in ("dense", "mid")]
        self.levels = self._without_session_shifts()
        self.within0 = self._usual_within()
        self.estimates = [self._estimate(i, test.now) for i, test in enumerate(tests)]
        self.values = np.array([estimate.value for estimate in self.estimates])
        self.scales = np.array([estimate.sd for estimate in self.estimates])
        runs = float(median([len(levels) for levels in self.levels]))
        tau0 = COMMON_TAU0 if self.device else TAU0["host"]
        _, variance = settle(np.array([*self.sessions.values()] or [0.0]), tau0, COMMON_NU0)
        self.prior = math.sqrt(variance * (1 + 1 / runs))
        self.scales *= scatter(self.values, self.scales, self.prior)
        self.common = None if tests[0].relative else self._common()

    def _without_session_shifts(self) -> list[Array]:
        """Levels (R,) of each test's stored sessions, without what the tests of such a session share."""
        shifts: dict[str, list[float]] = {}
        for test, one in zip(self.tests, self.stored, strict=True):
            for session, level in zip(test.stored, one.levels, strict=True):
                shifts.setdefault(session.session, []).append(float(level) - one.pinned)
        self.sessions = {s: float(median(v)) for s, v in shifts.items() if len(v) >= LEAST_SHARING}
        return [
            one.levels - np.array([self.sessions.get(session.session, 0.0) for session in test.stored])
            for test, one in zip(self.tests, self.stored, strict=True)
        ]

    def _usual_within(self) -> dict[Family, float]:
        """Prior noise within a run by family: what half of its tests exceed."""
        found: dict[Family, list[float]] = {}
        for test, stored in zip(self.tests, self.stored, strict=True):
            found.setdefault(test.family, []).append(stored.within[0])
        return {family: max(TAU0[family], float(median(sds))) for family, sds in found.items()}

    def _estimate(self, i: int, now: Array) -> _Estimate:
        test = self.tests[i]
        return _estimate(test, now, self.stored[i], self.levels[i], self.within0[test.family])

    def _common(self) -> CommonShift:
        """What the tests share, against stored runs of this very card where most tests have some.

        Looked for in the tests that keep the device busy, where there are any.
        """
        device = self.device or list(range(len(self.tests)))
        here = [i for i in device if self._card_is_known(i)]
        known = 2 * len(here) >= len(device)
        chosen = here if known else device
        tau0 = (CARD_TAU0 if known else UNKNOWN_TAU0) if self.device else TAU0["host"]
        values, runs = [], []
        sessions: dict[str, None] = {}
        for i in chosen:
            test, stored = self.tests[i], self.stored[i]
            same = [k for k, s in enumerate(test.stored) if not known or s.card == test.card]
            centre, _ = settle(stored.levels[same], math.hypot(tau0, self.estimates[i].tau), COMMON_NU0)
            values.append(float(median(test.now - stored.centres)) - centre)
            sessions.update({test.stored[k].session: None for k in same})
            runs.append(len(same))
        shared = [self.sessions[session] for session in sessions if session in self.sessions]
        _, variance = settle(np.array(shared or [0.0]), tau0, COMMON_NU0)
        between = 1 + 1 / float(median(runs))
        shift, sd = common_shift(np.array(values), self.scales[chosen], max(tau0, UNKNOWN_TAU0) * math.sqrt(between))
        df = int(COMMON_NU0) + max(1, len(shared)) - 1
        effect = Effect(shift, math.sqrt(variance * between + sd**2), df, math.sqrt(variance))
        limit = float(median([self.tests[i].limit for i in chosen]))
        critical = max(limit, student_t_quantile(1 - COMMON_ERROR, effect.df) * effect.se)
        decision: Decision = "passed" if shift <= limit else "inconclusive"
        if abs(shift) > critical:
            decision = "regressed" if shift > 0 else "improved"
        first = self.tests[0]
        return CommonShift(first.process, first.card, decision, effect, critical, known, len(chosen))

    def _card_is_known(self, i: int) -> bool:
        card = self.tests[i].card
        return card is not None and any(stored.card == card for stored in self.tests[i].stored)

    def _taken_out(self, i: int) -> tuple[float, float]:
        """What is taken out of test i, and its standard deviation: what the others share, if weather can do that."""
        if self.tests[i].relative:
            return 0.0, 0.0
        if self.common is not None and abs(self.common.effect.value) > self._weather:
            return 0.0, self.prior
        return common_shift(np.delete(self.values, i), np.delete(self.scales, i), self.prior)

    @property
    def _weather(self) -> float:
        """The most that is taken out of tests."""
        assert self.common is not None
        if self.common.known_card or not self.device:
            return self.common.critical
        return float(median([test.limit for test in self.tests]))

    def verdicts(self) -> list[TimeVerdict]:
        taken = [self._taken_out(i) for i in range(len(self.tests))]
        faster = self._others_are_faster(taken)
        found = []
        for i, test in enumerate(self.tests):
            verdict = self._verdict(i, self.estimates[i], taken[i], faster)
            if test.again is not None:
                second = self._verdict(i, self._estimate(i, test.again), taken[i], faster)
                verdict = _confirmed(verdict, second, test, faster)
            found.append(verdict)
        return found

    def _others_are_faster(self, taken: Sequence[tuple[float, float]]) -> bool:
        """Whether several tests are slower than the others alone: then it is the others that got faster."""
        behind = 0
        for test, value, scale, (shift, sd) in zip(self.tests, self.values, self.scales, taken, strict=True):
            own = value - shift
            behind += bool(value <= test.limit < own and own > 2 * math.hypot(scale, sd))
        return behind > 1

    def _verdict(self, i: int, estimate: _Estimate, taken: tuple[float, float], faster: bool) -> TimeVerdict:
        """Where the others are ``faster``, a test must be slower than its tolerance as it stands, too, to fail.

        And by as much more as the others got faster than sessions usually differ.
        """
        test, (shift, shift_sd) = self.tests[i], taken
        widened = float(self.scales[i]) / self.estimates[i].sd
        sd = widened * estimate.sd
        effect = Effect(estimate.value - shift, math.hypot(sd, shift_sd), estimate.df, widened * estimate.tau)
        t = student_t_quantile(1 - TEST_ERROR / self.m, effect.df)
        critical = max(test.limit, t * effect.se)
        if faster:
            critical = max(critical, test.limit + max(0.0, -shift - self.prior) - shift)
        if test.relative and len(test.stored) < LEAST_SPEED_UP_RUNS:
            critical = math.inf
        decision: Decision = "inconclusive"
        if effect.value > critical and estimate.value > 0:
            decision = "regressed"
        elif effect.value < -max(test.limit, t * effect.se):
            decision = "improved"
        elif effect.interval(self.confidence)[1] < test.limit:
            decision = "passed"
        slow = () if decision == "regressed" else _slow_prompts(estimate, shift, widened, test.limit)
        if slow:
            decision = "inconclusive"
        suspect = bool(slow) or (decision in ("regressed", "inconclusive") and effect.value > test.limit)
        return TimeVerdict(test.test, decision, effect, shift, critical, slow, again=suspect)


def _slow_prompts(estimate: _Estimate, shift: float, widened: float, limit: float) -> tuple[int, ...]:
    """Prompts that are slower by themselves: two or more (of three, one), and the mean over all beyond the limit."""
    own = estimate.prompts - shift
    slow = np.flatnonzero(own > max(SLOW_PROMPT, SLOW_PROMPT_SD * widened * estimate.prompt_sd))
    return tuple(int(i) for i in slow) if len(slow) >= _least_slow(own.size) and float(own.mean()) > limit else ()


def _least_slow(prompts: int) -> int:
    return max(1, min(2, prompts // 2))


def _confirmed(first: TimeVerdict, second: TimeVerdict, test: TimedTest, faster: bool) -> TimeVerdict:
    """The second measurement decides; what both show is a regression, also where each alone is not beyond chance.

    That is: a change beyond the tolerance at 95 % each (unless the others are ``faster``), or the same slow prompts.
    """
    slow = tuple(i for i in first.slow_prompts if i in second.slow_prompts)
    partly = len(slow) >= _least_slow(test.now.size)
    beyond = not faster and all(verdict.effect.interval()[0] > test.limit for verdict in (first, second))
    decision = second.decision
    if (partly or beyond) and math.isfinite(second.critical):
        decision = "regressed"
    elif second.slow_prompts and second.effect.interval()[1] < test.limit:
        decision = "passed"  # other prompts than the first time: outliers, and the median knows of none
    return replace(second, decision=decision, slow_prompts=slow if partly else (), again=False)
