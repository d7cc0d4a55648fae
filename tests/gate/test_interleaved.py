from __future__ import annotations

import math

import pytest
import records as make

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.interleaved import judge_blocks, suspects
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.results import Finding, Judgement, Measurement, Result, Verdict


def block(change: float, seed: int = 0, drift: float = 0.0) -> tuple[Measurement, Measurement]:
    old, new = make.latencies(seed=seed), make.latencies(seed=seed + 1, shift=math.log1p(change))
    for i in range(8):  # Prompt pairs in the order AB BA AB ...
        first, second = (old, new) if i % 2 == 0 else (new, old)
        first[i] *= 1 + drift * (2 * i) / 16
        second[i] *= 1 + drift * (2 * i + 1) / 16
    return make.measurement(old), make.measurement(new)


def test_a_clear_change_needs_one_block() -> None:
    slow = judge_blocks([block(0.05)], Policy.of())
    assert (slow.finding.verdict, slow.another_block, slow.warning) == ("regressed", False, None)
    assert slow.finding.change == pytest.approx(0.05, abs=0.005)
    assert "interleaved (+5" in slow.finding.message
    assert "8 pairs in 1 block)" in slow.finding.message
    assert judge_blocks([block(0.0)], Policy.of()).finding.verdict == "passed"
    assert judge_blocks([block(-0.06)], Policy.of()).finding.verdict == "improved"


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


def test_unequal_sides_are_refused() -> None:
    with pytest.raises(FluxPerfError, match="made 8 generations and the new one 0"):
        judge_blocks([(make.measurement(), Measurement(generations=()))], Policy.of())


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
