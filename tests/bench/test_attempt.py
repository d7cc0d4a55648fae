"""What is known of a test that was measured: rounds, a second look, a profile."""

from __future__ import annotations

import math
from typing import Any

import records as make

from pytest_fluxperf.bench.attempt import Attempt
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.results import KernelTable, Measurement, PictureScores, Quality


def attempt(measured: Measurement | None = None, quality: Quality | None = None, **changes: Any) -> Attempt:
    values: dict[str, Any] = {
        "case": make.case(),
        "baseline": make.baseline(),
        "rounds": (make.measurement(make.latencies(seed=9)) if measured is None else measured,),
        "scores": PictureScores(reference=make.quality() if quality is None else quality),
    }
    return Attempt(**{**values, **changes})


def hot(**changes: Any) -> Measurement:
    """Measured while the machine was unfit."""
    return make.measurement(make.latencies(seed=9, shift=0.5), unfit=("the GPU was throttled (hot)",), **changes)


def test_a_second_look_clears_the_times_of_the_first() -> None:
    first = attempt(hot())
    second = attempt(before=first)

    assert first.disturbed
    assert first.judgement.verdict == "invalid"
    assert second.judgement.verdict == "passed"
    assert second.judgement.warnings == ("measured twice: the first time the GPU was throttled (hot)",)


def test_a_second_look_does_not_take_back_pictures_that_were_worse() -> None:
    first = attempt(hot(), make.quality(ssim=0.5))
    judgement = attempt(before=first).judgement

    assert judgement.verdict == "regressed"
    assert judgement.message.startswith("SSIM 0.9000 → 0.5000 (median of 8")
    assert "also SSIM of one prompt" in judgement.message
    (ssim,) = [finding for finding in judgement.findings if finding.metric == "SSIM"]
    assert (ssim.verdict, ssim.now) == ("regressed", 0.5)
    assert ssim.message.endswith("the first time it was measured")


def test_a_second_look_does_not_take_back_a_crossed_floor_where_there_is_no_baseline() -> None:
    case = make.case(policy=Policy.of(min_ssim=0.6))
    first = attempt(hot(), make.quality(ssim=0.5), case=case, baseline=None)
    judgement = attempt(before=first, case=case, baseline=None).judgement

    assert judgement.verdict == "regressed"
    assert "worst 0.5, the first time it was measured" in judgement.message


def test_a_second_look_does_not_take_back_graph_breaks() -> None:
    first = attempt(hot(graph_breaks=3, facts={"graph_breaks": 3}))
    second = attempt(before=first)

    assert second.measurement.graph_breaks == second.measurement.facts["graph_breaks"] == 3
    assert second.judgement.verdict == "regressed"
    assert "graph breaks 0 → 3" in second.judgement.message


def test_a_second_look_does_not_take_back_a_cache_that_never_hit() -> None:
    never = make.measurement(make.latencies(seed=9), computed=[28] * make.N, unfit=("hot",))
    judgement = attempt(before=attempt(never)).judgement

    assert judgement.verdict == "regressed"
    assert "the step cache never hit" in judgement.message


def test_what_got_worse_in_the_second_look_counts_as_seen_there() -> None:
    judgement = attempt(quality=make.quality(ssim=0.5), before=attempt(hot())).judgement

    assert judgement.verdict == "regressed"
    assert "first time" not in judgement.message


def test_what_is_broken_needs_no_second_look() -> None:
    assert not attempt(hot(problems=("black",))).disturbed
    assert attempt(before=attempt(hot(problems=("black",)))).judgement.verdict == "broken"


def test_a_round_more_joins_what_was_measured() -> None:
    policy = Policy.of("relative")
    reference = [2 * s for s in make.latencies()]
    stored = make.baseline(
        make.run(make.measurement(reference=reference)), hardware=make.CPU, recipe=make.RECIPE, reference=make.REFERENCE
    )
    slow = make.measurement(make.latencies(shift=math.log(1.5)), reference=reference, peak_memory_mib=1000.0)
    first = attempt(slow, case=make.case(policy=policy, hardware=make.CPU), baseline=stored)
    second = first.joined(make.measurement(make.latencies(), reference=reference, peak_memory_mib=2000.0))

    assert first.wants_another_round
    assert len(second.measurement.generations) == 2 * make.N
    assert second.measurement.peak_memory_mib == 2000
    assert len(first.measurement.generations) == make.N, "the attempt before is as it was"


def test_a_profile_and_what_went_wrong_afterwards_are_added() -> None:
    table = KernelTable(device="cpu", kernels=(), busy_s=0.1)
    known = attempt()

    assert known.profiled(table).measurement.kernels == table
    assert known.joined(make.measurement()).profiled(table).measurement.kernels == table
    assert known.failed("raised").judgement.verdict == "broken"
    assert known.measurement.kernels is None
