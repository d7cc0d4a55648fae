"""What the gate's rule sees and how often it cries wolf, against rules in use elsewhere.

    python benchmarks/gate_power.py --short     # what the rule for times sees, its dangers, the CPU (docs/gate.md)
    python benchmarks/gate_power.py --quick     # every table, from fewer sessions
    python benchmarks/gate_power.py             # every table

Latencies are simulated; every verdict of ours comes from ``pytest_fluxperf.gate`` itself. A session has
30 configurations: 20 plain recipes (8 prompts that take the same time) and 10 with a step cache (20 prompts whose
times have several modes). Between sessions a configuration's time shifts by a normal deviate of standard deviation
tau, half of its variance common to the session. Within a run there is noise, a slow drift, and now and then a spike.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pytest_fluxperf.baseline import published
from pytest_fluxperf.baseline.codec import decode
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.gate.session_times import stored_times
from pytest_fluxperf.gate.statistics import (
    PASS_CONFIDENCE,
    PASS_CONFIDENCE_AB,
    ab_decide,
    pooled_tail,
)
from pytest_fluxperf.gate.times import StoredTimes, TimedTest, judge_times
from pytest_fluxperf.gate.verdict import another_round
from pytest_fluxperf.results import Finding, Judgement

Array = npt.NDArray[np.float64]
LIMIT = Policy().limit
PLAIN, CACHED = 20, 10
M = PLAIN + CACHED
ALL = M
"""Stands for all configurations together."""
CARD = "GPU-0"
BIG = 50  # prompts of the rules in use elsewhere


# Noise ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noise:
    """Of log latency. The defaults lie where the published tables and FLUX.1-dev's recipes on an H200 lie."""

    tau: float = 0.005
    """Between sessions."""
    within: float = 0.0035
    """Between generations of a run."""
    drift: float = 0.001
    """From the first to the last generation of a run (clocks settling), sign at random."""
    spikes: float = 0.005
    """Share of generations that take 5 to 40 % longer."""
    process: float = 0.003
    """Between fresh processes of one session (autotuning picks, where memory lies)."""
    host_bound: int = 0
    """Configurations, the last ones, whose noise is :data:`HOST_BOUND` instead."""
    host_tolerance: float = 0.02
    """Of those."""


HOST_BOUND = Noise(tau=0.02, within=0.009, process=0.013)
"""Of short generations whose device waits for the host: FP8 with compiled blocks and a step cache on an H200."""

PROFILES = {
    "steady": Noise(within=0.001, drift=0.0, spikes=0.0, process=0.0015),
    "usual": Noise(),
    "as the A/B on an H200": Noise(within=0.0076),
    "noisy": Noise(within=0.01, drift=0.003, spikes=0.02),
    "drifting": Noise(drift=0.01),
    "usual, 4 of 30 host-bound": Noise(tau=0.007, host_bound=4),
    "the same, their tolerance 6 %": Noise(tau=0.007, host_bound=4, host_tolerance=0.06),
}


def centres(cached: bool, n: int, rng: np.random.Generator) -> Array:
    """Log time of each prompt: one mode, or as many as a cache has numbers of computed steps."""
    modes: Array = np.log(rng.choice([9, 11, 12, 14, 16], n) / 12)
    return modes if cached else np.zeros(n)


def generations(noise: Noise, n: int, rng: np.random.Generator) -> Array:
    """Deviations (n,) of one run from its own level."""
    x = noise.within * rng.standard_normal(n)
    x += noise.drift * rng.choice([-1, 1]) * np.linspace(-0.5, 0.5, n)
    return x + np.where(rng.random(n) < noise.spikes, np.log1p(rng.uniform(0.05, 0.4, n)), 0.0)


def session_shifts(noise: Noise, rng: np.random.Generator) -> Array:
    """The shift (M,) of each configuration in one session."""
    tau = np.where(np.arange(M) < M - noise.host_bound, noise.tau, HOST_BOUND.tau)
    shifts: Array = tau * (math.sqrt(0.5) * rng.standard_normal() + math.sqrt(0.5) * rng.standard_normal(M))
    return shifts


@dataclass(frozen=True)
class Case:
    """What is simulated: the noise, and which configuration is slower by how much."""

    noise: Noise
    target: int = -1
    slower: float = 0.0
    configurations: Sequence[int] = range(M)
    noise_now: Noise | None = None
    """Within the runs of today, where it differs from the baseline's."""

    def noise_of(self, configuration: int) -> Noise:
        """The noise of a configuration within a run and between processes."""
        return HOST_BOUND if configuration >= M - self.noise.host_bound else self.noise

    def limit(self, configuration: int) -> float:
        """Its tolerance, of log latency."""
        return math.log1p(self.noise.host_tolerance) if self.noise_of(configuration) is HOST_BOUND else LIMIT

    def change(self, configuration: int) -> float:
        """True change of log latency."""
        return math.log1p(self.slower) if configuration == self.target else 0.0


@dataclass(frozen=True)
class Session:
    """What a gate sees: per configuration log latencies now (n,) and of the baseline's runs (R, n)."""

    now: list[Array]
    runs: list[Array]


def simulate(case: Case, runs: int, rng: np.random.Generator, n: int | None = None) -> Session:
    """One session of a gate that keeps ``runs`` stored runs, each of ``n`` prompts (8, with a cache 20)."""
    stored = [session_shifts(case.noise, rng) for _ in range(runs)]
    here = session_shifts(case.noise, rng)
    now, base = [], []
    for c in case.configurations:
        count = n or (20 if c >= PLAIN else 8)
        centre, noise = centres(c >= PLAIN, count, rng), case.noise_of(c)
        base.append(np.array([centre + shift[c] + generations(noise, count, rng) for shift in stored]))
        now.append(centre + here[c] + case.change(c) + generations(case.noise_now or noise, count, rng))
    return Session(now, base)


# Gates: each returns (configurations that fail, generations measured) --------------------------------------

Gate = Callable[[Case, np.random.Generator], tuple[set[int], int]]


def stage_one(runs: int, n: int | None = None) -> Gate:
    """Ours against the stored baseline, no old environment at hand."""

    def gate(case: Case, rng: np.random.Generator) -> tuple[set[int], int]:
        session = simulate(case, runs, rng, n)
        failed = {c for c, verdict in verdicts(case, session) if verdict == "regressed"}
        return failed, sum(x.size for x in session.now)

    return gate


def stage_two(runs: int, confidence: float = PASS_CONFIDENCE_AB, m: int = M) -> Gate:
    """Ours with the old environment at hand: what stage one does not pass is interleaved.

    Other values of ``confidence``, at which stage one passes, and ``m``, by which a comparison's chance to fail is
    divided, are what was considered and not chosen.
    """

    def gate(case: Case, rng: np.random.Generator) -> tuple[set[int], int]:
        session = simulate(case, runs, rng)
        cost, failed = sum(x.size for x in session.now), set()
        for c, verdict in verdicts(case, session, confidence):
            if verdict in ("passed", "improved") or c == ALL:
                continue
            blocks: list[Array] = []
            while True:
                blocks.append(interleaved(case.noise_of(c), case.change(c), rng))
                cost += 2 * blocks[-1].size
                if (found := ab_decide(blocks, case.limit(c), m).decision) != "next block":
                    break
            if found == "regressed":
                failed.add(c)
        return failed, cost

    return gate


def verdicts(case: Case, session: Session, confidence: float = PASS_CONFIDENCE) -> Iterator[tuple[int, str]]:
    """The decision of the rule for times on each configuration, and on all together (ALL)."""
    tests = []
    for c, now, runs in zip(case.configurations, session.now, session.runs, strict=True):
        stored = tuple(StoredTimes(str(r), CARD, run) for r, run in enumerate(runs))
        busy = 0.8 if case.noise_of(c) is HOST_BOUND else 0.99
        tests.append(TimedTest(str(c), now, stored, case.limit(c), busy=busy, card=CARD))
    judged = judge_times(tests, confidence=confidence)
    yield from ((c, verdict.decision) for c, verdict in zip(case.configurations, judged.tests, strict=True))
    yield from ((ALL, common.decision) for common in judged.common)


def interleaved(noise: Noise, change: float, rng: np.random.Generator, pairs: int = 8) -> Array:
    """Paired differences (pairs,) of one block in order AB BA AB ...: the drift runs over all of its generations."""
    x = generations(noise, 2 * pairs, rng).reshape(pairs, 2)
    x[1::2] = x[1::2, ::-1]
    first, second = noise.process * rng.standard_normal(2)
    difference: Array = x[:, 1] - x[:, 0] + second - first + change
    return difference


def elsewhere(rule: Callable[[Array, Array], bool]) -> Gate:
    """A rule on 50 prompts now against 50 of one stored run, in seconds."""

    def gate(case: Case, rng: np.random.Generator) -> tuple[set[int], int]:
        session = simulate(case, 1, rng, BIG)
        pairs = zip(case.configurations, session.now, session.runs, strict=True)
        return {c for c, now, runs in pairs if rule(np.exp(now), np.exp(runs[0]))}, BIG * len(session.now)

    return gate


def rank_probability(now: Array, base: Array) -> float:
    """One-sided Mann-Whitney: probability of ranks as high as now's if nothing changed (normal approximation)."""
    less = np.searchsorted(np.sort(base), now, "left") + np.searchsorted(np.sort(base), now, "right")
    u = float(less.sum()) / 2
    n, m = now.size, base.size
    z = (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
    return 0.5 * math.erfc(z / math.sqrt(2))


def mean_probability(now: Array, base: Array) -> float:
    """Two-sided Welch test of the means (normal approximation), close to criterion's bootstrap at n = 50."""
    z = (now.mean() - base.mean()) / math.sqrt(now.var(ddof=1) / now.size + base.var(ddof=1) / base.size)
    return math.erfc(abs(z) / math.sqrt(2))


GATES: dict[str, Gate] = {
    "ours, 1 stored run": stage_one(1),
    "ours, 3 stored runs": stage_one(3),
    "ours, 3 stored runs + A/B": stage_two(3),
    "ours, 5 stored runs + A/B": stage_two(5),
    "mean +5 %": elsewhere(lambda a, b: bool(a.mean() > 1.05 * b.mean())),
    "mean +2 %": elsewhere(lambda a, b: bool(a.mean() > 1.02 * b.mean())),
    "p50 or p90 +2 %": elsewhere(
        lambda a, b: bool(np.median(a) > 1.02 * np.median(b) or np.quantile(a, 0.9) > 1.02 * np.quantile(b, 0.9))
    ),
    "Mann-Whitney p < .05": elsewhere(lambda a, b: rank_probability(a, b) < 0.05),
    "asv: factor 1.1 and p < .002": elsewhere(
        lambda a, b: bool(np.median(a) > 1.1 * np.median(b)) and rank_probability(a, b) < 0.002
    ),
    "criterion: +1 % and p < .05": elsewhere(
        lambda a, b: bool(a.mean() > 1.01 * b.mean()) and mean_probability(a, b) < 0.05
    ),
}


@dataclass(frozen=True)
class Power:
    """Over many simulated sessions."""

    any_failed: float
    """Share of sessions in which an unchanged configuration failed."""
    caught: float
    """Share of sessions in which the slowed configuration failed."""
    cost: float
    """Generations per configuration."""


def power(gate: Gate, noise: Noise, change: float, sessions: int, seed: int) -> Power:
    """Simulate ``sessions`` in which one configuration, plain or cached, is slower by ``change``."""
    rng = np.random.default_rng(seed)
    wrong = caught = cost = 0
    for s in range(sessions):
        target = (0 if s % 3 else PLAIN) if change else -1
        failed, measured_count = gate(Case(noise, target, change), rng)
        wrong += bool(failed - {target})
        caught += target in failed
        cost += measured_count
    return Power(wrong / sessions, caught / sessions, cost / sessions / M)


# Whole sessions: what is seen, and the dangers ------------------------------------------------------------


@dataclass(frozen=True)
class Danger:
    """Sessions of one kind. Fractions; standard deviations of log time."""

    slower: float = 0.0
    share: int = 0
    """Tests that are slower by so much."""
    tests: int = M
    runs: int = 3
    prompts: int = 8
    common: float = 0.005
    """Between sessions, of all tests of a card."""
    own: float = 0.0035
    """Between sessions, of a test."""
    within: float = 0.0035
    spikes: float = 0.005
    known: bool = True
    """Whether the stored runs are of today's card."""
    card: float = 0.0
    """By how much today's card suits each test better or worse than those of the stored runs."""
    freedom: int = 0
    """Degrees of freedom of Student's t for ``own`` (scaled to the same standard deviation); 0 is normal."""
    cards: int = 1
    twice: bool = False
    """Whether what is suspected is measured again, in the same session."""


DANGERS = {
    "nothing changed": Danger(),
    "one +3 %": Danger(0.03, 1),
    "half +3 %": Danger(0.03, 15),
    "half +3 %, unknown card": Danger(0.03, 15, known=False),
    "two thirds +3 %": Danger(0.03, 20),
    "all +3 %": Danger(0.03, 30),
    "all +3 %, unknown card": Danger(0.03, 30, known=False),
    "all +1.5 %": Danger(0.015, 30),
    "a third 3 % faster": Danger(-0.03, 10),
    "half 3 % faster": Danger(-0.03, 15),
    "two thirds 3 % faster": Danger(-0.03, 20),
    "two thirds 2 % faster": Danger(-0.02, 20),
    "heavy tails between sessions (t, 3)": Danger(freedom=3),
    "twice the noise between sessions": Danger(own=0.007),
    "thrice the noise between sessions": Danger(own=0.0105),
    "noisy generations (1 %, 2 % spikes)": Danger(within=0.01, spikes=0.02),
    "unknown card, cards differ by 1 %": Danger(common=0.01, known=False),
    "unknown card, cards differ by 2 %": Danger(common=0.02, known=False),
    "unknown card, 0.5 % by recipe": Danger(card=0.005, known=False),
    "unknown card, 1 % by recipe": Danger(card=0.01, known=False),
    "two cards": Danger(cards=2),
    "two cards, one +3 %": Danger(0.03, 1, cards=2),
    "three tests": Danger(tests=3),
    "three tests, one +3 %": Danger(0.03, 1, tests=3),
    "one test": Danger(tests=1),
    "one test, +3 %": Danger(0.03, 1, tests=1),
    "two prompts": Danger(prompts=2),
    "two prompts, one +3 %": Danger(0.03, 1, prompts=2),
    "two prompts, 3 % noise": Danger(prompts=2, within=0.03),
    "one stored run": Danger(runs=1),
    "one stored run, one +3 %": Danger(0.03, 1, runs=1),
}


def session_of(danger: Danger, rng: np.random.Generator) -> tuple[list[TimedTest], set[int]]:
    """The tests of one session, and which of them are slower (or faster)."""
    changed = set(rng.permutation(danger.tests)[: danger.share].tolist())
    weather = danger.common * rng.standard_normal((danger.runs + 1, danger.cards))

    def run(level: float) -> Array:
        noise = danger.within * rng.standard_normal(danger.prompts)
        spikes = rng.random(danger.prompts) < danger.spikes
        return level + noise + np.where(spikes, np.log1p(rng.uniform(0.05, 0.4, danger.prompts)), 0.0)

    tests = []
    for i in range(danger.tests):
        if danger.freedom:
            own = rng.standard_t(danger.freedom, danger.runs + 1) * math.sqrt(1 - 2 / danger.freedom)
        else:
            own = rng.standard_normal(danger.runs + 1)
        levels = danger.own * own + weather[:, i % danger.cards]
        levels[-1] += danger.card * rng.standard_normal() + (math.log1p(danger.slower) if i in changed else 0.0)
        card, home = f"GPU-{i % danger.cards}", "" if danger.known else " of old"
        stored = tuple(StoredTimes(str(r), card + home, run(level)) for r, level in enumerate(levels[:-1]))
        again = run(levels[-1]) if danger.twice else None
        now = run(levels[-1])
        tests.append(TimedTest(str(i), now, stored, LIMIT, busy=0.99, card=card, process=card, again=again))
    return tests, changed


@dataclass(frozen=True)
class Outcome:
    """Shares of sessions, and of tests."""

    false: float
    """Sessions that fail by a test that is no slower, or altogether where not one is."""
    seen: float
    """Sessions that fail by a slower test or altogether."""
    each: float
    """Slower tests that fail."""
    together: float
    """Sessions whose common shift fails."""
    open: float
    """Tests that are left inconclusive."""


def endangered(job: tuple[Danger, int, int]) -> Outcome:
    """The outcome of so many sessions."""
    danger, sessions, seed = job
    rng = np.random.default_rng(seed)
    false = seen = each = together = open_ = 0.0
    for _ in range(sessions):
        tests, changed = session_of(danger, rng)
        judged = judge_times(tests)
        failed = {i for i, verdict in enumerate(judged.tests) if verdict.decision == "regressed"}
        all_fail = any(common.decision == "regressed" for common in judged.common)
        slower = changed if danger.slower > 0 else set()
        false += bool(failed - slower) or (all_fail and not slower)
        seen += bool(failed & slower) or (all_fail and bool(slower))
        each += len(failed & slower) / max(1, len(slower))
        together += all_fail
        open_ += sum(verdict.decision == "inconclusive" for verdict in judged.tests) / danger.tests
    return Outcome(false / sessions, seen / sessions, each / sessions, together / sessions, open_ / sessions)


def dangers(sessions: int, seed: int, pool: ProcessPoolExecutor) -> Iterator[str]:
    """What whole sessions of 30 tests come to."""
    done = pool.map(endangered, [(danger, sessions, seed + i) for i, danger in enumerate(DANGERS.values())])

    def rows() -> Iterator[Sequence[str]]:
        for (name, danger), found in zip(DANGERS.items(), done, strict=True):
            slower = danger.slower > 0
            yield [
                name,
                percent(found.false),
                percent(found.seen) if slower else "",
                percent(found.each) if slower else "",
                percent(found.together),
                percent(found.open),
            ]

    yield from table(["sessions", "false", "seen", "slower tests that fail", "all together fails", "undecided"], rows())


# The CPU rule --------------------------------------------------------------------------------------------

CPU_NOISE = {"idle": 0.045, "busy": 0.10, "overloaded": 0.17}
"""Scale of a Student t with 2 degrees of freedom. The first and the last fit the log ratios of equal work timed in
pairs on two shared cores, alone and beside four busy processes (quartiles +-3.7 % and +-10 %, 95 % within +-15 % and
+-60 %); the middle one lies between."""

CPU_TAU = 0.02
CPU_TESTS = 20
"""Of a session."""


def cpu_gate(
    change: float, scale: float, stored_scale: float, runs: int, policy: Policy, rng: np.random.Generator
) -> tuple[bool, int]:
    """Whether one configuration of a CPU session fails, and the rounds it took; scales of noise now and stored."""

    def pairs(level: float, width: float) -> Array:
        return level + width * rng.standard_t(2, 8)

    stored = tuple(StoredTimes(str(r), None, pairs(CPU_TAU * rng.standard_normal(), stored_scale)) for r in range(runs))
    level = CPU_TAU * rng.standard_normal() + math.log1p(change)
    rounds: list[Array] = []
    while True:
        rounds.append(pairs(level, scale))
        now: Array = np.median(rounds, axis=0)
        test = TimedTest("t", now, stored, policy.limit, relative=True)
        (verdict,) = judge_times([test], m=policy.m).tests
        found = Finding(metric="speed-up", verdict=verdict.decision, n=now.size)
        judgement = Judgement(verdict=verdict.decision, message="", findings=(found,))
        if not another_round(judgement, policy, len(rounds)):
            return verdict.decision == "regressed", len(rounds)


# Tables --------------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "|".join("---" for _ in head) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if 0.0005 < share < 0.9995 else f"{100 * share:.0f} %"


Job = tuple[str, Noise, float, int, int]


def work(job: Job) -> Power:
    name, noise, change, sessions, seed = job
    gate = ALL_GATES[name] if name in ALL_GATES else stage_one(*map(int, name.split()))
    return power(gate, noise, change, sessions, seed)


def comparison(sessions: int, seed: int, pool: ProcessPoolExecutor) -> Iterator[str]:
    usual = PROFILES["usual"]
    plan = [(0.0, 0.0), (0.005, 0.0), (0.01, 0.0), (0.005, 0.03), (0.01, 0.03), (0.005, 0.1)]
    jobs = [(name, replace(usual, tau=tau), change, sessions, seed) for name in GATES for tau, change in plan]
    done = iter(pool.map(work, jobs))

    def rows() -> Iterator[Sequence[str]]:
        for name in GATES:
            found = [next(done) for _ in plan]
            shares = [p.any_failed for p in found[:3]] + [p.caught for p in found[3:]]
            yield [name, *map(percent, shares), f"{found[1].cost:.0f}", f"{found[3].cost:.0f}"]

    head = [
        "rule",
        "false, τ 0",
        "false, τ .5 %",
        "false, τ 1 %",
        "sees +3 %, τ .5 %",
        "sees +3 %, τ 1 %",
        "sees +10 %",
    ]
    yield from table([*head, "generations, unchanged", "generations, +3 %"], rows())


def sizes(sessions: int, seed: int, pool: ProcessPoolExecutor) -> Iterator[str]:
    changes = (0.02, 0.03, 0.05, 0.08, 0.10, 0.15)
    cases = [(f"{runs} {n}", runs, n, tau) for tau in (0.005, 0.01) for runs, n in ((1, 8), (3, 8), (3, 20), (8, 8))]
    cases += [("ours, 3 stored runs + A/B", 3, 8, tau) for tau in (0.005, 0.01)]
    cases += [("ours, 5 stored runs + A/B", 5, 8, 0.01)]
    jobs = [
        (name, replace(PROFILES["usual"], tau=tau), change, sessions, seed + i)
        for name, _, _, tau in cases
        for i, change in enumerate(changes)
    ]
    done = iter(pool.map(work, jobs))

    def rows() -> Iterator[Sequence[str]]:
        for name, runs, n, tau in cases:
            kind = "stage 1 + A/B" if "A/B" in name else "stage 1"
            yield [kind, percent(tau), str(runs), str(n), *(percent(next(done).caught) for _ in changes)]

    yield from table(["rule", "τ", "stored runs", "prompts", *(f"+{c:.0%}" for c in changes)], rows())


CONSIDERED = {f"A/B, passed at {confidence}": stage_two(3, confidence) for confidence in (0.95, 0.975, 0.99)}
ALL_GATES = GATES | CONSIDERED | {"A/B, shared": stage_two(3), "A/B, alone": stage_two(3, m=1)}


def considered(sessions: int, seed: int, pool: ProcessPoolExecutor) -> Iterator[str]:
    """The confidence at which stage one passes, and what it leaves open."""
    plan = [(name, replace(PROFILES["usual"], tau=tau)) for name in CONSIDERED for tau in (0.005, 0.01)]
    jobs = []
    for name, noise in plan:
        jobs += [(name, noise, change, sessions, seed) for change in (0.0, 0.03)]
    done = iter(pool.map(work, jobs))

    def rows() -> Iterator[Sequence[str]]:
        for name, noise in plan:
            quiet, slowed = next(done), next(done)
            missed = f"{1 - slowed.caught:.2%}"
            yield [name, percent(noise.tau), missed, f"{quiet.cost:.1f}", f"{slowed.cost:.1f}"]

    yield from table(["rule", "τ", "+3 % missed", "generations, unchanged", "generations, one slowed"], rows())
    rng = np.random.default_rng(seed + 2)
    case = Case(PROFILES["usual"])
    for runs in (1, 3, 5):
        found = [v for _ in range(sessions // 4) for _, v in verdicts(case, simulate(case, runs, rng))]
        share = found.count("inconclusive") / len(found)
        yield f"inconclusive in stage one, nothing changed, {runs} stored runs: {share:.1%}"


def noisy_everywhere(sessions: int, seed: int, pool: ProcessPoolExecutor) -> Iterator[str]:
    """Unchanged sessions of thirty host-bound configurations, their 5 % shared or not."""
    names = ("A/B, alone", "A/B, shared")
    done = pool.map(work, [(name, replace(HOST_BOUND, tau=0.01), 0.0, sessions, seed) for name in names])
    yield from table(
        ["rule", "false"], ([name, percent(found.any_failed)] for name, found in zip(names, done, strict=True))
    )


def profiles(sessions: int, seed: int, pool: ProcessPoolExecutor) -> Iterator[str]:
    names = ("ours, 3 stored runs", "ours, 3 stored runs + A/B")
    jobs = [
        (name, noise, change, sessions, seed) for noise in PROFILES.values() for name in names for change in (0.0, 0.03)
    ]
    done = iter(pool.map(work, jobs))

    def rows() -> Iterator[Sequence[str]]:
        for profile in PROFILES:
            found = [next(done) for _ in range(4)]
            yield [
                profile,
                *(percent(x) for x in (found[0].any_failed, found[1].caught, found[2].any_failed, found[3].caught)),
                f"{found[2].cost:.1f}",
            ]

    head = [
        "noise",
        "false, stage 1",
        "sees +3 %, stage 1",
        "false, with A/B",
        "sees +3 %, with A/B",
        "generations with A/B",
    ]
    yield from table(head, rows())


def cpu_case(job: tuple[str, str, int, float, int, int]) -> tuple[float, float]:
    stored, now, runs, change, trials, seed = job
    rng = np.random.default_rng(seed)
    policy = Policy.of("relative", m=CPU_TESTS)
    done = [cpu_gate(change, CPU_NOISE[now], CPU_NOISE[stored], runs, policy, rng) for _ in range(trials)]
    return float(np.mean([failed for failed, _ in done])), float(np.mean([rounds for _, rounds in done]))


def cpu(trials: int, seed: int, pool: ProcessPoolExecutor) -> Iterator[str]:
    cases = [("idle", now, 3) for now in CPU_NOISE] + [("overloaded", now, 3) for now in CPU_NOISE]
    cases.append(("idle", "idle", 1))
    jobs = [(*case, change, trials, seed) for case in cases for change in (0.0, 0.3, 0.5)]
    done = iter(pool.map(cpu_case, jobs))

    def rows() -> Iterator[Sequence[str]]:
        for stored, now, runs in cases:
            (false, quiet), (thirty, suspect), (fifty, _) = next(done), next(done), next(done)
            a_session = percent(1 - (1 - false) ** CPU_TESTS)
            yield [
                stored, now, str(runs), a_session, percent(thirty), percent(fifty), f"{quiet:.2f}", f"{suspect:.2f}"
            ]  # fmt: skip

    head = [
        "baseline",
        "machine now",
        "stored runs",
        "false sessions",
        "sees +30 %",
        "sees +50 %",
        "rounds, unchanged",
        "rounds, +30 %",
    ]
    yield from table(head, rows())


def tail(sessions: int, seed: int) -> Iterator[str]:
    """Pooled tail: how often it warns as the share of spikes grows from 0.5 %."""
    rng = np.random.default_rng(seed)

    def rows() -> Iterator[Sequence[str]]:
        for share in (0.005, 0.02, 0.05, 0.10):
            warned = 0
            for _ in range(sessions):
                session = simulate(Case(PROFILES["usual"], noise_now=Noise(spikes=share)), 3, rng)
                stored = [{str(r): run for r, run in enumerate(runs)} for runs in session.runs]
                found = pooled_tail(list(zip(session.now, stored, strict=True)))
                warned += found is not None and found.warn
            yield [percent(share), percent(warned / sessions)]

    yield from table(["spikes now (0.5 % in the baseline)", "sessions that warn"], rows())


def measured(folder: Path) -> Iterator[str]:
    """What the stored runs of real hardware look like, where there are any."""
    stored = [p for p in folder.iterdir() if p.is_dir() and p.name != published.FOLDER] if folder.is_dir() else []
    for gpu in sorted(stored):
        within, shifts = [], []
        for path in sorted(gpu.rglob("*.json")):
            baseline = decode(path.read_bytes(), str(path))
            times = stored_times(baseline, relative=gpu.name == "cpu", phases=False)
            if len(times) < 2:
                continue
            runs = np.array([session.y for session in times])
            level = np.median(runs - np.median(runs, axis=0), axis=1)
            within += [float(1.4826 * np.median(np.abs(r - np.median(r)))) for r in runs - np.median(runs, axis=0)]
            shifts.append(float(level.std(ddof=1)))
        if shifts:
            half, most = np.quantile(shifts, (0.5, 0.8))
            yield (
                f"baselines/{gpu.name}: {len(shifts)} tests of several sessions; in the middle {np.median(within):.2%} "
                f"within a run and {half:.2%} between sessions; four fifths under {most:.2%}, most {max(shifts):.2%}"
            )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="the rule for times and the CPU alone")
    parser.add_argument("--quick", action="store_true", help="fewer sessions")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    sessions, trials, seed = (200, 1000, options.seed) if options.quick else (1000, 4000, options.seed)
    start = time.monotonic()
    with ProcessPoolExecutor(options.workers) as pool:
        sections: list[tuple[str, Callable[[], Iterator[str]]]] = [
            (
                f"What whole sessions come to: {2 * sessions} each, tolerance 2 %, between sessions .5 % common and "
                ".35 % of a test unless said otherwise",
                lambda: dangers(2 * sessions, seed + 700, pool),
            ),
            (
                f"The CPU rule: {trials} configurations each, tolerance 17 %, {CPU_TESTS} a session",
                lambda: cpu(trials, seed + 300, pool),
            ),
        ]
        if not options.short:
            sections += [
                (
                    f"30 configurations, {sessions} sessions each, tolerance 2 %, usual noise",
                    lambda: comparison(sessions, seed, pool),
                ),
                ("Share of regressions seen, one configuration of 30", lambda: sizes(sessions, seed + 100, pool)),
                ("Other noise", lambda: profiles(sessions, seed + 200, pool)),
                ("When stage one passes, with an old environment", lambda: considered(sessions, seed + 500, pool)),
                (
                    "Thirty host-bound configurations, tolerance 2 %",
                    lambda: noisy_everywhere(sessions, seed + 600, pool),
                ),
                ("The pooled tail", lambda: tail(max(100, sessions // 4), seed + 400)),
                ("Measured", lambda: measured(Path("baselines"))),
            ]
        for title, lines in sections:
            print(f"\n{title}\n", flush=True)
            for line in lines():
                print(line, flush=True)
    print(f"\n{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
