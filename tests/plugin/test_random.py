"""Models with random weights: latency is real, pictures are noise, thresholds are never met."""

from __future__ import annotations

import pytest
import tinyflux

SUITE = """
import pytest


@pytest.mark.fluxperf(steps=7, size=64, samples=2)
@pytest.mark.parametrize("flux", ["fp32", "fp32+fbcache:0.3", "fp32+fora"], indirect=True)
def test_recipe(flux, flux_inputs):
    return flux(**flux_inputs).images
"""


@pytest.fixture
def random_project(project, monkeypatch):
    from pytest_fluxperf.pipelines import randomflux

    monkeypatch.setitem(randomflux.ARCHITECTURES, "flux-dev", tinyflux.architecture())
    project.pytester.makepyfile(test_suite=SUITE)
    project._arguments = ("--gpu=cpu", "--fluxperf-model=flux-dev@random", "--fluxperf-latency=absolute")
    return project


def test_caches_follow_a_schedule_that_every_output_names(random_project):
    result = random_project.run("--fluxperf-update")
    result.assert_outcomes(passed=3)
    results = {r["test"]: r for r in random_project.results()["results"]}
    cached = results["test_suite.py::test_recipe[fp32+fbcache:0.3]"]
    assert cached["recipe"] == "fp32+fbcache:0.3,computed=2"  # 2 of 7, as 8 of 28
    assert {g["decisions"] for g in cached["measurement"]["generations"]} == {"1000100"}
    assert results["test_suite.py::test_recipe[fp32+fora]"]["recipe"] == "fp32+fora"  # it has a schedule of its own
    result.stdout.fnmatch_lines(["*fbcache:0.3,computed=2*"])
    caveats = " ".join(random_project.results()["warnings"])
    assert "computed=K" in caveats
    assert "neither compared nor kept" in caveats
    for name in ("report.html", "summary.md"):
        text = (random_project.runs[-1] / name).read_text()
        assert "fbcache:0.3,computed=2" in text
        assert "pictures are noise" in text


def test_no_picture_is_compared_or_kept_and_the_gate_still_gates(random_project):
    for step in ("--fluxperf-update", "--fluxperf-append", "--fluxperf-append"):
        random_project.run(step).assert_outcomes(passed=3)
    assert not list(random_project.pytester.path.rglob("*.png"))
    assert all("quality" not in r for r in random_project.results()["results"])
    random_project.run().assert_outcomes(passed=3)
    assert random_project.results()["gated"] == 3
    assert random_project.run(fault="slow decode").ret == 1


def test_noise_that_is_not_finite_is_broken(random_project):
    random_project.pytester.makepyfile(
        test_suite=SUITE.replace(
            "return flux(**flux_inputs).images",
            """
    images = flux(**flux_inputs, output_type="np").images
    return images * float("nan")
""",
        )
    )
    random_project.run().assert_outcomes(failed=3)
    assert "NaN or infinite" in random_project.judgement("fora")["message"]
