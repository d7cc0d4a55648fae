"""A regression of a comparison is profiled on both sides, and no profile costs a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import records as make
from fakechildren import Fakes

from pytest_fluxperf.ab.outcome import grounds_of, result_of
from pytest_fluxperf.ab.trial import Trial
from pytest_fluxperf.results import Hardware, Result

CPU = Hardware(kind="cpu", name="a CPU")
OLD = {"latency": 1.0, "kernels": {"gemm": 0.8, "flash": 0.1}}
NEW = {"latency": 1.1, "kernels": {"gemm": 0.8, "softmax": 0.2}}


def compared(trial: Trial, folder: Path) -> Result:
    result = result_of(trial, CPU, folder, ())
    assert isinstance(result, Result)
    return result


@pytest.mark.parametrize("mode", ["interleaved", "alternating"])
def test_a_regression_is_taken_apart_by_kernels(fakes: Fakes, mode: Any) -> None:
    fakes.tests(slow=(OLD, NEW), same=(OLD, dict(NEW, latency=1.0)))
    trials = {t.test: t for t in fakes.run(mode=mode)}
    slow = compared(trials["slow"], fakes.folder)
    assert slow.judgement.verdict == "regressed"
    found = slow.judgement.kernels
    assert found is not None
    assert [(c.family, c.change) for c in found.changes] == [("softmax", "appeared"), ("flash", "vanished")]
    assert found.difference_s == pytest.approx(0.1, abs=0.01)
    assert slow.judgement.attribution[0].startswith("kernel softmax appeared")
    assert slow.comparison is not None
    runs = [(fakes.folder / trace).read_text() for trace in slow.comparison.traces]
    assert runs == (["old-1", "new-1"] if mode == "interleaved" else ["old-1b-alone", "new-1b-alone"])
    same = compared(trials["same"], fakes.folder)
    assert same.judgement.verdict == "passed"
    assert not fakes.lines("same profiled")
    assert same.judgement.kernels is None


def test_everything_is_profiled_once_where_the_user_wants_it(fakes: Fakes) -> None:
    fakes.scenarios["new"]["profile"] = True
    fakes.tests(same=(OLD, dict(OLD, kernels=NEW["kernels"])))
    (trial,) = fakes.run()
    assert fakes.lines("profiled") == ["old-1 same profiled", "new-1 same profiled"]
    assert [compared(trial, fakes.folder).judgement.verdict] == ["passed"]


@pytest.mark.parametrize("side", ["old", "new"])
def test_a_side_that_cannot_profile_says_why_and_keeps_its_verdict(fakes: Fakes, side: str) -> None:
    sides = {"old": OLD, "new": NEW}
    sides[side] = sides[side] | {"unprofiled": "it raised RuntimeError: no CUPTI"}
    fakes.tests(slow=(sides["old"], sides["new"]), later=(OLD, OLD))
    slow, later = fakes.run()
    judgement = compared(slow, fakes.folder).judgement
    assert judgement.verdict == "regressed"
    assert judgement.kernels is None
    assert f"the {side} environment could not be profiled: it raised RuntimeError: no CUPTI" in judgement.warnings
    assert compared(later, fakes.folder).judgement.verdict == "passed"


@pytest.mark.parametrize("mode", ["interleaved", "alternating"])
@pytest.mark.parametrize("side", ["old", "new"])
@pytest.mark.parametrize("does", ["die", "hang", "garbage"])
def test_a_side_that_is_lost_in_a_profile_costs_no_verdict(fakes: Fakes, mode: Any, side: str, does: str) -> None:
    sides = {"old": OLD, "new": NEW}
    sides[side] = sides[side] | {"does": does, "at": "profile"}
    fakes.tests(slow=(sides["old"], sides["new"]), later=(OLD, OLD))
    conductor = fakes.conductor(timeout_s=2.0, mode=mode)
    trials = {t.test: t for t in conductor.run()}
    later = compared(trials["later"], fakes.folder)
    assert later.judgement.verdict == "passed", "fresh processes go on"
    slow = compared(trials["slow"], fakes.folder)
    assert slow.judgement.verdict == "regressed"
    assert any(f"not profiled: the {side} environment's process" in w for w in slow.judgement.warnings)
    assert conductor.ended is None


def test_a_version_that_does_not_know_profiles_is_compared_all_the_same(fakes: Fakes) -> None:
    fakes.tests(slow=({"latency": 1.0}, NEW))
    fakes.scenarios["old"]["plugin"] = "0.0.9"
    (trial,) = fakes.run()
    result = compared(trial, fakes.folder)
    assert result.judgement.verdict == "regressed"
    assert result.judgement.kernels is None


def test_what_is_broken_says_what_differs(fakes: Fakes) -> None:
    black = {"latency": 1.0, "problem": "picture of prompt 1 of 8 is black"}
    fakes.tests(black=({"latency": 1.0}, black), lost=({"latency": 1.0}, {"skipped": "torchao does not import"}))
    found = {t.test: compared(t, fakes.folder).judgement for t in fakes.run()}
    assert {name: judgement.verdict for name, judgement in found.items()} == {"black": "broken", "lost": "broken"}
    assert "slowphase old → new" in found["black"].attribution
    assert not found["lost"].attribution, "the new one measured nothing that could differ"


def test_what_a_comparison_measured_explains_the_change(fakes: Fakes) -> None:
    """Every block counts, and the old environment is what it is compared with."""
    for scenario in fakes.scenarios.values():
        scenario |= {"drift": 0.10, "total": 64}
    fakes.tests(slow=(OLD, NEW))
    (trial,) = fakes.run()
    grounds = grounds_of(trial, CPU)
    assert grounds is not None
    measurement, baseline = grounds.measurement, grounds.baseline
    assert measurement.kernels is not None
    assert not measurement.kernels.traces
    assert baseline.environments[baseline.runs[-1].environment].packages["slowphase"] == "old"
    assert make.workload(8) == baseline.workload
