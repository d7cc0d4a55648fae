from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_fluxperf.gate.statistics import (
    Effect,
    ab_decide,
    ab_effect,
    beta_binomial_sf,
    cache_change,
    decide,
    noise_tolerance,
    pooled_tail,
    robust_se,
    stored_effect,
    student_t_cdf,
    student_t_quantile,
    tail_count,
)

LIMIT = math.log(1.02)

# Abramowitz & Stegun, table 26.10, and the limits beyond it computed from closed forms.
T_TABLE = [
    (0.95, 1, 6.314), (0.975, 1, 12.706), (0.95, 2, 2.920), (0.975, 2, 4.303), (0.95, 3, 2.353), (0.99, 3, 4.541),
    (0.95, 4, 2.132), (0.995, 4, 4.604), (0.9995, 4, 8.610), (0.95, 5, 2.015), (0.975, 6, 2.447), (0.95, 6, 1.943),
    (0.99, 7, 2.998), (0.95, 10, 1.812), (0.995, 15, 2.947), (0.95, 30, 1.697), (0.975, 60, 2.000),
    (0.95, 120, 1.658),
]  # fmt: skip


@pytest.mark.parametrize(("p", "df", "expected"), T_TABLE)
def test_t_quantile_matches_the_tables(p: float, df: int, expected: float) -> None:
    assert student_t_quantile(p, df) == pytest.approx(expected, abs=6e-4)
    assert student_t_quantile(1 - p, df) == pytest.approx(-expected, abs=6e-4)


@given(st.floats(0.001, 0.999), st.integers(1, 60))
def test_t_quantile_inverts_the_cdf(p: float, df: int) -> None:
    assert student_t_cdf(student_t_quantile(p, df), df) == pytest.approx(p, abs=1e-12)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 7, 12, 33])
def test_t_cdf_integrates_the_density(df: int) -> None:
    def density(t: float) -> float:
        log = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
        return math.exp(log - (df + 1) / 2 * math.log1p(t * t / df))

    grid = np.linspace(0, 2.5, 20001)
    area = np.trapezoid([density(t) for t in grid], grid)
    assert student_t_cdf(2.5, df) - 0.5 == pytest.approx(area, abs=1e-7)


def test_t_refuses_what_it_cannot_do() -> None:
    for p, df in ((0.0, 4), (1.0, 4), (0.5, 0)):
        with pytest.raises(ValueError):
            student_t_quantile(p, df)


def test_robust_se_is_near_the_medians_real_spread_and_has_a_floor() -> None:
    rng = np.random.default_rng(1)
    medians = [np.median(rng.standard_normal(50)) for _ in range(4000)]
    claimed = np.median([robust_se(rng.standard_normal(50)) for _ in range(2000)])
    assert claimed == pytest.approx(np.std(medians), rel=0.08)
    assert robust_se([1.0] * 8) == pytest.approx(1.858 * 2e-4 / math.sqrt(8))
    with pytest.raises(ValueError):
        robust_se([])


# Rule 1 --------------------------------------------------------------------------------------------------

CENTRES = np.linspace(-0.5, 0.9, 8)


def test_stored_effect_by_hand_with_one_run() -> None:
    now = CENTRES + 0.03
    effect = stored_effect(now, CENTRES[None, :])
    se = 1.858 * 2e-4 / math.sqrt(8)
    assert effect.value == pytest.approx(0.03)
    assert effect.df == 4
    assert effect.tau == pytest.approx(0.007)
    assert effect.se == pytest.approx(math.sqrt(2 * 0.007**2 + se**2))


def test_stored_effect_by_hand_with_three_runs() -> None:
    shifts = np.array([-0.01, 0.0, 0.02])
    effect = stored_effect(CENTRES + 0.05, CENTRES + shifts[:, None])
    tau2 = (4 * 0.007**2 + np.sum((shifts - shifts.mean()) ** 2)) / 6
    assert effect.value == pytest.approx(0.05 - shifts.mean())
    assert effect.df == 6
    assert effect.tau == pytest.approx(math.sqrt(tau2))
    assert effect.se == pytest.approx(math.sqrt(tau2 * (4 / 3) + (1.858 * 2e-4) ** 2 / 8))


def test_the_prior_is_taken_from_the_baseline() -> None:
    wide = stored_effect(CENTRES, CENTRES[None, :], nu0=20, tau0=0.02)
    assert (wide.df, wide.tau) == (20, pytest.approx(0.02))


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.integers(1, 5))
@settings(max_examples=60)
def test_scale_and_order_of_prompts_leave_the_effect(seed: int, factor: float, count: int) -> None:
    rng = np.random.default_rng(seed)
    runs = CENTRES + 0.01 * rng.standard_normal((count, 8))
    now = CENTRES + 0.02 + 0.01 * rng.standard_normal(8)
    plain = stored_effect(now, runs)
    scaled = stored_effect(now + math.log(factor), runs + math.log(factor))
    order = rng.permutation(8)
    shuffled = stored_effect(now[order], runs[:, order][rng.permutation(count)])
    for other in (scaled, shuffled):
        assert other.value == pytest.approx(plain.value, abs=1e-9)
        assert other.se == pytest.approx(plain.se, abs=1e-9)


def test_one_outlier_moves_nothing() -> None:
    spiked = CENTRES.copy()
    spiked[3] += 2.0
    assert stored_effect(spiked, CENTRES[None, :]).value == pytest.approx(0.0)


def test_stored_effect_refuses_other_shapes() -> None:
    for now, runs in ((CENTRES, CENTRES), (CENTRES[:4], CENTRES[None, :]), (np.empty(0), np.empty((1, 0)))):
        with pytest.raises(ValueError):
            stored_effect(now, runs)


@pytest.mark.parametrize(
    ("value", "se", "expected"),
    [
        (0.0, 0.001, "passed"),
        (0.015, 0.001, "passed"),
        (0.03, 0.001, "regressed"),
        (-0.03, 0.001, "improved"),
        (0.019, 0.001, "inconclusive"),
        (0.03, 0.02, "inconclusive"),
        (-0.015, 0.001, "passed"),
    ],
)
def test_decide(value: float, se: float, expected: str) -> None:
    assert decide(Effect(value, se, 6), LIMIT) == expected


def test_bonferroni_asks_for_more() -> None:
    effect = Effect(0.03, 0.01, 6)
    assert decide(effect, LIMIT, m=1) == "regressed"
    assert decide(effect, LIMIT, m=30) == "inconclusive"


@given(st.floats(-0.2, 0.2), st.floats(1e-4, 0.05), st.integers(1, 30), st.integers(1, 40))
def test_regressed_and_improved_mirror_each_other(value: float, se: float, df: int, m: int) -> None:
    there, back = decide(Effect(value, se, df), LIMIT, m), decide(Effect(-value, se, df), LIMIT, m)
    assert (there == "regressed") == (back == "improved")


# Rule 2 --------------------------------------------------------------------------------------------------


def blocks(*shifts: float, noise: float = 0.001, seed: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [shift + noise * rng.standard_normal(8) for shift in shifts]


def test_ab_effect_by_hand() -> None:
    pairs = [np.full(8, 0.01), np.full(8, 0.03)]
    effect = ab_effect(pairs)
    prior = 2 * 0.0025**2 + (1.858 * 2e-4) ** 2 / 8
    variance = (4 * prior + 2 * 0.01**2) / 5
    assert effect.value == pytest.approx(0.02)
    assert (effect.se, effect.df) == (pytest.approx(math.sqrt(variance / 2)), 5)


def test_ab_settles_in_one_block_when_it_is_clear() -> None:
    assert ab_decide(blocks(0.05), LIMIT).decision == "regressed"
    assert ab_decide(blocks(0.0), LIMIT).decision == "passed"
    assert ab_decide(blocks(-0.05), LIMIT).decision == "improved"


def test_ab_asks_for_a_block_and_ends_after_three() -> None:
    assert ab_decide(blocks(0.02), LIMIT).decision == "next block"
    last = ab_decide(blocks(0.0195, 0.0195, 0.0195), LIMIT)
    assert (last.decision, last.warning) == ("passed", True)
    assert ab_decide(blocks(0.024, 0.024, 0.024), LIMIT).decision == "regressed"


def test_ab_blocks_that_disagree_do_not_convict() -> None:
    last = ab_decide(blocks(-0.03, 0.0, 0.095), LIMIT)
    assert (last.decision, last.warning) == ("passed", True)


def test_ab_convicts_the_surer_the_more_is_compared() -> None:
    assert ab_decide(blocks(0.04), LIMIT).decision == "regressed"
    assert ab_decide(blocks(0.04), LIMIT, 30).decision == "next block"
    assert ab_decide(blocks(-0.04), LIMIT).decision == "improved"
    assert ab_decide(blocks(-0.04), LIMIT, 30).decision == "passed"
    scattered = blocks(0.0, 0.035, 0.03)
    assert ab_decide(scattered, LIMIT).decision == "regressed"
    assert (ab_decide(scattered, LIMIT, 30).decision, ab_decide(scattered, LIMIT, 30).warning) == ("passed", True)
    assert ab_decide(blocks(0.03, 0.03, 0.03), LIMIT, 30).decision == "regressed"


def test_the_third_look_has_a_third_of_the_error() -> None:
    """Above 0 at 95 %, but not at 1 - .05 / 3: by hand t = 2.67, between t(.95, 6) = 1.94 and t(.983, 6) = 2.75."""
    last = ab_decide(blocks(-0.005, 0.04, 0.03), LIMIT)
    assert last.effect.value > LIMIT
    assert last.effect.interval(0.95)[0] > 0 > last.low
    assert (last.decision, last.warning) == ("passed", True)


def test_ab_passes_as_surely_whatever_else_is_compared() -> None:
    assert ab_decide(blocks(0.005), LIMIT, 30).decision == ab_decide(blocks(0.005), LIMIT).decision == "passed"


def test_ab_needs_a_block() -> None:
    with pytest.raises(ValueError):
        ab_decide([], LIMIT)


# Rule 3 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "base", "expected"),
    [
        ([10] * 8, [10] * 8, "passed"),
        ([13] + [10] * 7, [10] * 8, "passed"),  # one prompt may flip
        ([12, 12] + [10] * 6, [10] * 8, "regressed"),
        ([11, 11] + [10] * 6, [10] * 8, "regressed"),
        ([11, 9] + [10] * 6, [10] * 8, "passed"),
        ([8, 8] + [10] * 6, [10] * 8, "improved"),
        ([28] * 8, [10] * 8, "regressed"),
        ([28] * 8, [28] * 8, "passed"),
        ([28], [27], "regressed"),
        ([28] * 8, [28] * 7 + [27], "regressed"),  # the only hit is gone
    ],
)
def test_cache_change(now: list[int], base: list[int], expected: str) -> None:
    assert cache_change(now, base, 28).decision == expected


def test_cache_change_names_vanished_hits() -> None:
    assert cache_change([28] * 8, [10] * 8, 28).hits_vanished
    assert not cache_change([20] * 8, [10] * 8, 28).hits_vanished
    with pytest.raises(ValueError):
        cache_change([1, 2], [1], 28)


# Rule 4 --------------------------------------------------------------------------------------------------


def test_beta_binomial_matches_a_direct_sum() -> None:
    # Uniform rate: every count 0..n is equally likely.
    assert beta_binomial_sf(3, 9, 1, 1) == pytest.approx(0.7)
    assert beta_binomial_sf(0, 9, 0.5, 9.5) == 1.0
    # Against numerical integration of the binomial over the Beta density.
    a, b, n, k = 2.5, 40.5, 30, 4
    p = (np.arange(200000) + 0.5) / 200000
    weight = p ** (a - 1) * (1 - p) ** (b - 1)
    weight /= weight.sum()
    tail = sum(math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(k, n + 1))
    assert beta_binomial_sf(k, n, a, b) == pytest.approx(float((weight * tail).sum()), rel=1e-4)


def test_tail_count_removes_the_shift_first() -> None:
    x = CENTRES + 0.5
    x[2] += math.log(1.2)
    assert tail_count(x, CENTRES) == 1
    assert tail_count(CENTRES + 0.5, CENTRES) == 0


def sessions(runs: np.ndarray) -> dict[str, np.ndarray]:
    return {f"s{r}": run for r, run in enumerate(runs)}


def pool(spikes: int, configurations: int = 30) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
    rng = np.random.default_rng(5)
    made = []
    for i in range(configurations):
        now = CENTRES + 0.002 * rng.standard_normal(8)
        if i < spikes:
            now[i % 8] += 0.3
        made.append((now, sessions(CENTRES + 0.002 * rng.standard_normal((3, 8)))))
    return made


def test_pooled_tail_warns_of_many_new_outliers_only() -> None:
    quiet, few, many = pooled_tail(pool(0)), pooled_tail(pool(2)), pooled_tail(pool(12))
    assert quiet is not None
    assert few is not None
    assert many is not None
    assert (quiet.warn, few.warn, many.warn) == (False, False, True)
    assert (many.count, many.samples, many.baseline_samples) == (12, 240, 720)


def test_a_tail_that_a_stored_run_had_too_is_no_news() -> None:
    pairs = []
    for i in range(10):
        runs, now = np.tile(CENTRES, (3, 1)), CENTRES.copy()
        if i < 6:
            runs[1, 0] += 0.3
        if i < 9:
            now[1] += 0.3
        pairs.append((now, sessions(runs)))
    found = pooled_tail(pairs)
    assert found is not None
    assert (found.count, found.baseline_count, found.probability < 0.01, found.warn) == (9, 6, True, False)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_an_outlier_is_as_large_in_a_stored_run_as_today(count: int) -> None:
    """Of 12 %: about the centre of two runs, one of them its own, it would be one of 6 % and not be counted."""
    runs, now = np.tile(CENTRES, (count, 1)), CENTRES.copy()
    for r in range(count):
        runs[r, r] += math.log(1.12)
    now[7] += math.log(1.12)
    found = pooled_tail([(now, sessions(runs))])
    assert found is not None
    assert (found.count, found.baseline_count) == (1, count)


def test_a_tail_of_few_samples_is_no_proof() -> None:
    now = CENTRES.copy()
    now[:3] += 0.3
    twice = sessions(np.tile(CENTRES, (2, 1)))
    found = pooled_tail([(now, twice), (CENTRES, twice)])
    assert found is not None
    assert (found.count, found.probability > 0.01, found.warn) == (3, True, False)


def test_a_session_whose_tail_was_long_is_one_whatever_else_is_stored() -> None:
    """Its runs are the first of one test and the third of another; together they are the worst stored session."""
    pairs = []
    for i in range(10):
        runs = {"a": CENTRES.copy(), "slow": CENTRES.copy(), "b": CENTRES.copy()}
        runs["slow"][0] += 0.3
        order = ("slow", "a", "b") if i % 2 else ("a", "b", "slow")
        now = CENTRES.copy()
        now[: 2 if i < 6 else 1] += 0.3
        pairs.append((now, {name: runs[name] for name in order}))
    found = pooled_tail(pairs)
    assert found is not None
    assert (found.count, found.baseline_count, found.probability < 0.01, found.warn) == (16, 10, True, False)


def test_pooled_tail_needs_two_runs() -> None:
    assert pooled_tail([(CENTRES, sessions(CENTRES[None, :]))]) is None
    assert pooled_tail([]) is None


# Scores --------------------------------------------------------------------------------------------------


def test_a_score_that_repeats_keeps_its_tolerance() -> None:
    assert noise_tolerance(0.01, [0.9]) == noise_tolerance(0.01, [0.9, 0.9, 0.9005]) == 0.01


def test_a_score_that_varies_between_sessions_is_given_its_own_noise() -> None:
    """By hand: mean .9, squares 2 x .008^2, variance (4 (.01/6)^2 + 1.28e-4) / 6; t(.99, 6) = 3.143."""
    by_hand = 3.1427 * math.sqrt((4 * (0.01 / 6) ** 2 + 1.28e-4) / 6 * 4 / 3)
    assert noise_tolerance(0.01, [0.892, 0.9, 0.908]) == pytest.approx(by_hand, rel=1e-4)
    assert by_hand > 0.016


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(1e-3, 0.1))
def test_noise_only_widens_a_tolerance(stored: list[float], tolerance: float) -> None:
    assert noise_tolerance(tolerance, stored) >= tolerance


def test_noise_of_no_score_is_an_error() -> None:
    with pytest.raises(ValueError):
        noise_tolerance(0.01, [])
