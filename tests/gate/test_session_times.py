from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
import records as make

from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.gate.session_times import judge_results, log_times, outside_effect, stored_times, timed_test
from pytest_fluxperf.gate.statistics import decide
from pytest_fluxperf.results import Baseline, Judgement, Measurement, Result

POLICY = Policy.of("absolute")


def base(*seconds: list[float], **changes: Any) -> Baseline:
    runs = tuple(
        make.run(make.measurement(s), session=f"s{i}", gpu_uuid=f"GPU-{i}", device_busy=0.99 - i / 100)
        for i, s in enumerate(seconds)
    )
    return make.baseline(runs=runs, **changes)


def stored(seed: int = 0) -> Baseline:
    return base(*(make.latencies(seed=seed + i) for i in range(3)))


def timed(measurement: Measurement, baseline: Baseline, policy: Policy = POLICY, **changes: Any) -> Any:
    return timed_test("t", measurement, baseline, policy, card="GPU-1", process="1", **changes)


def result(test: str, shift: float, seed: int, **changes: Any) -> Result:
    measured = make.measurement(make.latencies(seed=seed + 9, shift=shift))
    values: dict[str, Any] = {
        "test": test,
        "recipe": make.RECIPE,
        "reference": make.REFERENCE,
        "workload": make.workload(),
        "measurement": measured,
        "baseline": stored(seed),
        "judgement": Judgement(verdict="passed", message=""),
        "run": make.run(measured, gpu_uuid="GPU-1"),
    }
    return Result(**{**values, **changes})


def test_a_test_is_read_from_its_records() -> None:
    seconds = make.latencies(seed=5)
    test = timed(make.measurement(seconds), stored())
    assert (test.test, test.card, test.process, test.limit, test.busy) == ("t", "GPU-1", "1", POLICY.limit, 0.98)
    assert [(s.session, s.card) for s in test.stored] == [("s0", "GPU-0"), ("s1", "GPU-1"), ("s2", "GPU-2")]
    assert test.now == pytest.approx(np.log(np.array(seconds) * 0.95))  # denoising and decoding


def test_where_one_side_lacks_its_phases_the_whole_latency_is_judged() -> None:
    seconds = make.latencies(seed=5)
    measured = make.measurement(seconds)
    bare = msgspec.structs.replace(
        measured, generations=tuple(msgspec.structs.replace(g, denoise_s=None) for g in measured.generations)
    )
    test = timed(bare, stored())
    assert test.now == pytest.approx(np.log(seconds))
    assert test.stored[0].y == pytest.approx(np.log(make.latencies(seed=0)))


def test_rounds_count_as_each_prompts_median() -> None:
    """Of three rounds the slow one is not seen; a round that is not complete says nothing."""
    seconds = make.latencies(noise=0)
    rounds = [*seconds, *(3 * s for s in seconds), *(1.01 * s for s in seconds)]
    made = make.measurement(rounds).generations
    found = log_times(made, make.N, relative=False, phases=False)
    assert found == pytest.approx(np.log(np.array(seconds) * 1.01))
    assert log_times(made[:-1], make.N, relative=False, phases=False) is None


def test_a_speed_up_is_relative_to_its_reference() -> None:
    seconds = make.latencies()
    policy = Policy.of("relative")
    paired = make.run(make.measurement(seconds, reference=[2 * s for s in seconds]))
    baseline = make.baseline(runs=(paired,))
    test = timed(make.measurement(seconds, reference=[1.5 * s for s in seconds]), baseline, policy)
    assert test.relative
    assert test.now == pytest.approx(np.full(make.N, -math.log(1.5)))
    assert test.stored[0].y == pytest.approx(np.full(make.N, -math.log(2)))
    assert timed(make.measurement(seconds), baseline, policy) is None


def test_runs_of_one_session_are_one() -> None:
    runs = tuple(make.run(make.measurement(make.latencies(noise=0, shift=x)), session="s") for x in (0.0, 0.1, 0.02))
    (only,) = stored_times(make.baseline(runs=runs), relative=False, phases=False)
    assert only.y == pytest.approx(np.log(make.latencies(noise=0)) + 0.02)


def test_a_session_is_judged_together() -> None:
    """Everything 1.2 % slower, one test 5 %: the one is blamed, by its own 3.8 %."""
    results = [result("slow", 0.05, 100), *(result(f"t{i}", 0.012, i) for i in range(12))]
    session = judge_results(results, {r.test: POLICY for r in results})
    assert session.tests["slow"].decision == "regressed"
    assert session.tests["slow"].effect.value == pytest.approx(0.038, abs=0.004)
    assert {v.decision for test, v in session.tests.items() if test != "slow"} == {"passed"}
    assert session.common[0].decision == "passed"


def test_a_second_measurement_is_read_too() -> None:
    results = [result("slow", 0.05, 100), *(result(f"t{i}", 0.0, i) for i in range(12))]
    again = {"slow": make.measurement(make.latencies(seed=50))}
    policies = {r.test: POLICY for r in results}
    assert judge_results(results, policies).tests["slow"].again
    assert judge_results(results, policies, again).tests["slow"].decision == "passed"


def test_what_cannot_be_judged_says_nothing_about_others() -> None:
    results = [result("a", 0.0, 0), result("b", 0.0, 1, run=None), result("c", 0.0, 2, baseline=None)]
    assert set(judge_results(results, {r.test: POLICY for r in results}).tests) == {"a"}


def test_time_outside_of_the_phases_is_no_blind_spot() -> None:
    """Text encoding is 5 % of a generation here: a tenth more of it is weather, twice as much is not."""
    seconds = make.latencies(noise=0)

    def effect(text: float) -> Any:
        made = make.measurement([s * (1 + text - 0.05) for s in seconds]).generations
        made = tuple(
            msgspec.structs.replace(g, denoise_s=0.85 * s, decode_s=0.1 * s) for g, s in zip(made, seconds, strict=True)
        )
        found = outside_effect(Measurement(generations=made), base(*[seconds] * 3))
        assert found is not None
        return found

    assert effect(0.05).value == pytest.approx(0, abs=1e-9)
    assert decide(effect(0.055), POLICY.limit) != "regressed"
    assert decide(effect(0.15), POLICY.limit) == "regressed"
    assert effect(0.15).value == pytest.approx(0.1, abs=0.01)


def test_time_outside_is_unknown_without_phases() -> None:
    bare = tuple(msgspec.structs.replace(g, decode_s=None) for g in make.measurement().generations)
    assert outside_effect(Measurement(generations=bare), stored()) is None
