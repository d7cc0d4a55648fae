"""Everything broken on purpose has its own verdict and message; an unchanged rerun passes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
import records as make
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_fluxperf.gate.interleaved import judge_blocks
from pytest_fluxperf.gate.latency import CONFIRMING_ROUNDS, TimeJudgement
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.gate.verdict import MOST_ROUNDS, another_round, judge
from pytest_fluxperf.results import (
    BASELINE,
    Baseline,
    Block,
    Environment,
    Finding,
    Judgement,
    Measurement,
    PictureScores,
    Quality,
    Telemetry,
)

Now = Measurement | None


def verdict_of(
    measured: Now = None,
    scores: Quality | str | None = "same",
    stored: Baseline | str | None = "stored",
    policy: Policy | None = None,
    drift: Quality | None = None,
    times: TimeJudgement | None = None,
    earlier: Sequence[Finding] = (),
    **changes: Any,
) -> Judgement:
    quality = make.quality() if scores == "same" else scores
    own = isinstance(quality, Quality) and quality.reference == BASELINE
    return judge(
        make.case(policy=Policy.of() if policy is None else policy, **changes),
        make.measurement(make.latencies(seed=9)) if measured is None else measured,
        PictureScores(**{"stored" if own else "reference": quality}, drift=drift),  # type: ignore[arg-type]
        make.baseline() if stored == "stored" else stored,  # type: ignore[arg-type]
        times=times,
        earlier=earlier,
    )


def slower(fraction: float, **changes: Any) -> Measurement:
    return make.measurement(make.latencies(seed=9, shift=math.log1p(fraction)), **changes)


def finding(judgement: Judgement, metric: str) -> Finding:
    (found,) = [f for f in judgement.findings if f.metric == metric]
    return found


# The unchanged ------------------------------------------------------------------------------------------


def test_an_unchanged_rerun_passes() -> None:
    judgement = verdict_of()
    assert judgement.verdict == "passed"
    assert judgement.gated
    assert judgement.warnings == ()
    assert [f.metric for f in judgement.findings] == [
        "latency", "computed steps", "peak memory", "SSIM", "PSNR", "MS-SSIM", "FLIP", "LPIPS",
    ]  # fmt: skip
    assert judgement.message.startswith("latency p50 2")


@given(st.floats(1e-2, 1e2))
@settings(max_examples=20, deadline=None)
def test_the_unit_of_time_does_not_matter(factor: float) -> None:
    stored = make.baseline(
        *(
            make.run(make.measurement([factor * s for s in make.latencies(seed=100 + r)]), session=f"s{r}")
            for r in range(3)
        )
    )
    for fraction in (0.0, 0.2):
        seconds = [factor * s for s in make.latencies(seed=9, shift=math.log1p(fraction))]
        scaled = verdict_of(make.measurement(seconds), stored=stored)
        assert scaled.verdict == verdict_of(slower(fraction)).verdict


# Latency ------------------------------------------------------------------------------------------------


def test_ten_percent_slower_in_one_phase_is_regressed_and_named() -> None:
    base = make.latencies(seed=9)
    made = [
        msgspec.structs.replace(g, latency_s=1.10 * s, wall_s=1.10 * s, decode_s=0.10 * s + 0.10 * s)
        for g, s in zip(make.measurement(base).generations, base, strict=True)
    ]
    judgement = verdict_of(make.measurement(base, generations=tuple(made)))
    assert judgement.verdict == "regressed"
    latency = finding(judgement, "latency")
    assert latency.verdict == "regressed"
    assert latency.change == pytest.approx(0.10, abs=0.01)
    assert latency.low is not None
    assert latency.high is not None
    assert latency.low < 0.10 < latency.high
    for part in ("latency p50 2", "+10", "tolerance 2.0%", "n=8", "3 sessions", "decoding +0.2"):
        assert part in judgement.message
    assert "\n" not in judgement.message


def test_faster_is_improved() -> None:
    assert verdict_of(slower(-0.10)).verdict == "improved"


def test_between_the_limits_is_inconclusive_with_a_warning() -> None:
    judgement = verdict_of(slower(0.02))
    assert judgement.verdict == "inconclusive"
    assert "undecided between" in judgement.message
    assert judgement.warnings == (finding(judgement, "latency").message,)


def test_one_baseline_run_asks_for_more_than_three() -> None:
    one = make.baseline(make.run(make.measurement(make.latencies(seed=100))))
    assert verdict_of(slower(0.03), stored=one, policy=Policy.of(m=5)).verdict == "inconclusive"
    assert verdict_of(slower(0.03), policy=Policy.of(m=5)).verdict == "regressed"


def test_runs_of_one_session_count_once() -> None:
    runs = [make.run(make.measurement(make.latencies(seed=100 + r)), session="same") for r in range(3)]
    judgement = verdict_of(stored=make.baseline(*runs))
    assert "against 1 session" in finding(judgement, "latency").message
    slow = verdict_of(slower(0.03), stored=make.baseline(*runs), policy=Policy.of(m=5))
    assert slow.verdict == "inconclusive", "three sessions would have convicted"


def test_a_wider_tolerance_is_obeyed() -> None:
    assert verdict_of(slower(0.05), policy=Policy.of(max_slowdown=0.10)).verdict == "passed"


def test_bonferroni_over_many_configurations() -> None:
    assert verdict_of(slower(0.025), policy=Policy.of(m=1)).verdict == "regressed"
    assert verdict_of(slower(0.025), policy=Policy.of(m=40)).verdict == "inconclusive"


def test_several_rounds_over_the_prompts_are_pooled() -> None:
    seconds = make.latencies(seed=9) + make.latencies(seed=10)
    judgement = verdict_of(make.measurement(seconds))
    assert judgement.verdict == "passed"
    assert finding(judgement, "latency").n == 16


# Step caches --------------------------------------------------------------------------------------------


def test_a_cache_that_never_hits_is_regressed_whatever_the_latency_says() -> None:
    judgement = verdict_of(make.measurement(make.latencies(seed=9), computed=[28] * 8))
    assert judgement.verdict == "regressed"
    assert "the step cache never hit: 28 of 28 steps computed, baseline 14" in judgement.message


def test_more_computed_steps_are_regressed() -> None:
    judgement = verdict_of(make.measurement(make.latencies(seed=9), computed=[16, 16] + [14] * 6))
    assert judgement.verdict == "regressed"
    assert "computed steps 14 → 14.5" in judgement.message


def test_one_flipped_prompt_is_not() -> None:
    assert verdict_of(make.measurement(make.latencies(seed=9), computed=[17] + [14] * 7)).verdict == "passed"


def test_steps_that_cannot_be_seen_any_more_are_not_passed_over() -> None:
    made = tuple(msgspec.structs.replace(g, decisions=None) for g in make.measurement().generations)
    judgement = verdict_of(make.measurement(generations=made))
    assert judgement.verdict == "inconclusive"
    assert "cannot be seen any more" in judgement.message


# Memory and graphs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mib", "expected"),
    [(24000, "passed"), (25100, "passed"), (25300, "regressed"), (22000, "improved"), (None, "inconclusive")],
)
def test_peak_memory(mib: float | None, expected: str) -> None:
    judgement = verdict_of(make.measurement(make.latencies(seed=9), peak_memory_mib=mib))
    assert judgement.verdict == expected


def test_memory_is_reported_only_where_the_policy_has_no_tolerance() -> None:
    judgement = verdict_of(
        make.measurement(make.latencies(seed=9), peak_memory_mib=50000.0), policy=Policy(max_memory_growth=None)
    )
    assert judgement.verdict == "passed"
    assert "reported, not judged" in finding(judgement, "peak memory").message


def test_new_graph_breaks_are_regressed() -> None:
    broke = make.measurement(make.latencies(seed=9), graph_breaks=3, facts={"graph_breaks": 3})
    judgement = verdict_of(broke)
    assert judgement.verdict == "regressed"
    assert "graph breaks 0 → 3" in judgement.message
    known = make.baseline(make.run(make.measurement(facts={"graph_breaks": 3})))
    assert finding(verdict_of(broke, stored=known), "graph breaks").verdict == "passed"


# Quality ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "metric"),
    [
        ({"ssim": 0.885}, "SSIM"),
        ({"psnr_db": 26.9}, "PSNR"),
        ({"ms_ssim": 0.935}, "MS-SSIM"),
        ({"flip": 0.095}, "FLIP"),
        ({"lpips": 0.115}, "LPIPS"),
    ],
)
def test_each_metric_fails_alone(changes: dict[str, float], metric: str) -> None:
    judgement = verdict_of(scores=make.quality(**changes))
    assert judgement.verdict == "regressed"
    assert [f.metric for f in judgement.findings if f.verdict == "regressed"] == [metric]
    assert judgement.message.startswith(f"{metric} ")
    assert verdict_of(scores=make.quality(**changes), policy=Policy.of(quality_tolerance=2)).verdict == "passed"


def test_better_pictures_are_improved() -> None:
    assert verdict_of(scores=make.quality(ssim=0.95)).verdict == "improved"


def test_one_collapsed_prompt_fails_though_the_median_stands() -> None:
    scores = list(make.quality().scores)
    scores[5] = make.score(ssim=0.75)
    judgement = verdict_of(scores=Quality(reference="bf16", scores=tuple(scores)))
    assert judgement.verdict == "regressed"
    assert "SSIM of prompt 6 collapsed 0.9000 → 0.7500" in judgement.message


def test_psnr_beyond_what_eight_bits_show_is_not_judged() -> None:
    stored = make.baseline(make.run(scores=make.quality(psnr_db=90.0)))
    assert finding(verdict_of(scores=make.quality(psnr_db=50.0), stored=stored), "PSNR").verdict == "passed"
    assert finding(verdict_of(scores=make.quality(psnr_db=46.0), stored=stored), "PSNR").verdict == "regressed"


@pytest.mark.parametrize(
    ("floors", "expected"),
    [
        ({"min_ssim": 0.85}, "passed"),
        ({"min_ssim": 0.91}, "regressed"),
        ({"min_psnr": 30.0}, "regressed"),
        ({"max_lpips": 0.05}, "regressed"),
    ],
)
def test_floors_of_the_marker(floors: dict[str, float], expected: str) -> None:
    assert verdict_of(policy=Policy.of(**floors)).verdict == expected


def test_a_floor_is_every_prompts() -> None:
    scores = (*make.quality(7).scores, make.score(ssim=0.84))
    judgement = verdict_of(scores=Quality(reference="bf16", scores=scores), policy=Policy.of(min_ssim=0.85))
    assert judgement.verdict == "regressed"
    assert "SSIM of 1 of 8 prompts beyond the floor 0.85, worst 0.84" in judgement.message


def test_a_floor_holds_without_a_baseline() -> None:
    judgement = verdict_of(stored=None, policy=Policy.of(min_ssim=0.95))
    assert judgement.verdict == "regressed"
    assert judgement.gated


def test_quality_that_vanished_is_not_passed_over() -> None:
    judgement = verdict_of(scores=None)
    assert judgement.verdict == "inconclusive"
    assert "SSIM was not measured" in judgement.message


def test_a_metric_without_a_baseline_is_said_aloud() -> None:
    stored = make.baseline(make.run(scores=make.quality(lpips=None)))
    judgement = verdict_of(make.measurement(), stored=stored, policy=Policy.of(max_slowdown=0.1))
    assert judgement.verdict == "passed"
    assert any("LPIPS has no baseline" in warning for warning in judgement.warnings)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_broken(value: float) -> None:
    judgement = verdict_of(scores=make.quality(ssim=value))
    assert judgement.verdict == "broken"
    assert "SSIM of prompt 1 is" in judgement.message


def test_a_drift_that_is_no_number_is_broken() -> None:
    assert verdict_of(drift=make.quality(reference="baseline", ssim=math.nan)).verdict == "broken"


def test_missing_scores_are_broken() -> None:
    assert verdict_of(scores=make.quality(7)).verdict == "broken"


def test_drift_warns_and_fails_past_its_floor() -> None:
    warned = verdict_of(drift=make.quality(reference="baseline", ssim=0.7))
    assert warned.verdict == "passed"
    assert any("drifted" in warning for warning in warned.warnings)
    failed = verdict_of(drift=make.quality(reference="baseline", ssim=0.05))
    assert failed.verdict == "regressed"
    assert "drifted" in failed.message


NO_SCORES = {"ssim": None, "psnr_db": None, "ms_ssim": None, "flip": None, "lpips": None}


def test_drift_without_the_metric_that_tells_it_is_not_passed_over() -> None:
    unseen = make.quality(reference="baseline", **{**NO_SCORES, "psnr_db": 3.0})
    own = make.baseline(make.run(scores=make.quality(**NO_SCORES)))
    wide = Policy.of(max_slowdown=0.1)
    for judgement in (verdict_of(drift=unseen, policy=wide), verdict_of(make.measurement(), unseen, own, wide)):
        assert judgement.verdict == "inconclusive"
        assert "drift from the stored pictures unknown: SSIM" in judgement.message
        assert judgement.warnings[0] == finding(judgement, "drift").message


def test_pictures_compared_with_stored_ones_are_drift_but_floors_hold() -> None:
    own = make.baseline(make.run(scores=make.quality(**NO_SCORES)))
    scores = make.quality(reference="baseline", ssim=0.7)
    assert verdict_of(make.measurement(), scores, own, Policy.of(max_slowdown=0.1)).verdict == "passed"
    floor = Policy.of(max_slowdown=0.1, min_ssim=0.9)
    assert verdict_of(make.measurement(), scores, own, floor).verdict == "regressed"


# Broken, invalid, no baseline ---------------------------------------------------------------------------


def test_problems_are_broken_with_their_count() -> None:
    judgement = verdict_of(make.measurement(problems=("picture of prompt 3 of 8 is black", "b", "c")))
    assert judgement.verdict == "broken"
    assert judgement.message == "picture of prompt 3 of 8 is black (and 2 more problems)"


def test_a_recompile_in_the_measured_region_is_broken() -> None:
    judgement = verdict_of(make.measurement(recompiles=2, recompile_reasons=("tensor size mismatch",)))
    assert judgement.verdict == "broken"
    assert judgement.message == "recompiled 2 times in the measured region: tensor size mismatch"


@pytest.mark.parametrize("seconds", [[0.0] * 8, [math.nan] + [2.0] * 7, [-1.0] * 8, [2.0] * 7, []])
def test_absurd_times_are_broken(seconds: list[float]) -> None:
    assert verdict_of(make.measurement(seconds)).verdict == "broken"


def test_broken_names_the_packages_that_differ() -> None:
    new = msgspec.structs.replace(make.ENVIRONMENT, packages={**make.ENVIRONMENT.packages, "torch": "2.12.0"})
    judgement = verdict_of(make.measurement(problems=("black",)), environment=new)
    assert judgement.attribution == ("torch 2.11.0 → 2.12.0",)


def test_an_unfit_machine_is_invalid_and_broken_outranks_it() -> None:
    assert verdict_of(make.measurement(unfit=("throttled: thermal",))).verdict == "invalid"
    assert verdict_of(make.measurement(unfit=("throttled",), problems=("black",))).verdict == "broken"


def test_no_baseline_says_how_to_record_one() -> None:
    judgement = verdict_of(stored=None)
    assert (judgement.verdict, judgement.gated) == ("no baseline", False)
    assert "--fluxperf-update" in judgement.message


@pytest.mark.parametrize(
    ("changes", "clause"),
    [
        ({"workload": make.workload(steps=20)}, "steps 28 → 20"),
        ({"workload": make.workload(width=512)}, "width 256 → 512"),
        ({"workload": make.workload(n=4)}, "8 → 4 prompts"),
        ({"workload": make.workload(model="flux-dev")}, "model tiny → flux-dev"),
        ({"reference": "fp32"}, "reference bf16 → fp32"),
        ({"recipe": "bf16"}, "recipe bf16+fbcache:0.3 → bf16"),
    ],
)
def test_another_workload_has_no_baseline(changes: dict[str, Any], clause: str) -> None:
    n = len(changes.get("workload", make.workload()).prompts)
    judgement = verdict_of(make.measurement(make.latencies(n)), make.quality(n), **changes)
    assert judgement.verdict == "no baseline"
    assert clause in judgement.message
    assert "--fluxperf-update" in judgement.message


@pytest.mark.parametrize(
    ("changes", "clause"),
    [
        ({"name": "NVIDIA H200"}, "recorded on NVIDIA H100 80GB HBM3, this is NVIDIA H200"),
        ({"memory_mib": 97000}, "81559 MiB of memory, this has 97000 MiB"),
        ({"mig_profile": "1g.10gb"}, "MIG off, this is MIG 1g.10gb"),
        ({"power_limit_w": 500.0}, "a power limit of 700 W, this has 500 W"),
        ({"kind": "cpu", "name": "AMD EPYC"}, "recorded on NVIDIA H100 80GB HBM3, this is AMD EPYC"),
    ],
)
def test_a_baseline_of_other_hardware(changes: dict[str, Any], clause: str) -> None:
    judgement = verdict_of(hardware=msgspec.structs.replace(make.H100, **changes))
    assert judgement.verdict == "no baseline"
    assert clause in judgement.message


def test_what_drivers_reserve_and_another_host_cpu_do_not_matter() -> None:
    here = msgspec.structs.replace(make.H100, memory_mib=81080, host_cpu="Xeon")
    judgement = verdict_of(hardware=here)
    assert judgement.verdict == "passed"
    assert judgement.warnings == ("the baseline's host has another CPU: EPYC, here Xeon",)


# Relative mode ------------------------------------------------------------------------------------------

RELATIVE = Policy.of("relative", m=20)
OTHER_CPU = msgspec.structs.replace(make.CPU, name="Intel Xeon", host_cpu="Intel Xeon")


def relative_baseline() -> Baseline:
    runs = []
    for r in range(3):
        reference = make.latencies(seed=50 + r, noise=0.02)
        recipe = [s / 2 for s in make.latencies(seed=60 + r, noise=0.02)]
        runs.append(make.run(make.measurement(recipe, reference=reference), session=f"s{r}"))
    return make.baseline(*runs, hardware=make.CPU, tau0=RELATIVE.tau0, nu0=RELATIVE.nu0)


def relative_now(machine: float = 1.0, slowdown: float = 0.0, noise: float = 0.02) -> Measurement:
    reference = [machine * s for s in make.latencies(seed=70, noise=noise)]
    recipe = [machine * (1 + slowdown) * s / 2 for s in make.latencies(seed=71, noise=noise)]
    return make.measurement(recipe, reference=reference, peak_memory_mib=90000.0)


@pytest.mark.parametrize("machine", [1.0, 0.2, 3.0])
def test_another_cpu_judges_the_speed_up(machine: float) -> None:
    common: dict[str, Any] = {"stored": relative_baseline(), "policy": RELATIVE, "hardware": OTHER_CPU}
    green = verdict_of(relative_now(machine), **common)
    assert green.verdict == "passed"
    assert "reported, not judged" in finding(green, "latency").message
    assert finding(green, "speed-up").now == pytest.approx(2.0, rel=0.03)
    red = verdict_of(relative_now(machine, slowdown=0.30), **common)
    assert red.verdict == "regressed"
    change = finding(red, "speed-up").change
    assert change == pytest.approx(1 / 1.3 - 1, abs=0.03)
    assert red.message.startswith("speed-up over bf16 ")


def test_a_sample_of_noise_does_not_turn_the_speed_up_red() -> None:
    common: dict[str, Any] = {"stored": relative_baseline(), "policy": RELATIVE, "hardware": make.CPU}
    assert verdict_of(relative_now(noise=0.10), **common).verdict in ("passed", "inconclusive")


def test_the_reference_itself_is_reported_only() -> None:
    stored = msgspec.structs.replace(relative_baseline(), recipe="bf16")
    judgement = verdict_of(
        make.measurement(make.latencies(shift=1.0)), stored=stored, policy=RELATIVE, hardware=make.CPU, recipe="bf16"
    )
    assert judgement.verdict == "passed"
    assert "speed-up" not in {f.metric for f in judgement.findings}


def test_a_body_of_ones_own_on_a_cpu_says_what_is_not_judged() -> None:
    stored = msgspec.structs.replace(relative_baseline(), recipe=None, reference="baseline")
    common: dict[str, Any] = {"stored": stored, "policy": RELATIVE, "hardware": make.CPU, "recipe": None}
    judgement = verdict_of(make.measurement(), reference="baseline", **common)
    assert any("reported and not judged" in warning for warning in judgement.warnings)
    assert judgement.gated
    times = tuple(make.latencies())
    compared = judge_blocks([Block(old_s=times, new_s=times)], RELATIVE)
    judgement = verdict_of(make.measurement(), reference="baseline", times=compared.judgement(), **common)
    assert not any("not judged" in warning for warning in judgement.warnings), "a comparison judges the latency itself"


def test_a_test_of_which_nothing_was_judged_is_not_gated() -> None:
    bare = make.quality(**NO_SCORES)
    unseen = tuple(msgspec.structs.replace(g, decisions=None) for g in make.measurement().generations)
    measured = make.measurement(generations=unseen)
    stored = make.baseline(make.run(measured, bare), recipe=None, reference="baseline", hardware=make.CPU)
    judgement = verdict_of(measured, None, stored, RELATIVE, hardware=make.CPU, recipe=None, reference="baseline")
    assert judgement.verdict == "passed"
    assert not judgement.gated


def test_a_speed_up_without_the_references_time_is_inconclusive() -> None:
    judgement = verdict_of(make.measurement(), stored=relative_baseline(), policy=RELATIVE, hardware=make.CPU)
    assert judgement.verdict == "inconclusive"
    assert "was not measured beside" in judgement.message


def test_absolute_latency_needs_the_same_cpu() -> None:
    judgement = verdict_of(stored=relative_baseline(), hardware=OTHER_CPU)
    assert judgement.verdict == "no baseline"


def test_relative_attribution_compares_shares_not_machines() -> None:
    judgement = verdict_of(
        relative_now(machine=4.0, slowdown=0.30), stored=relative_baseline(), policy=RELATIVE, hardware=OTHER_CPU
    )
    # Thirty percent dearer, not the 420 % that the slower machine adds.
    assert re.match(r"denoising, 14 computed steps as before \(\+[23]\d\.\d% each\)", judgement.attribution[0])


def test_a_suspect_speed_up_is_measured_again() -> None:
    common: dict[str, Any] = {"stored": relative_baseline(), "policy": RELATIVE, "hardware": make.CPU}

    def rounds(judgement: Judgement, policy: Policy = RELATIVE) -> int:
        return next(k for k in range(1, 99) if not another_round(judgement, policy, k))

    assert rounds(verdict_of(relative_now(), **common)) == 1
    assert rounds(verdict_of(relative_now(slowdown=0.30), **common)) == CONFIRMING_ROUNDS
    undecided = verdict_of(relative_now(slowdown=0.12), **common)
    assert undecided.verdict == "inconclusive"
    assert rounds(undecided) == MOST_ROUNDS
    assert rounds(verdict_of(make.measurement(), **common)) == 1, "no round brings the reference's time"
    assert rounds(verdict_of(slower(0.02)), Policy.of()) == 1
    assert rounds(verdict_of(make.measurement(problems=("black",)), **common)) == 1


# Attribution --------------------------------------------------------------------------------------------


def upgraded() -> Environment:
    packages = {"torch": "2.12.0", "diffusers": "0.43.0", "ruff": "0.13", "new-thing": "1"}
    return msgspec.structs.replace(make.ENVIRONMENT, packages=packages)


def test_the_first_suspects_are_in_the_message() -> None:
    stored = make.baseline(make.run(make.measurement(facts={"attention": ["cudnn"], "compiled_graphs": 3})))
    measured = slower(0.2, facts={"attention": ["math"], "compiled_graphs": 3})
    judgement = verdict_of(measured, stored=stored, environment=upgraded())
    assert judgement.attribution[0] == "attention cudnn → math"
    assert judgement.attribution[-1] == "torch 2.11.0 → 2.12.0, diffusers 0.42.1 → 0.43.0 and 2 more"
    assert "; attention cudnn → math; torch 2.11.0 → 2.12.0" in judgement.message


def test_circumstances_come_after_phases_and_long_facts_are_cut() -> None:
    old = {"inductor_cache_hits": 3, "coefficients": [0.5] * 40, "device": "cuda:0", "graph_breaks": 1}
    new = {"inductor_cache_hits": 0, "coefficients": [0.6] * 40, "device": "cuda:1", "graph_breaks": 0}
    stored = make.baseline(make.run(make.measurement(facts=old)))
    judgement = verdict_of(slower(0.2, facts=new), stored=stored)
    first, second, *rest = judgement.attribution
    assert first.startswith("coefficients 0.5+0.5")
    assert len(first) < 150
    assert second.startswith("denoising")
    assert "inductor cache hits 3 → 0" in rest
    assert not any("cuda" in clause or "graph breaks" in clause for clause in judgement.attribution)


def test_more_computed_steps_are_told_from_dearer_ones() -> None:
    step = 0.08

    def made(computed: int, cost: float) -> Measurement:
        steps = tuple([cost] * computed + [0.005] * (28 - computed))
        base = make.measurement([sum(steps) + 0.2] * 8, computed=[computed] * 8)
        return make.measurement(
            generations=tuple(
                msgspec.structs.replace(g, steps_s=steps, denoise_s=sum(steps), text_encode_s=0.1, decode_s=0.1)
                for g in base.generations
            )
        )

    stored = make.baseline(make.run(made(14, step)))
    more = verdict_of(made(20, step), stored=stored)
    assert more.attribution[0].startswith("computed steps 14 → 20 an image: +0.45 s of +0.45 s")
    dearer = verdict_of(made(14, 1.1 * step), stored=stored)
    assert dearer.attribution[0].startswith("denoising, 14 computed steps as before (+9.4% each), +0.112 s")


def test_a_host_that_holds_the_device_back_is_named() -> None:
    base = slower(0.2)
    made = tuple(msgspec.structs.replace(g, device_busy_s=0.6 * g.wall_s) for g in base.generations)
    telemetry = Telemetry(sm_clock_mhz=900, throttle_reasons=("thermal",))
    judgement = verdict_of(make.measurement(generations=made, telemetry=telemetry))
    assert "the device was busy 60% of the time: the host holds it back" in judgement.attribution
    assert "clocks were held down at 900 MHz: thermal" in judgement.attribution


def test_passed_has_no_suspects() -> None:
    assert verdict_of(environment=upgraded()).attribution == ()


def test_noise_free_copies_of_the_baseline_pass_exactly() -> None:
    one = make.measurement()
    stored = make.baseline(*(make.run(one, session=f"s{r}") for r in range(3)))
    judgement = verdict_of(one, stored=stored)
    assert judgement.verdict == "passed"
    assert finding(judgement, "latency").change == pytest.approx(0.0)
    assert np.isfinite([f.now for f in judgement.findings if f.now is not None]).all()
