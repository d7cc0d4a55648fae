"""The verdict in a sentence: what it blames, and what it does not."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import report_documents as documents

from pytest_fluxperf.report.markdown import render_markdown
from pytest_fluxperf.report.sentence import verdict_sentence
from pytest_fluxperf.report.terminal import terminal_summary
from pytest_fluxperf.report.view import overview
from pytest_fluxperf.results import BaselineChange, Finding

SLOWER = {"slower": 0.06, "verdict": "regressed"}


def sentence(packages, recipe="bf16+fa2", **changes):
    environment = msgspec.structs.replace(documents.OLD, packages={**documents.OLD.packages, **packages})
    made = [documents.result("bf16"), documents.result(recipe, **{**SLOWER, **changes})]
    return verdict_sentence(overview(documents.document(made, environment=environment)))


def test_the_only_suspect_made_it():
    text = sentence({"diffusers": "0.43.0", "regex": "1"})
    assert text == "1 of 2 regressed: diffusers 0.42.1 → 0.43.0 made bf16+fa2 6.1 % slower."


def test_what_rides_on_a_package_is_no_suspect_beside_it_but_alone_it_is():
    assert "torch 2.11.0 → 2.13.0 made" in sentence({"torch": "2.13.0", "triton": "3.8.0"})
    assert "triton 3.6.0 → 3.8.0 made" in sentence({"triton": "3.8.0"})


def test_what_measures_is_no_suspect():
    assert sentence({"pytest-fluxperf": "9.9"}) == "1 of 2 regressed: bf16+fa2 is 6.1 % slower."


def test_beside_others_a_suspect_is_only_named():
    text = sentence({"torch": "2.13.0", "diffusers": "0.43.0"})
    assert (
        text == "1 of 2 regressed: with torch 2.11.0 → 2.13.0 and diffusers 0.42.1 → 0.43.0, bf16+fa2 is 6.1 % slower."
    )
    text = sentence({"torch": "2.13.0", "diffusers": "0.43.0", "torchao": "0.19", "transformers": "6"})
    assert "with torch 2.11.0 → 2.13.0, diffusers 0.42.1 → 0.43.0 and 2 more changes, bf16+fa2 is" in text


@pytest.mark.parametrize("against", ["environment", "session"])
def test_what_a_comparison_lacks_is_not_to_be_recorded(against):
    lacking = documents.result("bf16+fa2", verdict="no baseline", message="the old environment cannot run it")
    made = [documents.result("bf16"), lacking, documents.result("bf16+sage", verdict="improved")]
    here = documents.document(made, gated=2, command=("pytest", "perf_tests"))
    assert "record one with --fluxperf-update, starting with bf16+fa2" in verdict_sentence(overview(here))
    assert "--fluxperf-update" in " ".join(terminal_summary(here)[-4:])
    there = msgspec.structs.replace(here, against=against)
    assert verdict_sentence(overview(there)) == "1 of 3 has no baseline: bf16+fa2: the old environment cannot run it."
    assert "--fluxperf-update" not in " ".join(terminal_summary(there))


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (["passed", "passed"], "2 of 3 passed, 1 not measured: no slower, no heavier, no worse than the baseline."),
        (["passed", "improved"], "None of 2 failed: 1 improved, 1 passed, 1 not measured."),
    ],
)
def test_what_a_run_that_was_ended_did_not_reach_has_not_passed(verdicts, said):
    made = [
        documents.result(recipe, verdict=verdict) for recipe, verdict in zip(("bf16", "fp16"), verdicts, strict=True)
    ]
    whole = documents.document(made, environment=documents.OLD)
    assert (overview(whole).unmeasured, overview(whole).tone) == (0, verdicts[1])
    ended = overview(msgspec.structs.replace(whole, collected=3))
    assert (verdict_sentence(ended), ended.tone) == (said, "inconclusive")


@pytest.mark.parametrize(
    ("findings", "claimed"),
    [
        ((), "All 2 passed."),
        ((Finding(metric="latency", verdict="passed", now=9.0),), "All 2 passed."),  # shown, not judged
        (
            (
                Finding(metric="speed-up", verdict="passed", tolerance=0.1),
                Finding(metric="drift", verdict="passed", tolerance=0.2, now=0.44),
            ),
            "All 2 passed: no slower than the baseline.",
        ),
        (
            (
                Finding(metric="peak memory", verdict="passed", tolerance=0.05),
                Finding(metric="drift", verdict="passed", tolerance=0.2, now=1.0),
            ),
            "All 2 passed: no heavier, no worse than the baseline.",
        ),
    ],
)
def test_only_what_was_judged_is_claimed(findings, claimed):
    made = [documents.result(recipe) for recipe in ("bf16", "fp16")]
    made = [
        msgspec.structs.replace(result, judgement=msgspec.structs.replace(result.judgement, findings=findings))
        for result in made
    ]
    assert verdict_sentence(overview(documents.document(made, environment=documents.OLD))) == claimed


def test_what_was_judged_in_some_tests_says_in_how_many():
    plain, judged = documents.result("bf16"), documents.result("fp16")
    alone = (Finding(metric="SSIM", verdict="passed", tolerance=0.01),)
    plain = msgspec.structs.replace(plain, judgement=msgspec.structs.replace(plain.judgement, findings=alone))
    said = verdict_sentence(overview(documents.document([plain, judged], environment=documents.OLD)))
    assert said == (
        "All 2 passed: no slower (time judged in 1), no heavier (memory judged in 1), no worse than the baseline."
    )


def test_without_a_change_nothing_is_blamed():
    assert sentence({}) == "1 of 2 regressed: bf16+fa2 is 6.1 % slower."


@pytest.mark.parametrize(
    ("attribution", "why"),
    [
        (("attention back end flash → math", "denoising +6 %"), "attention back end flash → math"),
        (("torch 2.11.0 → 2.13.0", "denoising +6 %"), "denoising +6 %"),
        (("torch 2.11.0 → 2.13.0",), None),
    ],
)
def test_the_reason_is_the_first_that_was_not_said_yet(attribution, why):
    text = sentence({"torch": "2.13.0"}, attribution=attribution)
    assert text.endswith(f"6.1 % slower: {why}." if why else "6.1 % slower.")


def test_worse_pictures_are_told_by_their_metric():
    text = sentence({"torchao": "0.19"}, slower=0.0, loss=0.03)
    assert text == "1 of 2 regressed: torchao 0.18.0 → 0.19 made bf16+fa2's SSIM 0.030 lower."


def test_more_computed_steps_alone_are_told_in_the_plural():
    made = [documents.result("bf16"), documents.result("bf16+fbcache:0.3", **SLOWER)]
    run = documents.document(made, environment=documents.OLD)
    found = Finding(
        metric="computed steps", verdict="regressed", baseline=40.0, now=50.0, change=0.25, tolerance=0.05, n=8
    )
    first, last = run.results
    last = msgspec.structs.replace(last, judgement=msgspec.structs.replace(last.judgement, findings=(found,)))
    text = verdict_sentence(overview(msgspec.structs.replace(run, results=(first, last))))
    assert "bf16+fbcache:0.3's computed steps are 25.0 % higher" in text


def test_machines_are_blamed_for_what_changed_on_them():
    old = documents.document([documents.result("bf16")], environment=documents.OLD, gpu="l40s")
    new = documents.document([documents.result("bf16+fa2", **SLOWER)])
    assert verdict_sentence(overview([old, new])).startswith("1 of 2 regressed: torch 2.11.0 → 2.13.0 made bf16+fa2")


def test_parameters_may_hold_what_parts_a_node_id():
    made = [documents.result("bf16", test=f"perf/test_a.py::TestB::test_c[{name}]") for name in ("a::b", "x[0]::y")]
    rows = overview(documents.document(made, environment=documents.OLD)).rows
    assert {row.label for row in rows} == {"test_c[a::b]", "test_c[x[0]::y]"}


def test_a_tests_name_is_no_refusal():
    """What is counted is the action, whatever is written in the name of a test."""
    made = [documents.result("bf16"), documents.result("fp16")]
    kept = BaselineChange(test="test_x[a: refused, b]", action="kept", text="kept, p50 2 s")
    refused = BaselineChange(test="test_x[c]", action="refused", text="refused, broken: black")
    document = documents.document(made, update="new", changes=(kept,))
    assert "refused" not in verdict_sentence(overview(document))
    assert "refused, b]: kept, p50 2 s" in render_markdown(document).replace("\\", "")
    document = documents.document(made, update="new", changes=(kept, refused))
    assert verdict_sentence(overview(document)).endswith("baselines updated (new), 1 refused.")


def test_packages_that_were_cleared_are_not_blamed():
    slow = documents.result("bf16+fa2", slower=0.93, verdict="regressed")
    blamed = documents.document([slow], environment=documents.NEW)
    assert "torch" in verdict_sentence(overview(blamed))
    judgement = msgspec.structs.replace(slow.judgement, packages_cleared=True, attribution=())
    cleared = documents.document([msgspec.structs.replace(slow, judgement=judgement)], environment=documents.NEW)
    assert verdict_sentence(overview(cleared)) == (
        "1 of 1 regressed: bf16+fa2 is 93.1 % slower with the old packages as with the new."
    )
