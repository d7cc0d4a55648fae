"""Causes planted in real generations: the first line of the attribution names each of them."""

from __future__ import annotations

import gzip
import json

import pytest
from causes import CAUSES, SUITE


@pytest.fixture
def planted(project):
    """The project after a healthy run and one with every cause planted, both profiled."""
    project.pytester.makepyfile(test_suite=SUITE)
    healthy = project.run("--fluxperf-update", "--fluxperf-profile")
    healthy.assert_outcomes(passed=len(CAUSES))
    project.run("--fluxperf-profile", fault="planted").assert_outcomes(failed=len(CAUSES))
    return project


def test_planted_causes_are_named(planted):
    for test, (verdict, cause) in CAUSES.items():
        judgement = planted.judgement(test)
        assert (test, judgement["verdict"]) == (test, verdict)
        assert judgement["attribution"][0].startswith(cause), judgement["attribution"]

    (attention,) = [r for r in planted.results()["results"] if "test_attention" in r["test"]]
    assert "attention kernels that ran flash → math" in attention["judgement"]["message"]
    # the profile of both sides: what ran instead, and parts that sum to the difference
    found = attention["judgement"]["kernels"]
    moved = {c["family"]: c["change"] for c in found["changes"]}
    assert moved["aten::_scaled_dot_product_flash_attention_for_cpu"] == "vanished"
    parts = sum(c["now_s"] - c["baseline_s"] for c in found["changes"])
    assert parts + found["others_s"] + found["idle_s"] + found["unexplained_s"] == pytest.approx(found["difference_s"])
    families = {k["family"] for k in attention["measurement"]["kernels"]["kernels"]}
    assert "aten::_scaled_dot_product_attention_math" in families

    # traces lie in the run's folder; baselines keep the table alone
    for trace in attention["measurement"]["kernels"]["traces"]:
        assert json.loads(gzip.decompress((planted.runs[-1] / trace).read_bytes()))["traceEvents"]
    stored = [json.loads(path.read_text())["runs"][0] for path in planted.baselines.rglob("*.json")]
    assert all(run["kernels"]["kernels"] and "traces" not in run["kernels"] for run in stored)

    # a broken picture is not worth a profile
    (hooks,) = [r for r in planted.results()["results"] if "test_hooks" in r["test"]]
    assert "kernels" not in hooks["measurement"]


def test_the_only_warm_up_is_watched_where_nothing_compiles(project):
    project.run("--fluxperf-update", "--fluxperf-warmup=1")
    facts = [result["measurement"]["facts"] for result in project.results()["results"]]
    assert [fact["ran_attention"] for fact in facts] == [["flash"], ["flash"]]


def test_a_run_without_the_option_profiles_nothing(project):
    project.run("--fluxperf-update", "-k", "fbcache")
    (result,) = project.results()["results"]
    assert "kernels" not in result["measurement"]
    assert not (project.runs[-1] / "traces").exists()
