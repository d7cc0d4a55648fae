"""Pictures of both environments are compared once for each test, whatever becomes of the processes."""

from __future__ import annotations

from typing import Any

import pytest
from fakechildren import Fakes

from pytest_fluxperf.cli import main
from pytest_fluxperf.quality import metrics
from pytest_fluxperf.report import load_document
from pytest_fluxperf.results import Judgement


def judged(fakes: Fakes, expected: int) -> dict[str, Judgement]:
    """The judgements that ``fluxperf ab`` reports, by test."""
    reports = fakes.home / "reports"
    arguments = ["ab", f"--old={fakes.python('old')}", f"--new={fakes.python('new')}", f"--reports={reports}"]
    assert main(arguments) == expected
    (folder,) = reports.iterdir()
    return {result.test: result.judgement for result in load_document(folder).results}


@pytest.mark.parametrize("mode", ["interleaved", "alternating"])
def test_a_test_that_is_first_reached_in_a_later_block_has_its_pictures_compared(fakes: Fakes, mode: Any) -> None:
    dies = {"latency": 1.1, "kernels": {}, "does": "die", "at": "profile"}
    fakes.tests(slow=({"latency": 1.0}, dies), later=({"latency": 1.0, "noise": 0.012}, {"latency": 1.006}))
    fakes.run(mode=mode, quality=True)
    compared = [line.partition("-")[::2] for line in fakes.lines("compared")]
    side, at = ("old", "new"), ("1", "2") if mode == "interleaved" else ("1a-alone", "1a-alone")
    assert sorted(compared) == sorted(
        (name, f"{process} {test} compared")
        for name in side
        for process, test in zip(at, ("slow", "later"), strict=True)
    )
    assert len({line.split()[0] for line in fakes.lines("later warm")}) > 2, "another block compares no picture again"


def test_an_unrelated_picture_in_a_later_block_is_found(fakes: Fakes) -> None:
    dies = {"latency": 1.1, "kernels": {}, "does": "die", "at": "profile"}
    before, after = ({"latency": 1.0, "picture": fakes.picture(seed)} for seed in (0, 1))
    fakes.tests(slow=({"latency": 1.0}, dies), later=(before, after))
    found = judged(fakes, 1)["later"]
    assert found.verdict == "regressed"
    assert "drift" in found.message


@pytest.mark.parametrize("side", ["old", "new"])
def test_what_was_compared_before_a_process_died_is_reported(fakes: Fakes, side: str) -> None:
    before, after = ({"latency": 1.0, "picture": fakes.picture(seed)} for seed in (0, 1))
    bad = {"latency": 1.0, "does": "die", "at": 3}
    fakes.tests(done=(before, after), bad=(bad, before) if side == "old" else (before, bad))
    found = judged(fakes, 1)["done"]
    assert found.verdict == "regressed"
    assert "drift" in found.message


def test_pictures_of_another_size_are_broken_and_the_rest_is_reported(fakes: Fakes) -> None:
    before, after = ({"latency": 1.0, "picture": fakes.picture(0, width)} for width in (32, 48))
    fakes.tests(resized=(before, after), same=(before, before))
    found = judged(fakes, 1)
    assert {test: judgement.verdict for test, judgement in found.items()} == {"resized": "broken", "same": "passed"}
    assert found["resized"].message == "cannot compare a picture of 48×32 pixels with a reference of 32×32"
    assert "slowphase old → new" in found["resized"].attribution


def test_a_metric_that_cannot_be_had_here_breaks_what_needs_it(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None)
    for scenario in fakes.scenarios.values():
        scenario["metrics"] = ["lpips"]
    before, after = ({"latency": 1.0, "picture": fakes.picture(seed)} for seed in (0, 1))
    fakes.tests(differs=(before, after), same=(before, before))
    found = judged(fakes, 1)
    assert {test: judgement.verdict for test, judgement in found.items()} == {"differs": "broken", "same": "passed"}
    assert found["differs"].message.startswith("LPIPS was asked for but torchvision is not installed")


def test_the_floors_of_a_body_without_our_pipeline_are_judged_by_its_own_pictures(fakes: Fakes) -> None:
    policy = {"min_ssim": 0.9}
    before, after = ({"latency": 1.0, "picture": fakes.picture(seed), "policy": policy} for seed in (0, 1))
    fakes.tests(differs=(before, after), same=(before, before))
    found = judged(fakes, 1)
    assert {test: judgement.verdict for test, judgement in found.items()} == {"differs": "regressed", "same": "passed"}
    (floor,) = [finding for finding in found["same"].findings if finding.metric == "SSIM floor"]
    assert (floor.verdict, floor.now) == ("passed", pytest.approx(1.0))
    (floor,) = [finding for finding in found["differs"].findings if finding.metric == "SSIM floor"]
    assert floor.verdict == "regressed"
