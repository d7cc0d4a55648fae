"""``fluxperf ab`` from its command line to its reports, with children that speak the protocol and measure nothing."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from fakechildren import Fakes

from pytest_fluxperf.cli import main
from pytest_fluxperf.report import load_document
from pytest_fluxperf.report.ci import render_annotations, render_junit
from pytest_fluxperf.results import RunDocument

SAME = ({"latency": 1.0}, {"latency": 1.0})


def compare(fakes: Fakes, monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[int, RunDocument]:
    """Exit status and document of a comparison."""
    monkeypatch.chdir(fakes.home)
    status = main(["ab", "--old", str(fakes.python("old")), "--new", str(fakes.python("new")), *options])
    (folder,) = (fakes.home / "reports").iterdir()
    return status, load_document(folder)


def failures(document: RunDocument) -> tuple[int, int, int]:
    """What JUnit, the annotations and the document's own rule count as failed."""
    suite = ET.fromstring(render_junit(document)).find("testsuite")
    assert suite is not None
    return int(suite.get("failures", 0)), int(suite.get("errors", 0)), render_annotations(document).count("::error")


def test_the_document_says_what_it_compared_whoever_called(fakes: Fakes, monkeypatch) -> None:
    """``main`` may be called from Python, where the process's own command line is another."""
    fakes.tests(same=SAME)
    monkeypatch.setattr("sys.argv", ["make_baselines.py", "--all"])
    status, document = compare(fakes, monkeypatch, "--all")
    assert status == 0
    assert document.command[:2] == ("fluxperf", "ab")
    assert document.against == "environment"
    assert (document.collected, document.gated, document.strict) == (1, 1, False)
    assert main(["append", str(next((fakes.home / "reports").iterdir()))]) == 4


@pytest.mark.parametrize("strict", [False, True])
def test_strict_fails_in_every_report_what_it_fails(fakes: Fakes, monkeypatch, strict: bool) -> None:
    fakes.tests(same=SAME, lacking=({"skipped": "no CUDA"}, {"skipped": "no CUDA"}))
    workload = fakes.result["workload"]
    described = {"lacking": {"recipe": "fp8", "reference": "none", "workload": workload}}
    for scenario in fakes.scenarios.values():
        scenario["collected"] = {"strict": strict, "described": described}
    status, document = compare(fakes, monkeypatch)
    assert (status, document.strict) == (int(strict), strict)
    assert failures(document) == ((1, 0, 1) if strict else (0, 0, 0))
    if strict:
        (lacking,) = [r for r in document.results if r.test == "lacking"]
        assert lacking.judgement.message == "no CUDA (--fluxperf-strict fails what cannot run)"
    else:
        assert [s.test for s in document.skipped] == ["lacking"]


@pytest.mark.parametrize("strict", [False, True])
def test_what_the_comparison_did_not_reach_fails_where_nothing_may_be_left_open(
    fakes: Fakes, monkeypatch, strict: bool
) -> None:
    slow = ({"latency": 1.0}, {"latency": 1.1})
    fakes.tests(a=slow, b=slow, c=slow, later=SAME)
    described = {"later": {"recipe": "fp8", "reference": "none", "workload": fakes.result["workload"]}}
    for scenario in fakes.scenarios.values():
        scenario["collected"] = {"strict": strict, "described": described}
    status, document = compare(fakes, monkeypatch)
    assert status == 1
    assert "the comparison ended early, 1 not compared: 3 regressions are confirmed" in document.warnings
    assert failures(document) == ((4, 0, 4) if strict else (3, 0, 3))
    verdicts = {result.test: result.judgement.verdict for result in document.results}
    assert verdicts.get("later") == ("inconclusive" if strict else None)
