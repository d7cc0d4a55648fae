"""The decision rule as pure functions on arrays; docs/gate.md explains it and shows its power.

Latencies enter as natural logarithms, so an effect of 0.03 is 3 % more time and the unit cancels. Rows are
runs, columns are prompts in the workload's order; a column is always the same prompt and seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
ArrayLike = npt.NDArray[Any] | Sequence[float] | Sequence[Sequence[float]]
Decision = Literal["passed", "improved", "regressed", "inconclusive"]

NU0 = 4.0
"""Prior degrees of freedom of the between-session variance (simulation study, docs/gate.md)."""

TAU0 = 0.007
"""Prior between-session standard deviation of log latency on a GPU (simulation study, docs/gate.md)."""

MAD_FLOOR = 2e-4
"""Least median absolute deviation believed: below it clocks and timers, not the workload, are seen."""

MEDIAN_SE = 1.858
"""Standard error of a median over MAD / sqrt(n): 1.4826 (normal sigma / MAD) x sqrt(pi / 2)."""

PASS_CONFIDENCE = 0.95
"""Confidence at which stage one passes a configuration as within the tolerance."""

PASS_CONFIDENCE_AB = 0.975
"""The same where an old environment is at hand: what stage one passes is never interleaved, and what it does not pass
costs a comparison and no warning, so it may be the stricter one (docs/comparing.md)."""

AB_BLOCK_SD = 0.0025
"""Prior standard deviation of one fresh process's log latency within an A/B block (measured, docs/comparing.md)."""

AB_PRIOR_DF = 4
"""Prior degrees of freedom of the variance between A/B blocks."""

AB_MAX_BLOCKS = 3
"""Blocks after which an A/B comparison decides, whatever it has seen."""

TAIL_RATIO = 1.10
"""A sample this many times its own prompt's centre counts as an outlier."""


# Student's t ---------------------------------------------------------------------------------------------


def student_t_cdf(t: float, df: int) -> float:
    """Probability that Student's t with ``df`` degrees of freedom is at most ``t``.

    The finite trigonometric sums of Abramowitz & Stegun, Handbook of Mathematical Functions, 26.7.3 (odd
    ``df``) and 26.7.4 (even ``df``), with theta = arctan(t / sqrt(df)); exact for every integer ``df``.
    """
    if df < 1:
        raise ValueError(f"degrees of freedom must be at least 1, not {df}")
    theta = math.atan(t / math.sqrt(df))
    sin, cos = math.sin(theta), math.cos(theta)
    total, term = 0.0, cos if df % 2 else 1.0
    for k in range(2 if df % 2 else 1, df - 1, 2):
        total += term
        term *= cos * cos * k / (k + 1)
    if df > 1:
        total += term
    two_sided = (2 / math.pi) * (theta + sin * total) if df % 2 else sin * total
    return 0.5 + two_sided / 2


@lru_cache(maxsize=1024)
def student_t_quantile(p: float, df: int) -> float:
    """The ``p`` quantile of Student's t with ``df`` degrees of freedom: :func:`student_t_cdf` by bisection."""
    if not 0 < p < 1:
        raise ValueError(f"a probability lies between 0 and 1, not {p}")
    if p < 0.5:
        return -student_t_quantile(1 - p, df)
    low, high = 0.0, 1.0
    while student_t_cdf(high, df) < p:
        low, high = high, 2 * high
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        low, high = (middle, high) if student_t_cdf(middle, df) < p else (low, middle)


# Location and spread -------------------------------------------------------------------------------------


def median(values: ArrayLike, axis: int = -1) -> Array:
    """The median along ``axis``; of a handful of numbers numpy's own takes five times as long for its checks."""
    x = np.sort(np.asarray(values, dtype=float), axis=axis)
    n = x.shape[axis]
    if not n:
        raise ValueError("no samples")
    middle: Array = (x.take((n - 1) // 2, axis=axis) + x.take(n // 2, axis=axis)) / 2
    return middle


def robust_se(residuals: ArrayLike) -> float:
    """Standard error of the median of ``residuals`` (n,): ``1.858 * max(MAD, 2e-4) / sqrt(n)``.

    MAD is the median absolute deviation from the median. Normal theory gives 1.4826 MAD for sigma and
    sqrt(pi / 2) sigma / sqrt(n) for the median's error; both survive outliers, which are never deleted.
    """
    x = np.asarray(residuals, dtype=float)
    if x.size == 0:
        raise ValueError("no samples")
    mad = float(median(np.abs(x - median(x))))
    return MEDIAN_SE * max(mad, MAD_FLOOR) / math.sqrt(x.size)


@dataclass(frozen=True)
class Effect:
    """An estimated change of log latency: positive is slower."""

    value: float
    se: float
    df: int
    tau: float = 0.0
    """Between-session standard deviation that ``se`` rests on."""

    def interval(self, p: float = 0.95) -> tuple[float, float]:
        """Lower and upper one-sided bounds at confidence ``p`` each."""
        margin = student_t_quantile(p, self.df) * self.se
        return self.value - margin, self.value + margin


# Rule 1: against the stored baseline ---------------------------------------------------------------------


def prompt_centres(runs: ArrayLike) -> Array:
    """Per prompt the median over runs: (R, n) -> (n,)."""
    centres: Array = np.median(np.asarray(runs, dtype=float), axis=0)
    return centres


def stored_effect(now: ArrayLike, runs: ArrayLike, *, nu0: float = NU0, tau0: float = TAU0) -> Effect:
    """Change of ``now`` (n,) against ``runs`` (R, n) of different sessions, both log latencies.

    ``c_i = median_r x_ri``, ``m_r = median_i(x_ri - c_i)``, ``e = median_i(x_i - c_i) - mean(m_r)``;
    ``tau^2 = (nu0 tau0^2 + sum (m_r - mean m)^2) / (nu0 + R - 1)`` is the posterior mean scale of the
    between-session variance under a scaled inverse chi-squared prior (Gelman et al., Bayesian Data Analysis,
    3rd ed., section 2.6); ``SE^2 = tau^2 (1 + 1/R) + se^2`` with ``nu0 + R - 1`` degrees of freedom.
    """
    x, base = np.asarray(now, dtype=float), np.asarray(runs, dtype=float)
    if base.ndim != 2 or x.shape != base.shape[1:] or x.size == 0:
        raise ValueError(f"runs must be (R, n) and now (n,), not {base.shape} and {x.shape}")
    centres = prompt_centres(base)
    shifts = np.median(base - centres, axis=1)
    residuals = x - centres
    count = base.shape[0]
    df = nu0 + count - 1
    tau2 = (nu0 * tau0**2 + float(np.sum((shifts - shifts.mean()) ** 2))) / df
    return Effect(
        value=float(np.median(residuals) - shifts.mean()),
        se=math.sqrt(tau2 * (1 + 1 / count) + robust_se(residuals) ** 2),
        df=max(1, round(df)),
        tau=math.sqrt(tau2),
    )


def decide(effect: Effect, limit: float, m: int = 1, *, confidence: float = PASS_CONFIDENCE) -> Decision:
    """Rule 1's decision at ``limit = ln(1 + tolerance)`` for one of ``m`` configurations (Bonferroni).

    Within the limit at ``confidence`` passes; beyond both the limit and chance is ``regressed`` (mirrored:
    ``improved``); anything else is ``inconclusive``.
    """
    critical = max(limit, student_t_quantile(1 - 0.05 / m, effect.df) * effect.se)
    if effect.value > critical:
        return "regressed"
    if effect.value < -critical:
        return "improved"
    return "passed" if effect.interval(confidence)[1] < limit else "inconclusive"


# Rule 2: A/B, two environments interleaved ---------------------------------------------------------------


@dataclass(frozen=True)
class ABDecision:
    """Where an A/B comparison stands after the blocks so far."""

    decision: Literal["passed", "improved", "regressed", "next block"]
    effect: Effect
    blocks: int
    low: float
    high: float
    warning: bool = False
    """True when the last block left it open: passed, but not shown to lie within the tolerance."""


def paired_differences(old: ArrayLike, new: ArrayLike, passes: int = 1) -> Array:
    """Differences ``ln(new) - ln(old)`` of seconds (n,) measured in pairs.

    With ``passes`` > 1 the sides hold their passes over the same prompts one after the other, as whole processes in
    the order A B B A make them; averaged over the passes, a steady drift of the machine cancels: (n,) -> (n / passes,).
    """
    before, after = np.asarray(old, dtype=float), np.asarray(new, dtype=float)
    if before.shape != after.shape or before.ndim != 1 or not before.size or before.size % passes:
        raise ValueError(f"pairs are needed, not {before.size} and {after.size} generations in {passes} passes")
    differences: Array = (np.log(after) - np.log(before)).reshape(passes, -1).mean(axis=0)
    return differences


def ab_effect(blocks: Sequence[ArrayLike]) -> Effect:
    """Mean shift of J blocks, each the paired differences ``b - a`` (n,) of log latency.

    ``D_j = median``; ``V0 = 2 (0.25 %)^2 + mean se_j^2``; ``V = (4 V0 + sum (D_j - mean D)^2) / (3 + J)``;
    ``SE = sqrt(V / J)``; ``df = 3 + J``.
    """
    if not blocks:
        raise ValueError("no blocks")
    shifts = np.array([np.median(np.asarray(block, dtype=float)) for block in blocks])
    prior = 2 * AB_BLOCK_SD**2 + float(np.mean([robust_se(block) ** 2 for block in blocks]))
    count = len(blocks)
    df = AB_PRIOR_DF + count - 1
    variance = (AB_PRIOR_DF * prior + float(np.sum((shifts - shifts.mean()) ** 2))) / df
    return Effect(value=float(shifts.mean()), se=math.sqrt(variance / count), df=df)


def ab_decide(blocks: Sequence[ArrayLike], limit: float, m: int = 1, *, max_blocks: int = AB_MAX_BLOCKS) -> ABDecision:
    """Rule 2: decide after the blocks so far, or ask for the next one.

    One-sided t at ``1 - .05 / 3`` after each block, so that three looks together keep 5 %; at ``1 - .05 / (3 m)`` for
    a change, as ``m`` comparisons are made in a session. After the last block: regressed when ``e > limit`` and surely
    above 0 (by the same third of the error), else passed, with ``warning`` set. ``low`` and ``high`` are those of a
    single look.
    """
    effect = ab_effect(blocks)
    low, high = effect.interval(1 - 0.05 / AB_MAX_BLOCKS)
    changed_low, changed_high = effect.interval(1 - 0.05 / (AB_MAX_BLOCKS * m))

    def stands(decision: Literal["passed", "improved", "regressed", "next block"], warning: bool = False) -> ABDecision:
        return ABDecision(decision, effect, len(blocks), low, high, warning)

    if changed_low > limit:
        return stands("regressed")
    if changed_high < -limit:
        return stands("improved")
    if high < limit:
        return stands("passed")
    if len(blocks) < max_blocks:
        return stands("next block")
    if effect.value > limit and changed_low > 0:
        return stands("regressed")
    return stands("passed", warning=True)


# Rule 3: step caches -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CacheChange:
    """Computed steps now against the baseline."""

    decision: Literal["passed", "improved", "regressed"]
    baseline: float
    now: float
    prompts_changed: int
    hits_vanished: bool = False


def cache_change(computed_now: ArrayLike, computed_base: ArrayLike, steps: int, tolerance: float = 0.02) -> CacheChange:
    """Rule 3 on computed steps per prompt (n,), of ``steps`` each.

    Regressed when their sum rises by more than ``tolerance`` and at least two prompts changed (one, of one):
    a threshold cache can flip a single step by rounding. No hit at all where the baseline had hits is always
    regressed. Improved is the mirror image.
    """
    now, base = np.asarray(computed_now, dtype=float), np.asarray(computed_base, dtype=float)
    if now.shape != base.shape or now.size == 0:
        raise ValueError(f"computed steps of the same prompts are needed, not {base.shape} and {now.shape}")
    total_now, total_base, full = float(now.sum()), float(base.sum()), float(steps * now.size)
    changed = int(np.count_nonzero(now != base))
    vanished = total_base < full and total_now >= full
    decision: Literal["passed", "improved", "regressed"] = "passed"
    if vanished:
        decision = "regressed"
    elif changed >= min(2, now.size):
        if total_now > total_base * (1 + tolerance):
            decision = "regressed"
        elif total_now * (1 + tolerance) < total_base:
            decision = "improved"
    return CacheChange(decision, total_base, total_now, changed, vanished)


# Rule 4: the tail, pooled over configurations ------------------------------------------------------------


def tail_count(x: ArrayLike, centres: ArrayLike) -> int:
    """Samples of log latency ``x`` (n,) over 1.10 x their own prompt's centre, the location shift removed."""
    residuals = np.asarray(x, dtype=float) - np.asarray(centres, dtype=float)
    return int(np.count_nonzero(residuals - np.median(residuals) > math.log(TAIL_RATIO)))


def beta_binomial_sf(k: int, n: int, a: float, b: float) -> float:
    """Probability of ``k`` or more of ``n`` when the rate has a Beta(a, b) distribution.

    ``P(X = j) = C(n, j) B(j + a, n - j + b) / B(a, b)`` (Johnson, Kemp & Kotz, Univariate Discrete
    Distributions, section 6.2.2), summed in logarithms by ``lgamma``.
    """

    def log_beta(p: float, q: float) -> float:
        return math.lgamma(p) + math.lgamma(q) - math.lgamma(p + q)

    def log_choose(j: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(j + 1) - math.lgamma(n - j + 1)

    if k <= 0:
        return 1.0
    terms = (math.exp(log_choose(j) + log_beta(j + a, n - j + b) - log_beta(a, b)) for j in range(k, n + 1))
    return min(1.0, math.fsum(terms))


@dataclass(frozen=True)
class Tail:
    """Outliers of a session, pooled over its configurations, against the baseline's."""

    warn: bool
    count: int
    samples: int
    baseline_count: int
    baseline_samples: int
    probability: float
    """Of as many outliers or more, if nothing changed."""


def pooled_tail(configurations: Sequence[tuple[ArrayLike, Mapping[str, ArrayLike]]]) -> Tail | None:
    """Rule 4 over ``(now (n,), session -> stored run (n,))`` log latencies of every configuration; None when it
    cannot tell.

    Needs two stored sessions or more: each is counted about the centres of the others, since about its own an outlier
    is seen smaller than it is, of two runs by half. What all configurations hold of one session makes that session's
    tail, scaled to today's number of samples where it holds fewer. Warn below a probability of 1 % and over 1.5 x the
    worst session + 2.
    """
    count = samples = 0
    base: dict[str, tuple[int, int]] = {}
    for now, stored in configurations:
        runs = np.array(list(stored.values()), dtype=float)
        if runs.shape[0] < 2:
            continue
        count += tail_count(now, prompt_centres(runs))
        samples += runs.shape[1]
        for r, (session, run) in enumerate(zip(stored, runs, strict=True)):
            k, n = base.get(session, (0, 0))
            others = np.delete(runs, r, axis=0)
            base[session] = (k + tail_count(run, prompt_centres(others)), n + run.size)
    if not samples:
        return None
    k0, n0 = sum(k for k, _ in base.values()), sum(n for _, n in base.values())
    worst = max(k * samples / n for k, n in base.values())
    probability = beta_binomial_sf(count, samples, k0 + 0.5, n0 - k0 + 0.5)
    warn = probability < 0.01 and count > 1.5 * worst + 2
    return Tail(warn, count, samples, k0, n0, probability)


# Scores --------------------------------------------------------------------------------------------------

SCORE_NU0 = 4.0
"""Prior degrees of freedom of a score's noise between sessions."""

SCORE_TAU0 = 1 / 6
"""Its prior standard deviation, of the tolerance: most scores repeat exactly, and then the tolerance stands."""

SCORE_CONFIDENCE = 0.99
"""Confidence at which a fall is more than a score's own noise."""


def noise_tolerance(tolerance: float, stored: ArrayLike) -> float:
    """The fall of a score that its noise between sessions does not explain; at least ``tolerance``.

    ``stored`` (R,) are the score's medians over prompts in the stored sessions. ``max(tolerance, t s sqrt(1 + 1/R))``
    with ``s^2`` the posterior scale of the variance between them, as in rule 1.
    """
    x = np.asarray(stored, dtype=float)
    if x.ndim != 1 or not x.size:
        raise ValueError(f"one score a stored session is needed, not {x.shape}")
    df = SCORE_NU0 + x.size - 1
    variance = (SCORE_NU0 * (SCORE_TAU0 * tolerance) ** 2 + float(np.sum((x - x.mean()) ** 2))) / df
    return max(tolerance, student_t_quantile(SCORE_CONFIDENCE, int(df)) * math.sqrt(variance * (1 + 1 / x.size)))
