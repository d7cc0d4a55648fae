"""A machine's noise, from fresh processes in which nothing changed, and what the rule makes of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pytest_fluxperf.gate.statistics import AB_MAX_BLOCKS, Array, ab_decide, decide, prompt_centres, stored_effect

TOLERANCES = (0.01, 0.02, 0.03, 0.05, 0.10, 0.17)

STORED_RUNS = 3
"""Runs of the baseline that is simulated."""

MOST_FALSE = 0.01
"""Share of unchanged sessions that may fail."""

MOST_OPEN = 0.25
"""Share of unchanged configurations that may stay inconclusive against a stored baseline."""

_SESSIONS = 400
_DRAWS = 100_000


@dataclass(frozen=True)
class Noise:
    """Of log latency (fractions of the latency)."""

    within: float
    """Standard deviation within a process, by the median of differences: outliers hardly move it."""
    tau: float
    """Standard deviation between processes."""
    tau_range: tuple[float, float]
    """Where it lies with 90 % confidence."""
    processes: int
    residuals: Array
    """All deviations of generations from their prompt and their process, of the standard deviation of one generation;
    outliers included."""


def measure_noise(tests: Sequence[Array]) -> Noise:
    """Noise of tests, each log latencies (processes, prompts) of processes in which nothing changed.

    Per test ``m_r`` is the median over prompts of a process's deviation from the prompts' centres, ``tau^2`` the mean
    over tests of the variance of ``m_r``. How well it is known follows from the chi-squared distribution of a variance
    with (processes - 1) degrees of freedom a test.

    Within a process, the median of a few processes will not do for a prompt's centre, since it often is one of their
    values. Two prompts in two processes differ by ``(x_ri - x_rj) - (x_si - x_sj)``, free of both and of twice the
    standard deviation of a generation. Residuals are taken about means over processes and enlarged by what two centres
    take of a variance, ``sqrt(R n / ((R - 1) (n - 1)))``.
    """
    if not tests or any(x.ndim != 2 or min(x.shape) < 2 for x in tests):
        raise ValueError("two processes or more and two prompts or more are needed")
    residuals, differences, variances, degrees = [], [], [], 0
    for x in tests:
        count, prompts = x.shape
        shifts = np.median(x - prompt_centres(x), axis=1)
        variances.append(float(shifts.var(ddof=1)))
        degrees += count - 1
        deviations = x - x.mean(axis=0)
        deviations -= np.median(deviations, axis=1, keepdims=True)
        residuals.append(math.sqrt(count * prompts / ((count - 1) * (prompts - 1))) * deviations.ravel())
        differences.append(_differences(_differences(x).T).ravel())
    tau = math.sqrt(float(np.mean(variances)))
    chi_squared = np.random.default_rng(0).chisquare(degrees, _DRAWS)
    low, high = (tau * math.sqrt(degrees / np.quantile(chi_squared, q)) for q in (0.95, 0.05))
    return Noise(
        within=float(1.4826 * np.median(np.abs(np.concatenate(differences))) / 2),
        tau=tau,
        tau_range=(low, high),
        processes=max(x.shape[0] for x in tests),
        residuals=np.concatenate(residuals),
    )


def _differences(rows: Array) -> Array:
    """Each row less each later one."""
    first, second = np.triu_indices(rows.shape[0], 1)
    found: Array = rows[first] - rows[second]
    return found


@dataclass(frozen=True)
class FalseAlarms:
    """What the rule does at one tolerance where nothing changed."""

    tolerance: float
    stored: float
    """Share of sessions of ``m`` configurations with a failure against a stored baseline of three runs."""
    open: float
    """Share of configurations that stay inconclusive there."""
    interleaved: float
    """Share of A/B comparisons that fail."""


def false_alarms(noise: Noise, m: int, prompts: int = 8, seed: int = 0) -> list[FalseAlarms]:
    """Simulate unchanged sessions with a machine's noise, judged by the gate's own functions.

    Generations are drawn from the residuals that were measured (a bootstrap), shifts of a process from a normal
    distribution of standard deviation tau.
    """
    rng = np.random.default_rng(seed)

    def process() -> Array:
        made: Array = noise.tau * rng.standard_normal() + rng.choice(noise.residuals, prompts)
        return made

    sessions = [
        [stored_effect(process(), np.array([process() for _ in range(STORED_RUNS)])) for _ in range(m)]
        for _ in range(_SESSIONS)
    ]
    comparisons = [[process() - process() for _ in range(AB_MAX_BLOCKS)] for _ in range(_SESSIONS)]
    found = []
    for tolerance in TOLERANCES:
        limit = math.log1p(tolerance)
        verdicts = [[decide(effect, limit, m) for effect in session] for session in sessions]
        failed = sum("regressed" in session for session in verdicts)
        open_ = sum(session.count("inconclusive") for session in verdicts)
        wrong = sum(_fails(blocks, limit, m) for blocks in comparisons)
        found.append(FalseAlarms(tolerance, failed / _SESSIONS, open_ / (m * _SESSIONS), wrong / _SESSIONS))
    return found


def _fails(blocks: Sequence[Array], limit: float, m: int) -> bool:
    """Whether an A/B comparison that takes as many of ``blocks`` as it asks for fails."""
    decisions = (ab_decide(blocks[: count + 1], limit, m).decision for count in range(len(blocks)))
    return next(decision for decision in decisions if decision != "next block") == "regressed"


def supported_tolerance(found: Sequence[FalseAlarms]) -> float | None:
    """The least tolerance at which the gate neither cries wolf nor leaves too much open; None where none is."""
    for alarms in found:
        if alarms.stored <= MOST_FALSE and alarms.interleaved <= MOST_FALSE and alarms.open <= MOST_OPEN:
            return alarms.tolerance
    return None
