from __future__ import annotations

import numpy as np
import pytest

from pytest_fluxperf.gate.noise import FalseAlarms, false_alarms, measure_noise, supported_tolerance


def processes(tau: float, within: float, *, tests: int = 6, count: int = 6, prompts: int = 8) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    prompt = np.linspace(-0.3, 0.3, prompts)
    return [
        prompt + tau * rng.standard_normal((count, 1)) + within * rng.standard_normal((count, prompts))
        for _ in range(tests)
    ]


def test_noise_within_and_between_processes_is_told_apart() -> None:
    noise = measure_noise(processes(0.01, 0.002))
    assert noise.tau == pytest.approx(0.01, rel=0.3)
    assert noise.within == pytest.approx(0.002, rel=0.3)
    assert measure_noise(processes(0.0, 0.002)).tau < 0.0015


def test_how_well_the_noise_between_processes_is_known() -> None:
    """Chi-squared with 3 degrees of freedom: 0.3518 and 7.8147 cut off 5 % each."""
    one = measure_noise(processes(0.01, 0.002, tests=1, count=4))
    low, high = (bound / one.tau for bound in one.tau_range)
    assert (low, high) == (pytest.approx((3 / 7.8147) ** 0.5, rel=0.01), pytest.approx((3 / 0.3518) ** 0.5, rel=0.01))
    many = measure_noise(processes(0.01, 0.002, tests=20))
    assert many.tau_range[0] < 0.01 < many.tau_range[1] < 1.2 * many.tau


def test_a_quiet_machine_supports_two_percent_and_a_noisy_one_does_not() -> None:
    quiet = false_alarms(measure_noise(processes(0.003, 0.002)), m=4)
    noisy = false_alarms(measure_noise(processes(0.05, 0.04)), m=4)
    assert supported_tolerance(quiet) in (0.02, 0.03)
    assert (supported_tolerance(noisy) or 1.0) > 0.05
    assert all(0 <= alarms.stored <= 1 for alarms in [*quiet, *noisy])


def test_a_tolerance_that_fails_unchanged_sessions_is_not_supported() -> None:
    loud = FalseAlarms(0.02, stored=0.05, open=0.0, interleaved=0.0)
    fine = FalseAlarms(0.05, stored=0.0, open=0.1, interleaved=0.0)
    assert supported_tolerance([loud, fine]) == 0.05
    assert supported_tolerance([loud]) is None


def test_one_process_tells_nothing() -> None:
    with pytest.raises(ValueError, match="two processes"):
        measure_noise([np.zeros((1, 8))])
