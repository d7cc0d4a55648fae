"""The log of decisions, apart from any cache."""

from __future__ import annotations

from collections import Counter

import pytest

from pytest_fluxperf.pipelines import compile_counters
from pytest_fluxperf.pipelines.compile_counters import CompileCounts
from pytest_fluxperf.pipelines.steps import StepLog


@pytest.fixture
def watched():
    """A module whose calls record what they are told to, watched by a log."""
    import torch

    class Talking(torch.nn.Module):
        def forward(self, *decisions):
            for decision in decisions:
                log.record(decision)
            if decisions[-1:] == (None,):
                raise RuntimeError

    log, module = StepLog(), Talking()
    return log, module, log.attach(module)


def test_a_call_without_a_decision_is_computed(watched):
    log, module, _ = watched
    module()
    module()
    assert log.decisions == "11"
    assert log.index == 2


def test_decisions_are_those_recorded_within_the_call(watched):
    log, module, _ = watched
    module(True)
    module(False)
    log.record(False)  # Between calls: belongs to none.
    module()
    assert log.decisions == "101"


def test_a_reuse_outweighs_whatever_else_is_said_in_the_same_call(watched):
    log, module, _ = watched
    module(True, False)
    module(False, True)
    assert log.decisions == "00"


def test_begin_forgets(watched):
    log, module, _ = watched
    module(False)
    log.begin()
    assert (log.decisions, log.index) == ("", 0)
    module()
    assert log.decisions == "1"


def test_a_call_that_raises_is_no_step(watched):
    log, module, _ = watched
    with pytest.raises(RuntimeError):
        module(False, None)
    module()
    assert log.decisions == "1"


def test_detached_it_hears_nothing(watched):
    log, module, detach = watched
    detach()
    module(False)
    assert log.decisions == ""


def test_counts_subtract_and_reasons_are_those_of_the_region():
    before = CompileCounts(3, 1, 2, 1, {10: "shape"})
    after = CompileCounts(5, 1, 2, 3, {10: "shape", 30: "stride", 20: "dtype"})
    assert after - before == CompileCounts(2, 0, 0, 2, {30: "stride", 20: "dtype"})
    assert (after - before).recompiles == 2
    assert (after - before).recompile_reasons == ("dtype", "stride")


def test_limits_are_those_of_the_region():
    met = CompileCounts(limits=Counter({"recompile_limit (8)": 1}))
    assert (met - CompileCounts()).gave_up == (
        "torch.compile gave up: dynamo's recompile_limit (8) was met, so code runs eager",
    )
    assert (met - met).gave_up == ()


def test_a_snapshot_imports_nothing():
    import subprocess
    import sys

    program = (
        "import sys; from pytest_fluxperf.pipelines.compile_counters import snapshot, CompileCounts;"
        "assert snapshot() == CompileCounts(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_graph_break_is_counted():
    import torch

    def broken(x):
        x = x + 1
        torch._dynamo.graph_break()
        return x * 2

    before = compile_counters.snapshot()
    torch.compile(broken, backend="eager")(torch.ones(2))
    counts = compile_counters.snapshot() - before
    torch._dynamo.reset()
    assert (counts.graphs, counts.graph_breaks) == (2, 1)
