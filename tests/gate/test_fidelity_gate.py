"""Lossless recipes against their dtype's rounding, others against their baseline's error."""

from __future__ import annotations

import pytest

from pytest_fluxperf.gate.fidelity import fidelity
from pytest_fluxperf.results import Answer, Fidelity


def made(*errors, lossless=False, rounding=1e-3, digest="", reference="bf16"):
    answers = tuple(
        Answer(sigma=sigma, error=error, cosine=1.0, rounding=rounding, sketch=(1 + error, 2.0), digest=digest)
        for sigma, error in zip((1.0, 0.5, 0.1), errors, strict=True)
    )
    return Fidelity(reference=reference, lossless=lossless, answers=answers)


def verdict(now, *stored):
    return [finding.verdict for finding in fidelity(now, stored)]


def test_a_lossless_recipe_is_judged_by_its_rounding_with_a_baseline_or_without():
    assert verdict(made(1e-3, 2e-3, 2.9e-3, lossless=True)) == ["passed"]
    assert verdict(made(1e-3, 3.1e-3, 1e-3, lossless=True)) == ["regressed"]
    worse = made(1e-3, 0.2, 1e-3, lossless=True)
    assert verdict(worse, worse) == ["regressed"], "a baseline makes no lossless recipe of it"


def test_another_recipe_is_judged_by_its_own_error():
    before = made(0.02, 0.02, 0.02)
    assert verdict(made(0.02, 0.024, 0.02), before) == ["passed"]
    assert verdict(made(0.02, 0.026, 0.02), before) == ["regressed"]
    assert verdict(made(0.02, 0.026, 0.02), before, made(0.022, 0.022, 0.022)) == ["passed"], "the worst stored run"
    assert verdict(made(0.9, 0.9, 0.9)) == []


def test_rounding_alone_is_no_regression_where_the_baseline_had_none():
    assert verdict(made(1e-3, 1e-3, 1.4e-3), made(0, 0, 0)) == ["passed"]
    assert verdict(made(1e-3, 1e-3, 1.6e-3), made(0, 0, 0)) == ["regressed"]


def test_the_message_names_the_worst_answer_its_limit_and_the_baselines_own():
    (finding,) = fidelity(made(0.02, 0.04, 0.02), [made(0.02, 0.02, 0.02)])
    assert (finding.baseline, finding.now) == (0.02, 0.04)
    assert "from bf16's by 2.00e-02 → 4.00e-02 at σ 0.5" in finding.message
    assert "from the baseline's own" in finding.message
    (same,) = fidelity(made(0.02, 0.02, 0.02, digest="ab"), [made(0.02, 0.02, 0.02, digest="ab")])
    assert same.message.endswith("bit-identical to the baseline's own")


def test_nothing_is_judged_where_nothing_can_be_compared():
    assert verdict(None, made(0.1, 0.1, 0.1)) == []
    assert verdict(made(0.5, 0.5, 0.5), made(0.1, 0.1, 0.1, reference="fp32")) == []


@pytest.mark.parametrize("stored", [(), (None,)])
def test_old_baselines_hold_none(stored):
    assert verdict(made(0.5, 0.5, 0.5), *stored) == []
