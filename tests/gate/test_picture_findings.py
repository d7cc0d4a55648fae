"""Scores that vary between sessions by themselves are given their noise."""

from __future__ import annotations

from typing import Any

import msgspec
import records as make

from pytest_fluxperf.gate.pictures import own_quality, quality_changes
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.results import Baseline, Finding, OwnMetric, Quality

POLICY = Policy.of("absolute")


def stored(*ssim: float, session: str = "s{}") -> Baseline:
    return make.baseline(
        *(make.run(scores=make.quality(make.N, ssim=value), session=session.format(i)) for i, value in enumerate(ssim))
    )


def judged(now: float, baseline: Baseline) -> Finding:
    findings = quality_changes(make.quality(make.N, ssim=now), baseline, POLICY)
    return next(finding for finding in findings if finding.metric == "SSIM")


def test_a_score_that_repeats_is_held_to_its_tolerance() -> None:
    for baseline in (stored(0.9), stored(0.9, 0.9, 0.9)):
        assert judged(0.895, baseline).verdict == "passed"
        assert judged(0.885, baseline).verdict == "regressed"


def test_a_score_that_varies_between_sessions_is_given_its_noise() -> None:
    baseline = stored(0.892, 0.9, 0.908)
    noisy = judged(0.885, baseline)
    assert noisy.verdict == "passed"
    assert noisy.tolerance is not None
    assert 0.016 < noisy.tolerance < 0.02
    assert judged(0.87, baseline).verdict == "regressed"


def test_runs_of_one_session_are_one_score() -> None:
    """Of one session they say nothing of the noise between sessions."""
    assert judged(0.885, stored(0.892, 0.9, 0.908, session="s")).verdict == "regressed"


def test_psnr_beyond_what_is_seen_has_no_noise() -> None:
    runs = (make.run(scores=make.quality(make.N, psnr_db=value), session=f"s{value}") for value in (50.0, 70.0, 99.0))
    findings = quality_changes(make.quality(make.N, psnr_db=46.0), make.baseline(*runs), POLICY)
    assert next(finding for finding in findings if finding.metric == "PSNR").verdict == "regressed"


def test_an_own_metric_is_given_its_noise_too() -> None:
    def judge(now: float, *before: float) -> Any:
        runs = []
        for i, value in enumerate(before):
            run = make.run(session=f"s{i}")
            samples = tuple(msgspec.structs.replace(sample, own={"sharpness": value}) for sample in run.samples)
            runs.append(msgspec.structs.replace(run, samples=samples))
        metric = OwnMetric(values=(now,) * make.N, higher_is_better=True, tolerance=0.01)
        quality = Quality(reference=make.REFERENCE, scores=(), own={"sharpness": metric})
        (finding,) = own_quality(quality, make.baseline(*runs), POLICY)
        return finding.verdict

    assert judge(0.885, 0.9, 0.9, 0.9) == "regressed"
    assert judge(0.885, 0.892, 0.9, 0.908) == "passed"
