"""Two kernel tables taken apart: the parts always sum to the difference seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_fluxperf.gate.kernel_diff import diff, headline
from pytest_fluxperf.results import Kernel, KernelTable


def table(kernels, *, latency=None, idle=0.0, device="cuda"):
    rows = tuple(Kernel(family=name, calls=calls, time_s=seconds) for name, (calls, seconds) in kernels.items())
    busy = sum(row.time_s for row in rows)
    return KernelTable(device=device, kernels=rows, busy_s=busy, latency_s=busy + idle if latency is None else latency)


OLD = {"gemm": (1000, 2.0), "flash": (57, 0.8), "norm": (300, 0.1), "copy": (10, 0.001)}


def parts(found):
    return sum(c.change_s for c in found.changes) + found.others_s + (found.idle_s or 0.0) + found.unexplained_s


def test_what_appeared_vanished_and_moved():
    new = {"gemm": (1000, 2.001), "math": (57, 1.9), "norm": (357, 0.15), "copy": (10, 0.001)}
    found = diff(table(OLD), table(new))
    assert found.difference_s == pytest.approx(1.151)
    assert [(c.family, c.change) for c in found.changes] == [
        ("math", "appeared"),
        ("flash", "vanished"),
        ("norm", "moved"),
    ]
    assert found.others_s == pytest.approx(0.001)
    assert (found.idle_s, found.unexplained_s) == (pytest.approx(0), pytest.approx(0))
    change, share, text = headline(found)
    assert change.family == "math"
    assert share == pytest.approx(1.9 / 1.151)
    assert text == "kernel math appeared (57 calls): +1900 of +1151 ms an image"


def test_an_idle_device_is_told_from_slower_kernels():
    found = diff(table(OLD), table(OLD, idle=0.5))
    assert found.changes == ()
    assert found.idle_s == pytest.approx(0.5)
    assert found.unexplained_s == pytest.approx(0)
    assert headline(found) is None


def test_the_rest_is_shown():
    new = {**OLD, "gemm": (1000, 2.1)}
    found = diff(table(OLD), table(new), 0.25)
    assert found.unexplained_s == pytest.approx(0.15)
    assert parts(found) == pytest.approx(0.25)


def test_noise_of_the_profiled_prompt_is_no_idle_time():
    """Taken on an H200: matrix products of 47 ms were added, and the profiled prompt was 43 ms slower by chance."""
    added = {**OLD, "mm": (1990, 0.047), "gemm": (1000, 1.985)}
    found = diff(table(OLD), table(added, idle=0.069), 0.057)
    assert found.idle_s == pytest.approx(0.025)
    assert found.unexplained_s == pytest.approx(0)
    assert headline(found)[0].family == "mm"
    shorter = diff(table(OLD), table(added, idle=0.069), 0.01)  # over all prompts, nothing idled
    assert shorter.idle_s == 0
    assert parts(shorter) == pytest.approx(0.01)


def test_without_latencies_idle_time_is_not_known():
    old, new = (KernelTable(device="cuda", kernels=(), busy_s=0.0) for _ in range(2))
    assert diff(old, new) is None
    assert diff(old, new, 0.2).idle_s is None
    assert diff(old, new, 0.2).unexplained_s == 0.2


def test_another_kind_of_device_is_not_compared():
    assert diff(table(OLD), table(OLD, device="cpu")) is None


def test_another_machine_is_scaled():
    half = {name: (calls, seconds / 2) for name, (calls, seconds) in OLD.items()}
    found = diff(table(OLD), table(half), scale=0.5)
    assert found.changes == ()
    assert found.difference_s == pytest.approx(0)


kernels = st.dictionaries(st.sampled_from("abcdefgh"), st.tuples(st.integers(1, 99), st.floats(1e-6, 5.0)))


@given(kernels, kernels, st.floats(-1, 5), st.floats(0, 1), st.floats(0, 1))
def test_the_parts_sum_to_the_difference(old, new, difference, idle_before, idle_now):
    found = diff(table(old, idle=idle_before), table(new, idle=idle_now), difference)
    assert parts(found) == pytest.approx(difference, abs=1e-9)
    assert len({c.family for c in found.changes}) == len(found.changes)


def test_the_headline_points_the_way_the_latency_went():
    new = {"gemm": (1000, 1.0), "flash": (57, 0.8), "norm": (300, 0.2)}
    slower = diff(table(OLD), table(new), 0.05)
    assert headline(slower)[2].startswith("kernel norm moved (300 → 300 calls): +100")
