from __future__ import annotations

import math
from typing import Any

import pytest

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.policy import PSNR_CEILING_DB, Policy


def test_defaults() -> None:
    policy = Policy()
    assert (policy.mode, policy.max_slowdown, policy.max_memory_growth, policy.quality_tolerance) == (
        "absolute", 0.02, 0.05, 1.0,
    )  # fmt: skip
    assert policy.limit == pytest.approx(math.log(1.02))
    assert policy.warnings == ()
    assert pytest.approx(48.13, abs=0.01) == PSNR_CEILING_DB


def test_relative_defaults_and_overrides() -> None:
    policy = Policy.of("relative", max_slowdown=None, min_ssim=0.8)
    assert (policy.max_slowdown, policy.max_memory_growth, policy.min_ssim) == (0.17, None, 0.8)
    assert Policy.of("relative", max_slowdown=0.3, max_memory_growth=0.5).max_memory_growth == 0.5
    assert policy.tau0 > Policy().tau0


def test_a_cpus_memory_is_judged_only_where_asked_for() -> None:
    assert Policy.of(cpu=True).max_memory_growth is None
    assert Policy.of(cpu=True, max_memory_growth=0.5).max_memory_growth == 0.5
    assert Policy.of(cpu=True).max_slowdown == Policy().max_slowdown


@pytest.mark.parametrize(
    ("values", "clause"),
    [
        ({"max_slowdown": 0.009}, "under 1 %"),
        ({"max_slowdown": 0.0}, "under 1 %"),
        ({"max_slowdown": -0.1}, "must not be negative"),
        ({"max_slowdown": math.nan}, "a finite number"),
        ({"max_slowdown": 5}, r"at most 1 \(0.05 is 5 %\), not 5; was 0.05 meant"),
        ({"max_memory_growth": 1e308}, r"at most 1 \(0.05 is 5 %\), not 1e\+308$"),
        ({"max_step_growth": 1.5}, "was 0.015 meant"),
        ({"quality_tolerance": 11}, "it is at most 10"),
        ({"max_ssim_loss": 2}, "it is at most 1"),
        ({"tau0": 1.1}, "it is at most 1"),
        ({"nu0": 2.0**64}, "it is at most"),
        ({"max_slowdown": "2%"}, "a finite number"),
        ({"min_ssim": True}, "a finite number"),
        ({"quality_tolerance": -1}, "must not be negative"),
        ({"tau0": 0.0}, "tau0 must be positive"),
        ({"nu0": 0.5}, "nu0 at least 1"),
        ({"m": 0}, "positive integer"),
        ({"mode": "both"}, "the modes are"),
        ({"max_slowness": 0.1}, "unknown tolerance"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], clause: str) -> None:
    with pytest.raises(FluxPerfError, match=clause):
        Policy.of(**values)


def test_a_tight_tolerance_warns() -> None:
    assert "under 2 %" in Policy(max_slowdown=0.015).warnings[0]
