"""How far sessions and generations scatter, and what tests share: the estimates under the rule for times.

Pure functions of log times, and of levels: a run's deviation from its prompts' centres.
"""

from __future__ import annotations

import math

import numpy as np

from pytest_fluxperf.gate.statistics import Array, median

PINNED = 3
"""The first stored sessions: their median is where a test belongs."""

CLIP = 2.5
"""A stored session counts as at most this many prior standard deviations from there."""

OUTLIER = 3.0
"""Standard deviations from the common shift beyond which a test does not share it."""

LEAST_SCATTER = 6
"""Tests from which their scatter about the common shift is believed."""


def lower_median(values: Array) -> float:
    """The median, of an even number the lower in the middle: of two stored runs the slow one is the odd one."""
    return float(np.sort(values)[(len(values) - 1) // 2])


def settle(levels: Array, tau0: float, nu0: float) -> tuple[float, float]:
    """Where stored levels (R,) lie, and the variance between them.

    Levels count as at most ``CLIP tau0`` from the lower median of the first ``PINNED``: neither one bad session nor
    sessions that creep move them far. The variance is the posterior scale ``(nu0 tau0^2 + squares) / (nu0 + R - 1)``
    (Gelman et al., Bayesian Data Analysis, 3rd ed., section 2.6).
    """
    pinned = lower_median(levels[:PINNED])
    near = pinned + np.clip(levels - pinned, -CLIP * tau0, CLIP * tau0)
    squares = float(np.sum((near - near.mean()) ** 2))
    return float(near.mean()), (nu0 * tau0**2 + squares) / (nu0 + len(levels) - 1)


def within_run(rows: Array) -> tuple[float, float]:
    """Standard deviation of one generation within its run (R, n), and its degrees of freedom.

    From what is left when prompts and runs are taken out by medians, enlarged by what these take of a variance. Its
    median absolute value knows 0.37 of what a standard deviation of normal noise would, and survives outliers.
    """
    count, n = rows.shape
    left = rows - median(rows, axis=0)
    left = left - median(left, axis=1)[:, None]
    rest = (count - 1) * (n - 1)
    scale = 1.4826 * math.sqrt(count * n / rest) if rest else 0.0
    return scale * float(median(np.abs(left).ravel())), 0.37 * rest


def common_shift(values: Array, scales: Array, prior: float) -> tuple[float, float]:
    """What changes (k,) of standard deviations (k,) share, and its standard deviation.

    The mean of those within OUTLIER deviations of it, weighted by their variances and drawn to 0 by the variance
    ``prior``^2 of a session. Looked for from 0 and from the median; of the two the one that leaves less unexplained.
    """
    best, least = (0.0, prior), math.inf
    for start in (0.0, float(median(values)) if len(values) else 0.0):
        shift, weight = start, 1 / prior**2
        for _ in range(3):
            near = np.abs(values - shift) < OUTLIER * scales
            weight = 1 / prior**2 + float(np.sum(1 / scales[near] ** 2))
            shift = float(np.sum(values[near] / scales[near] ** 2)) / weight
        unexplained = float(np.sum(np.minimum(((values - shift) / scales) ** 2, OUTLIER**2))) + (shift / prior) ** 2
        if unexplained < least:
            best, least = (shift, weight**-0.5), unexplained
    return best


def scatter(values: Array, scales: Array, prior: float) -> float:
    """By how much changes (k,) scatter more about what they share than their standard deviations say; at least 1.

    Twice, since wider deviations let in tests that were left out. What lies beyond does not share the shift and says
    nothing. 1 with fewer than LEAST_SCATTER tests.
    """
    factor = 1.0
    for _ in range(2):
        wide = factor * scales
        shift, _ = common_shift(values, wide, prior)
        z = ((values - shift) / wide)[np.abs(values - shift) < OUTLIER * wide]
        if len(z) >= LEAST_SCATTER:
            factor *= max(1.0, math.sqrt(float(np.sum(z**2)) / (len(z) - 1)))
    return factor
