"""Every run stores the work of a generation and what the transformer answers to fixed inputs."""

from __future__ import annotations

import json

import pytest

OWN_BODY = """
import numpy as np
import pytest


@pytest.mark.fluxperf(prompts=["a"], reference="none", steps=1, size=32)
def test_own(flux_inputs):
    return np.random.default_rng(0).random((32, 32, 3)).astype(np.float32)
"""

WRONG_SCALE = """
import pytest


@pytest.fixture
def wrong(request):
    import torch

    original = torch.nn.functional.scaled_dot_product_attention
    if "fuseqkv" in request.node.name and request.config.rootpath.joinpath("wrong.txt").exists():
        scaled = lambda query, *rest, **more: original(1.5 * query, *rest, **more)
        torch.nn.functional.scaled_dot_product_attention = scaled
    yield
    torch.nn.functional.scaled_dot_product_attention = original


@pytest.mark.fluxperf(steps=4, size=32, prompts=["two green squares"])
@pytest.mark.parametrize("flux", ["fp32+fuseqkv"], indirect=True)
def test_recipe(flux, flux_inputs, wrong):
    return flux(**flux_inputs).images
"""


def measured(project, part=""):
    return next(r["measurement"] for r in project.results()["results"] if part in r["test"])


def finding(project, metric, part=""):
    return next(f for f in project.judgement(part)["findings"] if f["metric"] == metric)


def test_ledger_and_fidelity_are_stored_in_results_and_baseline(project):
    assert project.run("--fluxperf-update").ret == 0
    found = measured(project, "fbcache")
    phases = {phase["phase"]: phase for phase in found["ledger"]["phases"]}
    decisions = found["generations"][0]["decisions"]
    assert phases["computed"]["times"] == decisions.count("1")
    assert phases["cached"]["times"] == decisions.count("0")
    assert phases["cached"]["each"]["operators"] < phases["computed"]["each"]["operators"]
    assert found["fidelity"]["lossless"] is False
    assert [answer["error"] for answer in found["fidelity"]["answers"]] == [0, 0, 0]  # no step to reuse
    dense = measured(project, "[fp32]")["fidelity"]
    assert dense["lossless"]
    assert all(answer["rounding"] > 0 for answer in dense["answers"])
    (file,) = [path for path in project.baselines.rglob("*.json") if "fbcache" in path.name]
    (run,) = json.loads(file.read_text())["runs"]
    assert run["ledger"] == found["ledger"]
    again = project.run()
    assert again.ret == 0
    assert measured(project, "fbcache")["ledger"] == found["ledger"]
    assert "bit-identical to the baseline's own" in finding(project, "fidelity", "fbcache")["message"]


@pytest.mark.parametrize("how", ["option", "ini"])
def test_it_can_be_turned_off(project, how):
    if how == "ini":
        project.pytester.makeini("[pytest]\naddopts = -p no:benchmark\nfluxperf_ledger = no")
    arguments = ["--fluxperf-ledger=no"] if how == "option" else []
    project.run("--fluxperf-update", "-k", "fbcache", *arguments)
    assert not measured(project).keys() & {"ledger", "fidelity"}


def test_another_value_is_told(project):
    project.pytester.makeini("[pytest]\nfluxperf_ledger = perhaps")
    project.run().stderr.fnmatch_lines(["*fluxperf_ledger must be yes or no, not 'perhaps'*"])


def test_a_body_with_a_pipeline_of_its_own_says_that_wall_time_is_all(project):
    project.pytester.makepyfile(test_suite=OWN_BODY)
    project.run("--fluxperf-update")
    found = measured(project)
    assert "ledger" not in found
    assert found["facts"]["ledger"].startswith("not counted: the body has a pipeline of its own; wall time alone")


def test_a_lossless_recipe_that_computes_something_else_regresses_without_a_baseline(project):
    project.pytester.makepyfile(test_suite=WRONG_SCALE)
    project.run("--fluxperf-update")
    assert finding(project, "fidelity")["verdict"] == "passed"
    (project.pytester.path / "wrong.txt").touch()
    assert project.run("--fluxperf-baselines=none").ret != 0
    worse = finding(project, "fidelity")
    assert worse["verdict"] == "regressed"
    assert "3 roundings of its dtype" in worse["message"]
    assert project.judgement("fuseqkv")["verdict"] == "regressed"
