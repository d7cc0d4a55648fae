"""What a project adds by hooks: metrics and models of its own."""

from __future__ import annotations

import json

import pytest

METRIC = """
def pytest_fluxperf_metrics(config):
    from pytest_fluxperf import PictureMetric

    def roughness(picture, reference):
        return float(abs(picture[1:] - picture[:-1]).mean())

    return {{"roughness": PictureMetric(roughness, {arguments})}}
"""


def with_metric(project, arguments):
    project.pytester.makeconftest(project.conftest + METRIC.format(arguments=arguments))
    return project


def test_an_own_metric_is_stored_and_gated(project):
    with_metric(project, "tolerance=0.02, higher_is_better=False")
    assert project.run("--fluxperf-update").ret == 0
    stored = json.loads(sorted(project.baselines.rglob("test_recipe*fbcache*.json"))[0].read_text())
    assert all(0 < sample["own"]["roughness"] < 1 for sample in stored["runs"][0]["samples"])
    project.run()
    assert [f["verdict"] for f in project.judgement("fbcache")["findings"] if f["metric"] == "roughness"] == ["passed"]
    assert project.run(fault="noise").ret == 1
    (finding,) = [f for f in project.judgement("fbcache")["findings"] if f["metric"] == "roughness"]
    assert finding["verdict"] == "regressed"
    assert finding["change"] > 0.02


def test_the_direction_of_an_own_metric_counts(project):
    with_metric(project, "tolerance=0.02, higher_is_better=True")
    assert project.run("--fluxperf-update").ret == 0
    project.run(fault="noise")
    (finding,) = [f for f in project.judgement("fbcache")["findings"] if f["metric"] == "roughness"]
    assert finding["verdict"] == "improved"


def test_an_own_metric_without_a_baseline_warns(recorded):
    with_metric(recorded, "tolerance=0.02")
    recorded.run().stdout.fnmatch_lines(["*roughness has no baseline, so nothing guards it*"])


def test_a_metric_that_left_is_missed(project):
    with_metric(project, "tolerance=0.02")
    assert project.run("--fluxperf-update").ret == 0
    project.pytester.makeconftest(project.conftest)
    project.run()
    (finding,) = [f for f in project.judgement("fbcache")["findings"] if f["metric"] == "roughness"]
    assert finding["verdict"] == "inconclusive"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [("tolerance=0", "the tolerance of 'roughness' must be above 0"), ("tolerance=-1.0", "must be above 0")],
)
def test_a_metric_that_cannot_be_gated_is_refused(project, arguments, complaint):
    with_metric(project, arguments)
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert complaint in result.stderr.str()


@pytest.mark.parametrize("name", ["ssim", "two words"])
def test_a_metrics_name_must_be_free(project, name):
    project.pytester.makeconftest(
        project.conftest + METRIC.format(arguments="tolerance=1").replace('roughness"', f'{name}"')
    )
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "is taken or is no identifier" in result.stderr.str()


def test_a_metric_that_fails_breaks_the_test_by_name(recorded):
    metric = METRIC.format(arguments="tolerance=1").replace("return float(", "return float('nan') * float(")
    recorded.pytester.makeconftest(recorded.conftest + metric)
    result = recorded.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*broken: metric 'roughness' of the pictures is nan, not a finite number*"])


def test_a_models_own_name_is_what_baselines_know(project, model):
    hook = f"\ndef pytest_fluxperf_models(config):\n    return {{'our-flux': {str(model)!r}}}\n"
    project.pytester.makeconftest(project.conftest + hook)
    project._arguments = ("--gpu=cpu", "--fluxperf-model=our-flux", "--fluxperf-latency=absolute")
    assert project.run("--fluxperf-update", "-k", "not fbcache").ret == 0
    assert project.results()["results"][0]["workload"]["model"] == "our-flux"
    project._arguments = ("--gpu=cpu", "--fluxperf-model=our-flix", "--fluxperf-latency=absolute")
    assert "schnell@random, our-flux, hub ids" in project.run().stderr.str()
