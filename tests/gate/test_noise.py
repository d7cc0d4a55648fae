from __future__ import annotations

import numpy as np
import pytest

from pytest_fluxperf.gate.noise import FalseAlarms, false_alarms, measure_noise, supported_tolerance


def processes(
    tau: float, within: float, *, tests: int = 6, count: int = 6, prompts: int = 8, seed: int = 1
) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
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


@pytest.mark.parametrize("count", [2, 3, 4, 8])
@pytest.mark.parametrize("prompts", [5, 8])
def test_the_noise_within_a_process_is_known_from_few_processes(count: int, prompts: int) -> None:
    """Whatever the processes' own shifts are."""
    found = [
        measure_noise(processes(0.02, 0.01, tests=4, count=count, prompts=prompts, seed=seed)) for seed in range(100)
    ]
    assert np.mean([noise.within for noise in found]) == pytest.approx(0.01, rel=0.1)
    assert np.mean([noise.residuals.std() for noise in found]) == pytest.approx(0.01, rel=0.1)


def test_outliers_stay_among_the_residuals_and_hardly_move_the_noise() -> None:
    made = processes(0.0, 0.002)
    for test in made:
        test[1, 3] += 0.25
    noise = measure_noise(made)
    assert noise.within == pytest.approx(0.002, rel=0.2)
    assert np.count_nonzero(noise.residuals > 0.2) == len(made)


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


@pytest.mark.parametrize("count", [2, 3, 4])
def test_few_processes_do_not_flatter_a_machine(count: int) -> None:
    """At 1 % within a process and nothing between, over a quarter of the tests stay open at 2 %."""
    noise = measure_noise(processes(0.0, 0.01, tests=40, count=count))
    assert supported_tolerance(false_alarms(noise, m=4)) == 0.03


def test_a_tolerance_that_fails_unchanged_sessions_is_not_supported() -> None:
    loud = FalseAlarms(0.02, stored=0.05, open=0.0, interleaved=0.0)
    fine = FalseAlarms(0.05, stored=0.0, open=0.1, interleaved=0.0)
    assert supported_tolerance([loud, fine]) == 0.05
    assert supported_tolerance([loud]) is None


@pytest.mark.parametrize("shape", [(1, 8), (4, 1), (8,)])
def test_one_process_or_prompt_tells_nothing(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="two processes or more and two prompts"):
        measure_noise([np.zeros(shape)])
