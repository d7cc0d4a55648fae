"""A test of which nothing could be measured says why in fields."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import records as make

from pytest_fluxperf.bench.bench import Bench
from pytest_fluxperf.errors import FluxPerfError, OutOfMemory, Unavailable
from pytest_fluxperf.settings import ItemSettings


def session(raised: FluxPerfError, stored: Any = None) -> Any:
    """A session in which no pipeline can be prepared."""

    def fail(*_: Any) -> None:
        raise raised

    store = SimpleNamespace(load=lambda _: stored, path=lambda test: f"baselines/cpu/{test}.json")
    return SimpleNamespace(
        settings=SimpleNamespace(strict=False, old_python=None, ledger=True, update=None, metrics=("ssim",)),
        store=store,
        hardware=make.CPU,
        environment=make.ENVIRONMENT,
        gpu=SimpleNamespace(uuid=None),
        relative=False,
        turns=None,
        random=False,
        configurations=1,
        id="session",
        time_utc="2026-01-02T03:04:05Z",
        worker="",
        recipe=lambda text, _steps: text or "fp32",
        workload=lambda _: make.workload(),
        require=lambda _: None,
        device_lock=nullcontext,
        acquire=fail,
    )


def bench(raised: FluxPerfError, stored: Any = None) -> Bench:
    return Bench(session(raised, stored), "perf/test_a.py::test_b", ItemSettings(reference="none"), "fp32")


@pytest.mark.parametrize(
    ("raised", "expected"), [(OutOfMemory("no room", recipe="fp32"), True), (FluxPerfError("is damaged"), False)]
)
def test_a_pipeline_that_does_not_fit_is_told_from_one_that_is_damaged(raised: FluxPerfError, expected: bool) -> None:
    tested = bench(raised)
    with pytest.raises(FluxPerfError):
        tested.prepare()

    result = tested.broken("could not be set up: no room")
    assert result.judgement.verdict == "broken"
    assert result.measurement.out_of_memory is tested.out_of_memory is expected


def test_what_ran_when_its_baseline_was_recorded_is_lost_and_not_left_out() -> None:
    tested = bench(Unavailable("fp8 needs CUDA", recipe="fp32+fp8"), make.baseline())
    with pytest.raises(FluxPerfError) as caught:
        tested.prepare()

    assert not isinstance(caught.value, Unavailable)
    path = "baselines/cpu/perf/test_a.py::test_b.json"
    assert str(caught.value) == (
        f"recipe fp32+fp8: fp8 needs CUDA, but ran when its baseline was recorded; delete {path} to give it up"
    )


def test_a_bound_that_nobody_measures_names_the_test_in_a_field() -> None:
    tested = Bench(session(FluxPerfError("x")), "perf/test_a.py::test_b", ItemSettings(min_psnr=20.0), "fp32")
    with pytest.raises(FluxPerfError) as caught:
        tested.check()

    assert caught.value.where.test == "perf/test_a.py::test_b"
    assert caught.value.without("test") == "min_psnr needs the metric psnr, which --fluxperf-metrics leaves out"


def test_what_is_asked_for_anew_makes_another_case() -> None:
    tested = bench(FluxPerfError("x"))
    before = tested.case
    tested.change(settings=ItemSettings(reference="bf16", max_slowdown=0.3))

    assert (before.reference, tested.case.reference) == ("none", "bf16")
    assert (before.policy.max_slowdown, tested.case.policy.max_slowdown) == (0.02, 0.3)
