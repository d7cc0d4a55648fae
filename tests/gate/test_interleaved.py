from __future__ import annotations

import math

import pytest
import records as make

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.interleaved import Interleaved, judge_blocks, suspects
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.results import Block, Finding, Judgement, Result, Verdict


def block(change: float, seed: int = 0, drift: float = 0.0) -> Block:
    old, new = make.latencies(seed=seed), make.latencies(seed=seed + 1, shift=math.log1p(change))
    for i in range(8):  # Prompt pairs in the order AB BA AB ...
        first, second = (old, new) if i % 2 == 0 else (new, old)
        first[i] *= 1 + drift * (2 * i) / 16
        second[i] *= 1 + drift * (2 * i + 1) / 16
    return Block(old_s=tuple(old), new_s=tuple(new))


def abba(change: float, seed: int = 0, drift: float = 0.0) -> Block:
    """Four processes old, new, new, old, one after the other on a machine that slows by ``drift`` in all."""
    sides: dict[str, list[float]] = {"old": [], "new": []}
    for process, side in enumerate(("old", "new", "new", "old")):
        made = make.latencies(seed=seed + process, shift=math.log1p(change) if side == "new" else 0.0)
        sides[side] += [x * (1 + drift * (process * 8 + i) / 32) for i, x in enumerate(made)]
    return Block(old_s=tuple(sides["old"]), new_s=tuple(sides["new"]))


def test_a_clear_change_needs_one_block() -> None:
    slow = judge_blocks([block(0.05)], Policy.of())
    assert (slow.finding.verdict, slow.another_block, slow.warning) == ("regressed", False, None)
    assert slow.finding.change == pytest.approx(0.05, abs=0.005)
    assert "interleaved (+5" in slow.finding.message
    assert "8 pairs in 1 block)" in slow.finding.message
    assert judge_blocks([block(0.0)], Policy.of()).finding.verdict == "passed"
    assert judge_blocks([block(-0.06)], Policy.of()).finding.verdict == "improved"


def test_one_of_many_configurations_needs_more_than_one_block() -> None:
    assert judge_blocks([block(0.04)], Policy.of()).finding.verdict == "regressed"
    assert judge_blocks([block(0.04)], Policy.of(m=30)).another_block
    assert judge_blocks([block(0.04, s) for s in (0, 10, 20)], Policy.of(m=30)).finding.verdict == "regressed"


def test_an_open_question_asks_for_blocks_and_ends() -> None:
    blocks = [block(0.0195, seed) for seed in (0, 10, 20)]
    first = judge_blocks(blocks[:1], Policy.of())
    assert (first.finding.verdict, first.another_block) == ("inconclusive", True)
    last = judge_blocks(blocks, Policy.of())
    assert not last.another_block
    assert (last.finding.verdict == "regressed") or last.warning is not None


@pytest.mark.parametrize("drift", [-0.10, 0.10])
def test_a_drift_of_ten_percent_over_the_run_cancels(drift: float) -> None:
    assert judge_blocks([block(0.0, s, drift) for s in (0, 10, 20)], Policy.of()).finding.verdict == "passed"
    assert judge_blocks([block(0.05, s, drift) for s in (0, 10, 20)], Policy.of()).finding.verdict == "regressed"


@pytest.mark.parametrize("drift", [-0.10, 0.10])
def test_a_drift_over_alternating_processes_cancels(drift: float) -> None:
    def judged(change: float) -> Interleaved:
        return judge_blocks([abba(change, s, drift) for s in (0, 10, 20)], Policy.of(), alternating=True)

    assert judged(0.0).finding.verdict == "passed"
    assert judged(0.05).finding.verdict == "regressed"
    assert "alternating processes" in judged(0.05).finding.message


def test_unequal_sides_are_refused() -> None:
    with pytest.raises(FluxPerfError, match="made 2 and 0 generations"):
        judge_blocks([Block(old_s=(1.0, 1.0), new_s=())], Policy.of())


def result(test: str, verdict: Verdict, change: float, metric: str = "latency") -> Result:
    found = Finding(metric=metric, verdict=verdict, change=change)
    return Result(
        test=test,
        recipe=make.RECIPE,
        reference=make.REFERENCE,
        workload=make.workload(),
        measurement=make.measurement(),
        judgement=Judgement(verdict=verdict, message="", findings=(found,)),
    )


def test_suspects_come_worst_first_in_any_order_of_tests() -> None:
    results = [
        result("a", "passed", 0.0), result("b", "inconclusive", 0.01), result("c", "regressed", 0.05),
        result("d", "regressed", 0.20), result("e", "regressed", -0.1, "SSIM"), result("f", "inconclusive", 0.015),
    ]  # fmt: skip
    for ordered in (results, results[::-1]):
        assert [r.test for r in suspects(ordered)] == ["d", "c", "f", "b"]


def test_a_lost_speed_up_is_a_suspect_too() -> None:
    results = [result("a", "regressed", -0.2, "speed-up"), result("b", "regressed", -0.3, "speed-up")]
    assert [r.test for r in suspects(results)] == ["b", "a"]
