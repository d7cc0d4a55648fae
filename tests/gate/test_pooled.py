from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
import records as make

from pytest_fluxperf.baseline.run import record
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.compare import compare_documents, tail_warning
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.results import RESULTS_FORMAT, Finding, Judgement, PictureScores, Result, RunDocument, Skipped

JUDGED = Judgement(
    verdict="passed", message="", findings=(Finding(metric="latency", verdict="passed", tolerance=0.02),)
)


def result(test: str, seed: int = 0, shift: float = 0.0, **changes: Any) -> Result:
    measured = make.measurement(make.latencies(seed=seed, shift=shift))
    run = record(
        measured,
        PictureScores(reference=make.quality()),
        session=f"s{seed}",
        environment=make.ENVIRONMENT,
        time_utc="t",
    )
    values: dict[str, Any] = {
        "test": test,
        "recipe": make.RECIPE,
        "reference": make.REFERENCE,
        "workload": make.workload(),
        "measurement": measured,
        "quality": make.quality(),
        "judgement": JUDGED,
        "run": run,
    }
    return Result(**{**values, **changes})


def document(*results: Result, **changes: Any) -> RunDocument:
    values: dict[str, Any] = {
        "format": RESULTS_FORMAT,
        "session": "s",
        "time_utc": "2026-01-02T03:04:05Z",
        "plugin": "0.1.0",
        "gpu": "h100",
        "hardware": make.H100,
        "environment": make.ENVIRONMENT,
        "collected": len(results),
        "gated": 0,
        "results": results,
    }
    return RunDocument(**{**values, **changes})


def verdicts(compared: RunDocument) -> dict[str, str]:
    return {result.test: result.judgement.verdict for result in compared.results}


def test_two_recorded_sessions_are_judged_by_the_same_rule() -> None:
    base = document(*(result(t, seed) for seed, t in enumerate("abcdf")))
    newer = msgspec.structs.replace(make.ENVIRONMENT, packages={**make.ENVIRONMENT.packages, "torch": "2.12"})
    new = document(
        result("a", 10), result("b", 11, math.log(1.2)), result("c", 12, -math.log(1.2)), result("e", 13),
        environment=newer,
    )  # fmt: skip
    compared = compare_documents(base, new, Policy.of(max_slowdown=0.05))
    assert verdicts(compared) == {"a": "passed", "b": "regressed", "c": "improved", "e": "no baseline"}
    assert compared.gated == 3
    assert compared.warnings == ("in the first session only: d, f",)
    assert compared.results[3].judgement.message == "the first session did not measure it"
    assert "torch 2.11.0 → 2.12" in compared.results[1].judgement.message


def test_what_was_measured_and_is_skipped_now_is_broken() -> None:
    lost = (
        Skipped(test="b", recipe=make.RECIPE, reason="needs torchao"),
        Skipped(test="z", recipe=None, reason="long"),
    )
    left_out = Skipped(test="c", recipe=make.RECIPE, reason="takes minutes", marked=True)
    base, new = document(*map(result, "abc")), document(result("a", 9), skipped=(*lost, left_out))
    compared = compare_documents(base, new, Policy.of(max_slowdown=0.05))
    assert verdicts(compared) == {"a": "passed", "b": "broken"}
    assert compared.results[1].judgement.message == "was skipped: needs torchao"
    assert [skip.test for skip in compared.skipped] == ["z", "c"]
    assert compared.gated == 2
    assert compared.warnings == ("in the first session only: c",)
    elsewhere = msgspec.structs.replace(new, hardware=msgspec.structs.replace(make.H100, name="NVIDIA H200"))
    assert verdicts(compare_documents(base, elsewhere, Policy.of())) == {"a": "no baseline"}


def test_each_test_may_keep_its_own_tolerance() -> None:
    base = document(result("a"), result("b"))
    new = document(result("a", 9, 0.05), result("b", 10, 0.05, max_slowdown=0.20))
    assert verdicts(compare_documents(base, new, Policy.of())) == {"a": "regressed", "b": "regressed"}
    own = compare_documents(base, new, Policy.of(), own_tolerances=True)
    assert verdicts(own) == {"a": "regressed", "b": "passed"}


def test_bonferroni_counts_the_tests_that_can_be_compared() -> None:
    one = compare_documents(document(result("a")), document(result("a", 9, 0.035)), Policy.of(m=99))
    assert verdicts(one) == {"a": "regressed"}
    base, rest = document(*map(result, "abcdefghijkl")), [result(t, 9) for t in "bcdefghijkl"]
    twelve = compare_documents(base, document(result("a", 9, 0.035), *rest), Policy.of())
    assert verdicts(twelve)["a"] == "inconclusive"


def test_the_order_of_tests_does_not_matter() -> None:
    base = [result(t, seed) for seed, t in enumerate("abc")]
    new = [result(t, 20 + seed, 0.03 * seed) for seed, t in enumerate("abc")]
    there = compare_documents(document(*base), document(*new), Policy.of())
    back = compare_documents(document(*base[::-1]), document(*new[::-1]), Policy.of())
    assert there.results == back.results[::-1]


def test_another_machine_or_workload_is_not_compared() -> None:
    h200 = msgspec.structs.replace(make.H100, name="NVIDIA H200")
    compared = compare_documents(document(result("a")), document(result("a", 1), hardware=h200), Policy.of())
    assert verdicts(compared) == {"a": "no baseline"}
    assert compared.results[0].judgement.message.startswith("the first session was recorded on NVIDIA H100")
    assert compared.gated == 0
    longer = make.workload(steps=50)
    compared = compare_documents(document(result("a")), document(result("a", 1, workload=longer)), Policy.of())
    assert compared.results[0].judgement.message.startswith("the first session is of another workload (steps")
    assert "--fluxperf" not in compared.results[0].judgement.message


def test_nothing_in_common_is_an_error() -> None:
    for base in (document(result("b")), document(result("a", run=None)), document()):
        with pytest.raises(FluxPerfError, match="no test in common"):
            compare_documents(base, document(result("a")), Policy.of())
    with pytest.raises(FluxPerfError, match=f"format {RESULTS_FORMAT + 1}"):
        compare_documents(document(result("a"), format=RESULTS_FORMAT + 1), document(result("a")), Policy.of())


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda samples: (msgspec.structs.replace(samples[0], latency_s=0.0), *samples[1:]), "samples[0].latency_s"),
        (lambda samples: (*samples[:-1], msgspec.structs.replace(samples[-1], latency_s=-1.0)), "samples[7].latency_s"),
        (lambda samples: samples[:-1], "samples: holds 7 for 8 prompts"),
    ],
)
def test_a_damaged_first_session_is_refused(damage: Any, complaint: str) -> None:
    whole = result("a")
    assert whole.run is not None
    damaged = msgspec.structs.replace(whole, run=msgspec.structs.replace(whole.run, samples=damage(whole.run.samples)))
    with pytest.raises(FluxPerfError) as caught:
        compare_documents(document(damaged), document(result("a", 1)), Policy.of())
    assert str(caught.value).startswith(f"first session (s), a: $.runs[0].{complaint}")
    assert str(caught.value).endswith("; measure that session anew")


def spiked(seed: int, spikes: int) -> Result:
    seconds = make.latencies(seed=seed)
    for i in range(spikes):
        seconds[i] *= 1.4
    return result(f"t{seed}", measurement=make.measurement(seconds), baseline=make.baseline())


def test_many_new_outliers_over_all_tests_warn() -> None:
    assert tail_warning([spiked(seed, 0) for seed in range(10)]) is None
    warning = tail_warning([spiked(seed, 2) for seed in range(10)])
    assert warning == (
        "20 of 80 generations took over 10% longer than their prompt usually does, 0 of 240 in the baselines: "
        "run it again"
    )


def test_the_tail_of_unjudged_latencies_is_not_looked_at() -> None:
    plain = [msgspec.structs.replace(spiked(seed, 2), baseline=None) for seed in range(10)]
    assert tail_warning(plain) is None
