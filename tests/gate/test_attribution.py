"""Why it moved: the first line names the cause."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import records as make

from pytest_fluxperf.gate.compare import compare_documents
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.gate.verdict import UNEXPLAINED, judge
from pytest_fluxperf.report.row import Row
from pytest_fluxperf.results import (
    Baseline,
    Environment,
    Judgement,
    Kernel,
    KernelTable,
    Measurement,
    PictureScores,
    Result,
    Telemetry,
)
from tools.recorded.archive import recorded

SEEN = {
    "attention": ["native"],
    "ran_attention": ["cudnn"],
    "ran_matmul_dtypes": ["bfloat16"],
    "ran_casts": 12,
    "ran_compiled_regions": 57,
    "weight_dtypes": ["bfloat16"],
    "compiled_graphs": 3,
    "graph_breaks": 0,
}


def kernels(latency: float = 2.0, **families: float) -> KernelTable:
    rows = tuple(Kernel(family=name, calls=57, time_s=seconds) for name, seconds in families.items())
    return KernelTable(device="cuda", kernels=rows, busy_s=sum(families.values()), latency_s=latency)


def judged(
    now: dict[str, Any] | None = None, *, stored: Baseline | None = None, slowdown: float = 0.2, **changes: Any
) -> Judgement:
    """The judgement of a run 20 % slower, whose facts differ from ``SEEN`` by ``now``."""
    measured = make.measurement([s * (1 + slowdown) for s in make.latencies()], facts=SEEN | (now or {}), **changes)
    return _judge(measured, baseline() if stored is None else stored)


def baseline(facts: dict[str, Any] | None = None, **changes: Any) -> Baseline:
    measured = make.measurement(facts=SEEN if facts is None else facts)
    return make.baseline(*(make.run(measured, session=f"s{r}", **changes) for r in range(3)))


def test_an_attention_kernel_that_fell_back_leads() -> None:
    found = judged({"ran_attention": ["math"], "ran_casts": 300, "ran_matmul_dtypes": ["bfloat16", "float32"]})
    assert found.verdict == "regressed"
    assert found.attribution[0] == "attention kernels that ran cudnn → math (asked for: nothing, torch chooses)"
    assert "attention kernels that ran cudnn → math" in found.message
    asked = judged({"ran_attention": ["math"], "attention_asked": "_native_cudnn"})
    assert asked.attribution[0].endswith("(asked for: _native_cudnn)")


def test_a_whole_recipe_that_stands_for_another_one_leads() -> None:
    stored = baseline(SEEN | {"recipe": "bf16+compile:tuned", "compile": "compile:tuned"})
    found = judged({"recipe": "bf16+compile", "compile": "compile"}, stored=stored)
    assert found.attribution[:2] == (
        "the recipe stands for bf16+compile:tuned → bf16+compile",
        "compile compile:tuned → compile",
    )
    same = judged({"recipe": "bf16+compile:tuned", "compile": "compile:tuned"}, stored=stored)
    assert not any("stands for" in clause for clause in same.attribution)


def test_a_compile_that_is_gone_leads_over_what_it_changes() -> None:
    found = judged({"ran_compiled_regions": 0, "compiled_graphs": 0, "ran_casts": 300})
    assert found.attribution[0] == "nothing runs compiled any more: compiled regions a step 57 → 0"


def test_more_graph_breaks_are_a_cause_and_fewer_are_none() -> None:
    assert judged({"graph_breaks": 4}).attribution[0] == "graph breaks 0 → 4"
    fewer = judged(stored=baseline(SEEN | {"graph_breaks": 4}))
    assert not any("graph breaks" in clause for clause in fewer.attribution)


def test_casts_and_dtypes_are_named() -> None:
    assert judged({"ran_casts": 69}).attribution[0] == "casts between dtypes a step 12 → 69"
    found = judged({"ran_matmul_dtypes": ["float32"], "ran_casts": 69})
    assert found.attribution[0] == "dtypes of matrix products bfloat16 → float32"


def test_dtypes_that_were_seen_are_told_with_the_one_asked_for() -> None:
    asked = SEEN | {"dtype": "bfloat16"}
    seen = {"dtype": "bfloat16", "weight_dtypes": ["float32"], "ran_matmul_dtypes": ["float32"]}
    assert judged(seen, stored=baseline(asked)).attribution[:2] == (
        "dtypes of the blocks' weights bfloat16 → float32 (asked for: bfloat16)",
        "dtypes of matrix products bfloat16 → float32 (asked for: bfloat16)",
    )
    quantized = {"quantization": "Int8WeightOnlyConfig"}
    found = judged(seen | quantized, stored=baseline(asked | quantized))
    assert not any("asked for" in clause for clause in found.attribution)


def test_coefficients_that_were_rounded_otherwise_are_no_cause() -> None:
    fitted = SEEN | {"teacache": {"coefficients": [498.65, -283.78, 55.855, -3.8202, 0.26423]}}
    rounded = {"teacache": {"coefficients": [498.651, -283.782, 55.8554, -3.82021, 0.264230]}}
    assert not any("coefficients" in clause for clause in judged(rounded, stored=baseline(fitted)).attribution)
    for changed in ([498.65, -283.78, 55.855, -3.8202, 0.3], [498.65, -283.78, 55.855, -3.8202]):
        other = {"teacache": {"coefficients": changed}}
        assert "teacache coefficients" in judged(other, stored=baseline(fitted)).attribution[0]


@pytest.mark.parametrize("version", ["0.0.1", None])
def test_what_measures_is_no_cause(version: str | None) -> None:
    """The plugin is named among what differs, and not among the reasons."""
    here = make.ENVIRONMENT.packages
    stored = msgspec.structs.replace(
        make.ENVIRONMENT, packages=here if version is None else {**here, "pytest-fluxperf": version}
    )
    base = baseline(environment=stored.digest)
    base = msgspec.structs.replace(base, environments={stored.digest: stored})
    now = msgspec.structs.replace(make.ENVIRONMENT, packages={**here, "pytest-fluxperf": "0.2"})
    found = _judge(make.measurement([s * 1.2 for s in make.latencies()], facts=SEEN), base, environment=now)
    assert not any("fluxperf" in text for text in (found.message, *found.attribution))
    now = msgspec.structs.replace(now, packages={**now.packages, "ruff": "0.13"})
    found = _judge(make.measurement([s * 1.2 for s in make.latencies()], facts=SEEN), base, environment=now)
    assert found.attribution[-1] == "ruff 0.12 → 0.13"


def test_a_step_that_was_not_watched_says_nothing() -> None:
    unwatched = {k: v for k, v in SEEN.items() if not k.startswith("ran_") and k != "weight_dtypes"}
    found = judged(stored=baseline(unwatched))
    assert not any("absent" in clause for clause in found.attribution)


def test_a_cache_that_answers_nothing_leads() -> None:
    found = judged({"ran_casts": 13}, computed=[28] * make.N)
    assert found.attribution[0] == "the step cache answers nothing: computed steps 14 → 28 an image, all of them"
    fewer_hits = judged(computed=[20] * make.N)
    assert not any("answers nothing" in clause for clause in fewer_hits.attribution)


def test_kernels_take_the_difference_apart() -> None:
    stored = baseline(kernels=kernels(gemm=1.5, cudnn_sdpa=0.4))
    found = judged(stored=stored, kernels=kernels(2.4, gemm=1.5, softmax=0.8))
    assert found.kernels is not None
    assert [(c.family, c.change) for c in found.kernels.changes] == [
        ("softmax", "appeared"),
        ("cudnn_sdpa", "vanished"),
    ]
    assert found.attribution[0].startswith("kernel softmax appeared (57 calls): +800 of +40")


def test_a_device_that_waits_is_no_kernels_fault() -> None:
    stored = baseline(kernels=kernels(gemm=1.9))
    found = judged(stored=stored, kernels=kernels(2.4, gemm=1.9))
    assert found.attribution[0].startswith("time outside of kernels +0.4 s of +0.4")
    assert any(clause.startswith("the device was busy 79% of the time") for clause in found.attribution)


def test_on_a_cpu_only_other_calls_lead_over_the_phases() -> None:
    """One generation's operators share it with whatever else runs, and between them it is Python's."""

    def on_cpu(latency: float, **families: float) -> KernelTable:
        return msgspec.structs.replace(kernels(latency, **families), device="cpu")

    stored = baseline(kernels=on_cpu(2.0, gemm=1.5))
    for now in (on_cpu(2.4, gemm=1.9), on_cpu(2.4, gemm=1.5)):
        found = judged(stored=stored, kernels=now)
        assert found.attribution[0].startswith("denoising")
        assert any(clause.startswith(("kernel gemm moved", "time outside of")) for clause in found.attribution[1:])
    noisy = judged(stored=stored, kernels=on_cpu(2.4, gemm=2.1, softmax=0.4))
    assert noisy.attribution[0].startswith("kernel softmax appeared"), "whatever else took longer at the time"
    assert any(clause.startswith("kernel gemm moved") for clause in noisy.attribution[1:])
    appeared = judged(stored=stored, kernels=on_cpu(2.4, gemm=1.5, softmax=0.4))
    assert appeared.attribution[0].startswith("kernel softmax appeared (57 calls)")


def test_one_profile_explains_nothing() -> None:
    assert judged(kernels=kernels(2.4, gemm=2.0)).kernels is None
    assert judged(stored=baseline(kernels=kernels(gemm=2.0))).kernels is None


def test_the_device_and_its_clock_are_compared_with_the_baselines() -> None:
    base = make.measurement([s * 1.2 for s in make.latencies()])
    made = tuple(msgspec.structs.replace(g, device_busy_s=0.93 * g.wall_s) for g in base.generations)

    def clauses(telemetry: Telemetry, **stored: Any) -> tuple[str, ...]:
        measured = msgspec.structs.replace(base, generations=made, facts=SEEN, telemetry=telemetry)
        return _judge(measured, baseline(**stored)).attribution

    slow = clauses(Telemetry(sm_clock_mhz=1410), device_busy=0.99, sm_clock_mhz=1980)
    assert slow[0] == "the device waited for the host +0.148 s of +0.4 s an image (busy 99% → 93%)"
    assert "SM clock 1980 → 1410 MHz" in slow
    same = clauses(Telemetry(sm_clock_mhz=1965), device_busy=0.94, sm_clock_mhz=1980)
    assert not any("busy" in clause or "clock" in clause for clause in same)


def test_waiting_that_explains_little_is_not_named_before_the_phases() -> None:
    base = make.measurement([s * 1.2 for s in make.latencies()], facts=SEEN)
    made = tuple(msgspec.structs.replace(g, device_busy_s=0.95 * g.wall_s) for g in base.generations)
    measured = msgspec.structs.replace(base, generations=made)
    (phase, waiting) = _judge(measured, baseline(device_busy=0.99)).attribution
    assert phase.startswith("denoising")
    assert waiting == "the device waited for the host +0.1 s of +0.4 s an image (busy 99% → 95%)"


def test_phases_that_took_no_time_before_are_told_without_a_share() -> None:
    """As a clock tells them that is too coarse, or a body whose pictures come from elsewhere."""
    nothing = make.run(make.measurement(facts=SEEN, phases=(0.0, 0.0, 0.1)), device_busy=0.99)
    slow = make.measurement([1.2 * s for s in make.latencies()], facts=SEEN)
    made = tuple(msgspec.structs.replace(g, device_busy_s=0.8 * g.wall_s) for g in slow.generations)
    found = _judge(make.measurement(facts=SEEN, generations=made), make.baseline(nothing))
    assert found.verdict == "regressed"
    assert any("14 computed steps as before (none before), " in clause for clause in found.attribution)
    assert any(clause.endswith("(busy 99% → 80%)") for clause in found.attribution)


def test_in_recorded_sessions_a_slow_host_is_named_and_a_slow_card_is_not() -> None:
    def compared(base: str, new: str) -> dict[str | None, tuple[str, tuple[str, ...]]]:
        old, now = recorded(f"h100-{base}.json") + recorded(f"h100-{new}.json")
        judged = compare_documents(old, now, Policy.of("absolute", max_slowdown=None), own_tolerances=True).results
        return {r.recipe: (r.judgement.verdict, r.judgement.attribution) for r in judged}

    slow_host = compared("results", "extra-3")
    verdict, reasons = slow_host["bf16+cudnn+fp8+compile:tuned"]
    assert verdict == "regressed"
    assert reasons[0] == (
        "the device waited for the host +0.712 s of +0.544 s an image (busy 99% → 79%); "
        "text encoding took 1.9 times as long, so look at the host first"
    )
    slow_card = compared("results-2", "results")["bf16+compile"]
    assert slow_card[0] == "inconclusive"
    assert not any("host" in reason for reason in slow_card[1])


def test_a_regression_without_a_recorded_cause_says_so() -> None:
    bare = make.measurement([s * 1.2 for s in make.latencies()], facts=SEEN)
    made = tuple(
        msgspec.structs.replace(g, text_encode_s=None, denoise_s=None, decode_s=None) for g in bare.generations
    )
    found = _judge(msgspec.structs.replace(bare, generations=made), baseline())
    assert found.verdict == "regressed"
    assert found.attribution == (UNEXPLAINED,)


def test_broken_results_name_what_differs() -> None:
    found = judged({"compiled_graphs": 0, "ran_compiled_regions": 0}, problems=("compile was asked for, but ...",))
    assert found.verdict == "broken"
    assert found.attribution[0] == "nothing runs compiled any more: compiled regions a step 57 → 0"


def test_the_newest_run_is_the_one_that_was_measured_last_not_the_one_that_was_stored_last() -> None:
    """Attribution and report name the same one after an older session was appended."""
    older = Environment(python="3.10", platform="Linux", packages={"torch": "2.0"})
    stored = make.baseline(
        make.run(facts=SEEN, time_utc="2026-02-01T00:00:00Z"),
        make.run(
            facts={**SEEN, "compiled_graphs": 9},
            session="old",
            time_utc="2026-01-01T00:00:00Z",
            environment=older.digest,
        ),
        environments={make.ENVIRONMENT.digest: make.ENVIRONMENT, older.digest: older},
    )
    slow = make.measurement([s * 1.2 for s in make.latencies()], facts=SEEN)
    found = _judge(slow, stored)
    result = Result(
        test=stored.test,
        recipe=make.RECIPE,
        reference=make.REFERENCE,
        workload=make.workload(),
        measurement=slow,
        judgement=found,
        baseline=stored,
    )
    row = Row(result=result, document=None, machine="", label="", speedup=None)  # type: ignore[arg-type]

    assert found.verdict == "regressed"
    assert not any("compiled graphs" in reason or "torch" in reason for reason in found.attribution)
    assert stored.newest == row.runs[-1] == stored.runs[0]
    assert stored.newest_environment == make.ENVIRONMENT


def _judge(measured: Measurement, stored: Baseline, environment: Environment = make.ENVIRONMENT) -> Judgement:
    return judge(make.case(environment=environment), measured, PictureScores(reference=make.quality()), stored)
