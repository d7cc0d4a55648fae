from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_fluxperf.gate.spread import common_shift, scatter, settle, within_run
from pytest_fluxperf.gate.times import SessionTimes, StoredTimes, TimedTest, judge_times

LIMIT = math.log(1.02)
CARD = "GPU-1"


def timed(
    name: str,
    now: float | np.ndarray = 0.0,
    levels: Sequence[float] = (0.0, 0.0, 0.0),
    *,
    n: int = 8,
    noise: float = 0.002,
    card: str = CARD,
    again: float | np.ndarray | None = None,
    **changes: object,
) -> TimedTest:
    """A test whose stored sessions lie at ``levels``, with prompts that differ far more than runs do."""
    rng = np.random.default_rng(sum(map(ord, name)))
    centres = np.linspace(-0.3, 0.3, n)

    def run(level: float | np.ndarray) -> np.ndarray:
        return centres + level + noise * rng.standard_normal(n)

    stored = tuple(StoredTimes(f"s{r}", card, run(level)) for r, level in enumerate(levels))
    made = TimedTest(name, run(now), stored, LIMIT, busy=0.99, card=CARD, process="1")
    return replace(made, again=None if again is None else run(again), **changes)  # type: ignore[arg-type]


def others(
    count: int = 14, now: float = 0.0, levels: Sequence[float] = (0.0, 0.0, 0.0), **changes: object
) -> list[TimedTest]:
    """Tests that lie .3 % about what they share, now and in every stored session."""
    rng = np.random.default_rng(7)
    return [
        timed(
            f"other {i}",
            now + 0.003 * rng.standard_normal(),
            [level + 0.003 * rng.standard_normal() for level in levels],
            **changes,  # type: ignore[arg-type]
        )
        for i in range(count)
    ]


def decisions(session: SessionTimes) -> list[str]:
    return [verdict.decision for verdict in session.tests]


# One test among others -----------------------------------------------------------------------------------


def test_nothing_changed_passes() -> None:
    session = judge_times([timed("t"), *others()])
    assert set(decisions(session)) == {"passed"}
    (common,) = session.common
    assert (common.decision, common.known_card, common.tests) == ("passed", True, 15)


@pytest.mark.parametrize(("change", "decision"), [(0.03, "regressed"), (-0.03, "improved")])
def test_one_of_many_that_changed_by_three_percent_is_seen(change: float, decision: str) -> None:
    session = judge_times([timed("t", change), *others()])
    assert session.tests[0].decision == decision
    assert session.tests[0].effect.value == pytest.approx(change, abs=0.004)
    assert "regressed" not in decisions(session)[1:]


def test_what_all_share_is_taken_out_and_is_a_finding_of_its_own() -> None:
    """A card that is 1.2 % slower hides nothing and blames no one."""
    session = judge_times([timed("t", 0.042), *others(now=0.012)])
    assert session.tests[0].decision == "regressed"
    assert session.tests[0].effect.value == pytest.approx(0.03, abs=0.004)
    assert session.tests[0].common == pytest.approx(0.012, abs=0.003)
    assert set(decisions(session)[1:]) == {"passed"}
    assert session.common[0].decision == "passed"


def test_everything_slower_is_seen_on_a_card_that_the_baseline_knows() -> None:
    session = judge_times(others(now=math.log(1.03)))
    (common,) = session.common
    assert (common.decision, common.known_card) == ("regressed", True)
    assert common.effect.value == pytest.approx(math.log(1.03), abs=0.004)


def test_everything_slower_on_an_unknown_card_is_undecided_until_it_is_more_than_cards_differ() -> None:
    (common,) = judge_times(others(now=math.log(1.03), card="GPU-2")).common
    assert (common.decision, common.known_card) == ("inconclusive", False)
    (common,) = judge_times(others(now=math.log(1.06), card="GPU-2")).common
    assert common.decision == "regressed"


def test_half_of_the_tests_slower_are_the_ones_that_are_blamed() -> None:
    session = judge_times([*others(15), *[replace(t, now=t.now + 0.03) for t in others(14)]])
    found = decisions(session)
    assert "regressed" not in found[:15]
    assert found[15:].count("regressed") > 10


@pytest.mark.parametrize(("faster", "weather"), [(0.02, 0.0), (0.03, 0.0), (0.03, 0.012), (0.025, 0.01)])
def test_tests_are_not_blamed_for_others_that_got_faster(faster: float, weather: float) -> None:
    """Two thirds faster: the rest is slower than they are, and as it was. A slow card hides a part of it."""
    rest = [replace(t, now=t.now + weather, again=t.now + weather) for t in others(10)]
    session = judge_times([*rest, *[replace(t, now=t.now + weather - faster) for t in others(20)]])
    assert "regressed" not in decisions(session)


def test_cards_and_processes_have_weather_of_their_own() -> None:
    """One card 1.5 % slower, the other 1.5 % faster: neither speaks for the other's tests."""
    slow = [replace(t, now=t.now + 0.015, process="2") for t in others(8)]
    fast = [replace(t, now=t.now - 0.015, card="GPU-2") for t in others(8)]
    session = judge_times([*slow, *fast])
    assert set(decisions(session)) == {"passed"}
    assert [(c.process, c.card) for c in session.common] == [("2", CARD), ("1", "GPU-2")]


def test_a_lone_test_is_judged_by_itself() -> None:
    (verdict,) = judge_times([timed("t", 0.05)]).tests
    assert (verdict.decision, verdict.common) == ("regressed", 0.0)


def test_the_more_is_judged_the_surer_a_regression_must_be() -> None:
    few, many = (judge_times([timed("t", 0.03), *others(count)]).tests[0] for count in (5, 60))
    assert few.critical <= many.critical
    noisy = [judge_times([timed("t", 0.03, noise=0.01), *others(count)]).tests[0].critical for count in (8, 40)]
    assert noisy[0] < noisy[1]


def test_tests_that_wait_for_the_host_are_given_their_noise() -> None:
    """5 % is nothing there, and such tests do not say what the device's weather is."""
    hosts = [replace(t, now=t.now + 0.05, busy=0.8) for t in others(6)]
    session = judge_times([timed("t", 0.03), *others(8), *hosts])
    assert session.tests[0].decision == "regressed"
    assert "regressed" not in decisions(session)[1:]
    assert abs(session.tests[0].common) < 0.003


def test_a_session_that_waits_for_the_host_is_not_slower_unseen() -> None:
    """Hosts differ by 2.5 %, so +6 % of everything is weather; +20 % is a finding, and taken out of no test."""
    for change, decision in ((0.06, "inconclusive"), (0.20, "regressed")):
        hosts = [replace(t, now=t.now + change, busy=0.7) for t in others(20)]
        (common,) = judge_times(hosts).common
        assert (common.decision, common.tests) == (decision, 20)
    assert judge_times(hosts).tests[0].common == 0.0


def test_tests_that_scatter_more_than_their_noise_says_widen_it() -> None:
    """.8 % between sessions where .35 % is usual: of 20 unchanged sessions 5 would fail otherwise."""
    rng = np.random.default_rng(3)
    wild = [
        [timed(f"w{i}", 0.008 * rng.standard_normal(), 0.008 * rng.standard_normal(3)) for i in range(25)]
        for _ in range(20)
    ]
    assert sum("regressed" in decisions(judge_times(session)) for session in wild) <= 1


# Stored runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [0.04, 0.10])
def test_one_bad_stored_run_hides_no_slowdown(change: float) -> None:
    session = judge_times([timed("t", math.log1p(change), (0.0, 0.0, 0.05)), *others()])
    assert session.tests[0].decision == "regressed"


def test_of_two_stored_runs_the_slow_one_is_the_odd_one() -> None:
    for levels in ((0.0, 0.05), (0.05, 0.0)):
        session = judge_times([timed("t", math.log(1.05), levels), *others(levels=(0.0, 0.0))])
        assert session.tests[0].decision == "regressed"


def test_runs_that_creep_are_seen() -> None:
    """Each appended run 1.8 % above the last: within the tolerance of it, and of the first ones only so long."""
    for stored in (2, 4, 6):
        levels = [0.018 * r for r in range(stored)]
        steady = others(levels=[0.0] * stored)
        assert judge_times([timed("t", 0.018 * stored, levels), *steady]).tests[0].decision == "regressed"
        (common,) = judge_times(others(now=0.018 * stored, levels=levels)).common
        assert common.decision == "regressed"


def test_what_stored_sessions_share_is_no_noise_of_a_test() -> None:
    """Cards 1.5 % apart: each test repeats beside the others, and +3 % of one is seen."""
    levels = (0.0, 0.015, -0.015)
    session = judge_times([timed("t", 0.03, levels), *others(levels=levels)])
    assert session.tests[0].decision == "regressed"


def test_settled_levels_by_hand() -> None:
    """Lower median of 0, 0, +5 % is 0; the third counts as 2.5 x .35 %."""
    centre, variance = settle(np.array([0.0, 0.0, 0.05]), 0.0035, 4)
    assert centre == pytest.approx(0.00875 / 3)
    assert variance == pytest.approx((4 * 0.0035**2 + 0.00875**2 * 2 / 3) / 6)


@given(st.lists(st.floats(-0.2, 0.2), min_size=4, max_size=12), st.floats(0.002, 0.03))
def test_later_runs_move_a_test_by_no_more_than_their_noise(levels: list[float], tau0: float) -> None:
    pinned = sorted(levels[:3])[1]
    centre, _ = settle(np.array(levels), tau0, 4)
    assert abs(centre - pinned) <= 2.5 * tau0 + 1e-12


def test_noise_within_a_run_is_pooled_over_runs() -> None:
    rng = np.random.default_rng(0)
    found = [within_run(rng.normal(0, 0.03, (4, 2)) + rng.normal(0, 1, 2)) for _ in range(2000)]
    assert np.median([sd for sd, _ in found]) == pytest.approx(0.03, rel=0.2)
    assert found[0][1] == pytest.approx(0.37 * 3)
    assert within_run(np.zeros((1, 2)))[1] == 0


# Parts of the prompts, and the second measurement ---------------------------------------------------------


def part(slow: int, ratio: float, n: int = 8) -> np.ndarray:
    return np.where(np.arange(n) < slow, math.log(ratio), 0.0)


@pytest.mark.parametrize(("slow", "ratio"), [(3, 1.5), (4, 2.0), (2, 1.3)])
def test_a_part_of_the_prompts_that_is_slower_twice_fails(slow: int, ratio: float) -> None:
    change = part(slow, ratio)
    (once, *_) = judge_times([timed("t", change), *others()]).tests
    assert (once.decision, once.slow_prompts, once.again) == ("inconclusive", tuple(range(slow)), True)
    (twice, *_) = judge_times([timed("t", change, again=change), *others()]).tests
    assert (twice.decision, twice.slow_prompts, twice.again) == ("regressed", tuple(range(slow)), False)


def test_other_prompts_slower_the_second_time_are_outliers() -> None:
    change = part(3, 1.5)
    for again in (np.zeros(8), np.roll(change, 4)):
        (verdict, *_) = judge_times([timed("t", change, again=again), *others()]).tests
        assert (verdict.decision, verdict.slow_prompts) == ("passed", ())


def test_one_slow_prompt_of_many_is_a_matter_of_the_tail() -> None:
    (verdict, *_) = judge_times([timed("t", part(1, 2.0)), *others()]).tests
    assert (verdict.decision, verdict.slow_prompts) == ("passed", ())


def test_of_two_prompts_one_that_is_slower_twice_fails() -> None:
    change = part(1, 1.5, n=2)
    (once, *_) = judge_times([timed("t", change, n=2), *others()]).tests
    assert (once.decision, once.slow_prompts) == ("inconclusive", (0,))
    (twice, *_) = judge_times([timed("t", change, n=2, again=change), *others()]).tests
    assert twice.decision == "regressed"


def test_the_second_measurement_acquits() -> None:
    (first, *_) = judge_times([timed("t", 0.05), *others()]).tests
    assert (first.decision, first.again) == ("regressed", True)
    (second, *_) = judge_times([timed("t", 0.05, again=0.0), *others()]).tests
    assert (second.decision, second.again) == ("passed", False)


def test_a_change_wholly_beyond_the_tolerance_twice_fails() -> None:
    """Of a test that waits for the host +9 % once is not beyond chance among fifteen; twice it is no quiet pass."""
    host = timed("t", 0.09, busy=0.85)
    (once, *_) = judge_times([host, *others()]).tests
    assert (once.decision, once.again) == ("inconclusive", True)
    assert once.effect.interval()[0] > LIMIT
    (twice, *_) = judge_times([timed("t", 0.09, busy=0.85, again=0.09), *others()]).tests
    assert twice.decision == "regressed"


# Speed-ups on a CPU ---------------------------------------------------------------------------------------


def speed_up(now: float, runs: int) -> TimedTest:
    return timed("t", now, [0.0] * runs, noise=0.03, relative=True, limit=math.log(1.17), busy=None)


def test_a_slower_speed_up_fails_against_three_stored_runs_only() -> None:
    assert [judge_times([speed_up(0.4, runs)]).tests[0].decision for runs in (1, 2, 3)] == [
        "inconclusive",
        "inconclusive",
        "regressed",
    ]


def test_a_second_measurement_does_not_stand_in_for_stored_runs() -> None:
    one = replace(speed_up(0.4, 1), again=speed_up(0.4, 1).now)
    assert judge_times([one]).tests[0].decision == "inconclusive"


def test_speed_ups_share_nothing() -> None:
    session = judge_times([speed_up(0.1, 3) for _ in range(10)])
    assert {verdict.common for verdict in session.tests} == {0.0}
    assert session.common == ()


# What tests share ----------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(-0.05, 0.05), min_size=0, max_size=12),
    st.floats(0.001, 0.02),
    st.floats(0.001, 0.02),
)
def test_a_common_shift_is_symmetric_and_within_what_was_seen(values: list[float], scale: float, prior: float) -> None:
    found, scales = np.array(values), np.full(len(values), scale)
    shift, sd = common_shift(found, scales, prior)
    mirrored, _ = common_shift(-found, scales, prior)
    assert min([0.0, *values]) - 1e-12 <= shift <= max([0.0, *values]) + 1e-12
    assert 0 < sd <= prior * (1 + 1e-12)
    if len(values) < 3:  # with more, a tie between two groups goes to the one found first
        assert mirrored == pytest.approx(-shift, abs=1e-9)
    assert scatter(found, scales, prior) >= 1


@settings(deadline=None, max_examples=25)
@given(st.floats(-0.01, 0.01))
def test_a_shift_that_weather_can_make_changes_no_decision(shift: float) -> None:
    session = judge_times([timed("t", 0.04 + shift), *others(now=shift)])
    assert session.tests[0].decision == "regressed"
    assert "regressed" not in decisions(session)[1:]


def test_stored_runs_of_other_prompts_are_an_error() -> None:
    test = timed("t")
    with pytest.raises(ValueError, match="t: stored runs of 7 prompts"):
        judge_times([replace(test, now=test.now[:7])])
    with pytest.raises(ValueError, match="stored runs"):
        judge_times([replace(test, stored=())])


def test_no_tests_are_no_session() -> None:
    assert judge_times([]) == SessionTimes((), ())
