"""Broken on purpose: each fault gets its verdict, its message, and exit code 1; an unchanged rerun passes."""

from __future__ import annotations

import json

import msgspec
import pytest

from pytest_fluxperf.baseline.codec import decode, encode
from pytest_fluxperf.pipelines import pool
from pytest_fluxperf.results import Hardware


def test_an_unchanged_rerun_passes(recorded):
    result = recorded.run()
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*gated 2 of 2*"])
    assert {r["judgement"]["verdict"] for r in recorded.results()["results"]} == {"passed"}


def test_the_time_for_the_reference_is_recorded_where_it_was_spent(project):
    project.run("--fluxperf-update")
    spent = {result["recipe"]: result.get("reference_s", 0.0) for result in project.results()["results"]}
    assert spent["fp32"] > spent["fp32+fbcache:0.5"]  # the second test finds pipeline and pictures made


def test_facts_are_the_same_after_they_were_stored(project):
    """Polynomials of nine digits are stored with six: no difference to blame a slow-down on."""
    suite = project.pytester.path / "test_suite.py"
    suite.write_text(suite.read_text().replace("fbcache:0.5", "teacache:9"))
    project.run("--fluxperf-update")
    project.run(fault="slow decode")
    judgement = project.judgement("teacache")
    assert "decod" in judgement["message"]
    assert "coefficients" not in json.dumps(judgement)


def test_a_cache_whose_hits_nobody_would_see_is_named_as_such(project):
    """A fixed schedule, and TeaCache with another model's coefficients."""
    suite = project.pytester.path / "test_suite.py"
    suite.write_text(suite.read_text().replace("fbcache:0.5", "teacache:9,computed=2"))
    result = project.run("--fluxperf-update")
    schedule, coefficients = project.results()["warnings"]
    assert "computed=K follow a fixed schedule" in schedule
    assert "never one to serve" in schedule
    assert coefficients.startswith("TeaCache decides by the coefficients of FLUX.1-dev, which were not fitted to this")
    assert "fluxperf calibrate teacache --model /" in coefficients
    result.stdout.fnmatch_lines(["warning: step caches with computed=K*", "warning: TeaCache decides by*"])
    assert "never one to serve" in (project.runs[-1] / "summary.md").read_text()


def test_ten_percent_more_in_one_phase(recorded):
    result = recorded.run(fault="slow decode")
    result.assert_outcomes(passed=1, failed=1)
    assert result.ret == 1
    judgement = recorded.judgement("fbcache")
    assert judgement["verdict"] == "regressed"
    assert "latency" in judgement["message"]
    assert "decod" in judgement["message"]
    (latency,) = [f for f in judgement["findings"] if f["metric"] == "latency"]
    assert "+10.6% in denoising and decoding" in latency["message"]  # what lies outside did not change
    result.stdout.fnmatch_lines(["fluxperf: regressed: latency *decod*", "FAILED*fbcache*"])
    assert "pytest_fluxperf/" not in result.stdout.str().split("= fluxperf =")[0]  # no traceback of ours


def test_a_cache_that_silently_never_hits(recorded):
    result = recorded.run(fault="cache never hits")
    result.assert_outcomes(passed=1, failed=1)
    judgement = recorded.judgement("fbcache")
    assert judgement["verdict"] == "regressed"
    assert any(f["metric"] == "computed steps" and f["verdict"] == "regressed" for f in judgement["findings"])


@pytest.mark.parametrize(
    ("fault", "verdict", "message"),
    [
        ("noise", "regressed", "SSIM"),
        ("shifted", "regressed", "SSIM"),
        ("black", "broken", "is black"),
        ("nan", "broken", "NaN or infinite"),
        ("other size", "broken", "is 16×16 pixels, not 32×32"),
        ("returns nothing", "broken", "returned nothing (None)"),
        ("recompiles", "broken", "recompiled 6 times in the measured region"),
        (
            "recompile limit",
            "broken",
            "torch.compile gave up: dynamo's recompile_limit (2) was met, so code runs eager",
        ),
        (
            "recompile limit, one graph",
            "broken",
            "FailOnRecompileLimitHit: dynamo's recompile_limit (2) was met",
        ),
        ("raises on the third prompt", "broken", "RuntimeError: out of luck"),
    ],
)
def test_a_fault_gets_its_own_verdict_and_message(recorded, fault, verdict, message):
    result = recorded.run(fault=fault)
    result.assert_outcomes(passed=1, failed=1)
    assert result.ret == 1
    judgement = recorded.judgement("fbcache")
    assert judgement["verdict"] == verdict
    assert message in judgement["message"]


def test_a_failure_shows_nothing_that_libraries_wrote_of_themselves(recorded):
    """Neither torch's trace of what it compiles nor its profiler's announcements."""
    result = recorded.run(fault="recompiles")
    assert result.ret == 1
    assert "Captured" not in result.stdout.str()


def test_out_of_memory_is_one_line_with_the_figures_and_the_next_test_runs(recorded):
    result = recorded.run("--deselect=test_suite.py::test_recipe[fp32]", "test_suite.py", fault="out of memory")
    result.assert_outcomes(failed=1, deselected=1)
    complaint = (
        "fluxperf: broken: the device's memory does not suffice in warm-up: it needed 2.50 GiB more and 1.20 GiB of "
        "the device's 79.10 GiB was free"
    )
    result.stdout.fnmatch_lines([f"*{complaint}*"])
    result.stdout.no_fnmatch_line("*torch.OutOfMemoryError(*")  # no traceback of the body, which did nothing wrong
    # here it comes first
    result = recorded.run(
        "test_suite.py::test_recipe[fp32+fbcache:0.5]", "test_suite.py::test_recipe[fp32]", fault="out of memory"
    )
    result.assert_outcomes(passed=1, failed=1)


FAILING_REFERENCE = """
import torch

from pytest_fluxperf.errors import FluxPerfError

generations = 0
prepared = 0


def pytest_fluxperf_pipeline(pipe, recipe):
    global prepared

    def decode(*_):
        global generations
        generations += 1
        if generations == {generation}:
            raise {error}

    if recipe == "fp32":
        prepared += 1
        if prepared == 1:
            pipe.vae.decoder.register_forward_pre_hook(decode)
        elif {generation} == 0 and prepared > 2:  # behind its pictures and its answers to fixed inputs
            raise {error}
"""


@pytest.mark.parametrize(
    ("generation", "error", "said"),
    [
        (
            6 + 3,  # behind the pictures of six prompts
            'torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB.")',
            "the device's memory does not suffice: it needed 2.50 GiB more",
        ),
        (6 + 3, 'ValueError("out of luck")', "raised ValueError: out of luck"),
        (0, 'FluxPerfError("no room", recipe="fp32")', "no room"),
    ],
    ids=["memory", "another", "unprepared"],
)
def test_a_reference_that_fails_beside_a_test_breaks_its_result(project, generation, error, said):
    project.pytester.makepyfile(failing=FAILING_REFERENCE.format(generation=generation, error=error))
    project.pytester.syspathinsert()
    result = project.run("-p", "failing", "-k", "fbcache", latency="relative")
    result.assert_outcomes(failed=1, deselected=1)
    judgement = project.judgement("fbcache")
    assert (judgement["verdict"], judgement["message"]) == ("broken", f"reference recipe fp32: {said}")
    result.stdout.no_fnmatch_line("*Error*(*")  # no traceback


def test_a_body_that_raises_shows_its_own_traceback(recorded):
    result = recorded.run(fault="raises on the third prompt")
    result.stdout.fnmatch_lines(
        [
            "*raise RuntimeError*",
            "E*RuntimeError: out of luck",
            "E*fluxperf: broken: the test raised at generation 3 of 6",
        ]
    )


def test_no_baseline(project):
    result = project.run()
    result.assert_outcomes(failed=2)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*no baseline is stored; record one with --fluxperf-update*", "*gated 0 of 2*"])


def test_a_baseline_of_other_hardware(recorded):
    for path in recorded.baselines.rglob("*.json"):
        stored = decode(path.read_bytes(), str(path))
        elsewhere = Hardware(kind="cuda", name="NVIDIA H100 80GB HBM3", memory_mib=81559, host_cpu="x")
        path.write_bytes(encode(msgspec.structs.replace(stored, hardware=elsewhere)))
    result = recorded.run()
    result.assert_outcomes(failed=2)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*the baseline was recorded on NVIDIA H100 80GB HBM3*"])


def test_another_workload_is_no_baseline(recorded):
    result = recorded.run("--fluxperf-steps=4")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*another workload (steps 8 → 4*"])


def test_relative_mode_gates_the_speed_up_over_the_reference(project, record):
    record(project, "relative")
    assert project.run(latency="relative").ret == 0
    measured = next(r for r in project.results()["results"] if "fbcache" in r["test"])["measurement"]["generations"]
    assert all(g["reference_latency_s"] > g["latency_s"] for g in measured)
    result = project.run("--fluxperf-max-slowdown=0.05", latency="relative", fault="slow decode")
    assert result.ret == 1
    assert "speed-up over fp32" in project.judgement("fbcache")["message"]


def test_the_reference_is_made_once_and_shared(recorded):
    recorded.run()
    results = recorded.results()["results"]
    first, second = ([p["sha256"] for p in r["quality"]["references"]] for r in results)
    assert first == second
    assert len(list((recorded.runs[-1] / "references").glob("*.json"))) == 1


@pytest.mark.parametrize("update", ["--fluxperf-update", "--fluxperf-update=new", "--fluxperf-append"])
def test_broken_results_are_never_recorded(recorded, update):
    before = {p: p.read_bytes() for p in recorded.baselines.rglob("*.json") if "fbcache" in p.name}
    result = recorded.run(update, fault="black")
    assert result.ret == 1
    assert {p: p.read_bytes() for p in before} == before
    result.stdout.fnmatch_lines(["*fbcache*refused, broken*"])


def test_update_accepts_a_regression_and_says_old_and_new(recorded):
    result = recorded.run("--fluxperf-update", fault="slow decode")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*fbcache*replaced, p50 * → *"])
    assert recorded.run(fault="slow decode").ret == 0
    # one stored run teaches little of how sessions differ, so it may be undecided, but it no longer fails
    assert recorded.judgement("fbcache")["verdict"] in ("passed", "inconclusive")


def test_update_new_does_not_accept_a_regression(recorded):
    assert recorded.run("--fluxperf-update=new", fault="slow decode").ret == 1


def test_update_failed_replaces_what_regressed_and_keeps_the_rest(recorded):
    before = {path.name: path.read_bytes() for path in recorded.baselines.rglob("test_recipe*.json")}
    result = recorded.run("--fluxperf-update=failed", fault="slow decode")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*fbcache*replaced, p50 * → *"])
    after = {path.name: path.read_bytes() for path in recorded.baselines.rglob("test_recipe*.json")}
    assert [name for name in before if after[name] != before[name]] == [name for name in before if "fbcache" in name]
    assert before.keys() == after.keys()


def test_append_adds_a_run_and_says_so(recorded):
    result = recorded.run("--fluxperf-append")
    assert result.ret == 0
    runs = [json.loads(path.read_text())["runs"] for path in recorded.baselines.rglob("test_recipe*.json")]
    assert [len(stored) for stored in runs] == [4, 4]
    assert "appended" in result.stdout.str()


def test_append_does_not_accept_a_regression(recorded):
    result = recorded.run("--fluxperf-append", fault="slow decode")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*fbcache*refused, regressed: latency*accept the change with *update=failed"])
    runs = [json.loads(path.read_text())["runs"] for path in recorded.baselines.rglob("test_recipe*.json")]
    assert sorted(len(stored) for stored in runs) == [3, 4]


def test_a_recipe_that_cannot_run_is_a_skip_that_says_what_is_missing(project):
    project.pytester.makepyfile(
        test_suite="""
        import pytest

        @pytest.mark.fluxperf(steps=2, size=32, recipe="bf16+fp8")
        def test_fp8(flux, flux_inputs):
            return flux(**flux_inputs).images
        """
    )
    result = project.run("-rs")
    result.assert_outcomes(skipped=1)
    assert result.ret == 1  # nothing was gated
    result.stdout.fnmatch_lines(["*this run gated nothing, so it fails*", "SKIPPED*fp8 needs a CUDA GPU*"])
    (skipped,) = project.results()["skipped"]
    assert skipped["reason"].startswith("recipe bf16+fp8")
    assert not skipped.get("marked")
    strict = project.run("--fluxperf-strict")
    strict.assert_outcomes(errors=1)
    strict.stdout.fnmatch_lines(["*fp8 needs a CUDA GPU*--fluxperf-strict fails what cannot run*"])


def test_what_a_mark_leaves_out_is_told_from_what_cannot_run(project):
    suite = project.pytester.path / "test_suite.py"
    suite.write_text(
        suite.read_text().replace("@pytest.mark.fluxperf", "@pytest.mark.skip('later')\n@pytest.mark.fluxperf", 1)
    )
    project.run()
    skipped = project.results()["skipped"]
    assert skipped
    assert {(skip["reason"], skip["marked"]) for skip in skipped} == {("later", True)}


def test_a_recipe_that_ran_and_cannot_any_more_fails_by_its_baseline(recorded, monkeypatch):
    """An upgrade took away what an optimization needs: no skip among tests that pass, which nobody reads."""

    def lacking(recipe, device):
        return "needs the package diffusers>=99" if recipe.token("cache") else None

    monkeypatch.setattr(pool, "unavailable", lacking)
    result = recorded.run()
    result.assert_outcomes(passed=1, errors=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "recipe fp32+fbcache:0.5: needs the package diffusers>=99, but ran when its baseline was recorded; "
            "delete baselines/cpu/test_suite/test_recipe_*.json to give it up"
        ]
    )
    judgement = recorded.judgement("fbcache")
    assert judgement["verdict"] == "broken"
    assert judgement["message"].startswith("could not be set up: needs the package diffusers>=99, but ran when")
    for path in recorded.baselines.rglob("test_recipe*fbcache*.json"):
        path.unlink()
    assert recorded.run().ret == 0  # as it says
