"""The work of a generation: exactly the same in every process, and a kernel belongs to the phase that launched it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import torch
from torch.autograd import DeviceType

from pytest_fluxperf.baseline.codec import rounded
from pytest_fluxperf.measure import work
from pytest_fluxperf.measure.work import BORDER, Section, Trace, count, ledger
from pytest_fluxperf.results import OTHER_FAMILIES, Ledger, Run, Work

CACHE = "fbcache:0.3,computed=2"
RECIPES = ("fp32", f"fp32+{CACHE}", "fp32+int8wo", f"fp32+compile+{CACHE}", "fp32")


class Pipe:
    """A pipeline of a few operators; ``steps`` says of each step whether it does all of its work."""

    def __init__(self, steps="101"):
        self.steps = steps
        self.transformer = torch.nn.Module()
        self.transformer.forward = self.forward
        self.latents = torch.ones(2)
        self.vae = type("Vae", (), {"decode": lambda _, x: helper(x)})()

    def encode_prompt(self):
        helper(helper(torch.ones(2)))

    def forward(self, computed):
        for _ in range(3 if computed == "1" else 1):
            helper(torch.ones(2))

    def __call__(self):
        self.encode_prompt()
        for step in self.steps:
            self.transformer(step)
            torch.ones(2).add_(1)  # the scheduler's part of a step
        self.vae.decode(self.latents)
        helper(torch.ones(2))


def helper(x):
    return x.mul(2)


def test_operators_and_calls_are_counted_by_phase():
    pipe = Pipe("1101")
    count(pipe, pipe, "cpu", lambda: pipe.steps)  # what is imported late
    first, second = (count(pipe, pipe, "cpu", lambda: pipe.steps) for _ in range(2))
    assert first == second
    kinds = {phase.phase: phase for phase in first.phases}
    assert {name: phase.times for name, phase in kinds.items()} == {
        "text": 1, "computed": 3, "cached": 1, "decoding": 1, "other": 3,
    }  # fmt: skip
    assert kinds["decoding"].total.calls == 2  # decode and the helper
    computed, cached = kinds["computed"], kinds["cached"]
    assert computed.total.operators == 3 * computed.each.operators
    ones = next(family for family in first.families if family.family == "aten::ones").counts
    assert ones == {"text": 1, "computed": 3 * 4, "cached": 2, "other": 1}
    # two helpers more; what torch calls before the next step's hook is the same for both
    assert computed.each.calls - cached.each.calls == 2
    assert kinds["text"].total.calls == 3  # encode_prompt and two helpers
    assert first.device_s is None
    assert {w.kernels for phase in first.phases for w in (phase.total, phase.each) if w} == {None}


def test_counts_leave_nothing_behind_even_when_the_body_raises():
    pipe = Pipe()

    def body():
        pipe.encode_prompt()
        raise RuntimeError("no picture")

    with pytest.raises(RuntimeError, match="no picture"):
        count(body, pipe, "cpu", lambda: None)
    assert sys.getprofile() is None
    assert not torch._C._autograd._profiler_enabled()
    assert not pipe.transformer._forward_hooks
    assert "encode_prompt" not in vars(pipe)
    assert count(pipe, pipe, "cpu", lambda: None).phase("computed").times == 3  # unknown decisions: all computed


def test_nothing_is_counted_where_somebody_else_profiles():
    pipe = Pipe()
    with torch.profiler.profile():
        assert count(pipe, pipe, "cpu", lambda: None) is None

    def mine(*_):
        pass

    sys.setprofile(mine)
    try:
        assert count(pipe, pipe, "cpu", lambda: None) is None
        assert sys.getprofile() is mine
    finally:
        sys.setprofile(None)


def lines(*recipes, before=()):
    command = [sys.executable, str(Path(__file__).with_name("counted.py")), *recipes]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    return [msgspec.json.decode(line, type=Ledger) for line in run.stdout.splitlines()]


def test_two_processes_count_the_same_one_of_them_beside_a_busy_one():
    idle = lines(*RECIPES)
    load = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        busy = lines(*RECIPES)
    finally:
        load.kill()
        load.wait()
    assert len(idle) == len(RECIPES)
    assert idle == busy
    assert idle[0] == idle[-1], "what other recipes left behind is counted"
    dense, cached, quantized, compiled = idle[:4]
    assert [cached.phase(name).times for name in ("computed", "cached")] == [2, 2]
    assert dense.phase("computed").times == 4
    assert cached.phase("cached").each.operators < cached.phase("computed").each.operators
    assert quantized.phase("computed").each.operators > dense.phase("computed").each.operators
    assert compiled.phase("computed").each.operators < cached.phase("computed").each.operators  # it ran compiled
    assert max(len(msgspec.json.encode(one)) for one in idle) < 4096


# -- kernels, made up ----------------------------------------------------------------------------------------


@dataclass
class Made:
    """An event as kineto hands it over."""

    called: str
    start: int
    length: int = 1
    device: DeviceType = DeviceType.CPU
    thread: int = 1
    correlation: int = 0
    annotation: bool = False

    def name(self):
        return self.called

    def start_ns(self):
        return self.start

    def duration_ns(self):
        return self.length

    def start_thread_id(self):
        return self.thread

    def device_type(self):
        return self.device

    def correlation_id(self):
        return self.correlation

    def is_user_annotation(self):
        return self.annotation


GPU = DeviceType.CUDA
SECTIONS = [Section("other", 5), Section("text", 7), Section("computed", 20), Section("cached", 3), Section("other", 1)]


def made(*events, device="cuda"):
    borders = [Made(BORDER, start) for start in (0, 100, 200, 300, 400)]
    return ledger(SECTIONS, work._read([*borders, *events]), device)


def totals(found):
    return {phase.phase: (phase.total.kernels, round(phase.total.device_s * 1e9)) for phase in found.phases}


def test_a_kernel_belongs_to_the_phase_in_which_it_was_launched():
    found = made(
        Made("cudaLaunchKernel", 155, correlation=900),
        Made("cuLaunchKernelEx", 299, correlation=901),
        Made("cudaMemcpyAsync", 310, correlation=902),
        Made("nvjet_hsh_NNT", 1000, 50, GPU, correlation=900),  # the device is far behind
        Made("triton_poi_fused_add_3", 1060, 40, GPU, correlation=901),
        Made("Memcpy DtoD", 1100, 5, GPU, correlation=902),
    )
    assert totals(found) == {"text": (1, 50), "computed": (1, 40), "cached": (1, 5), "other": (0, 0)}
    assert found.device_s == pytest.approx(95e-9)
    assert {f.family: (f.counts, f.device_s) for f in found.families} == {
        "nvjet_hsh_NNT": ({"text": 1}, {"text": 5e-8}),
        "triton_poi_fused_add": ({"computed": 1}, {"computed": 4e-8}),
        "Memcpy DtoD": ({"cached": 1}, {"cached": 5e-9}),
    }
    assert [phase.phase for phase in found.phases] == ["text", "computed", "cached", "other"]
    assert found.phase("other").total.calls == 6
    assert found.phase("computed").each == Work(calls=20, kernels=1, device_s=4e-8)


def test_a_launch_that_was_not_recorded_is_its_neighbours():
    found = made(
        Made("cudaLaunchKernel", 250, correlation=5),
        Made("known", 1000, 10, GPU, correlation=5),
        Made("lost", 1010, 20, GPU, correlation=6),
        Made("user", 0, 5000, GPU, annotation=True),
    )
    assert totals(found) == {"text": (0, 0), "computed": (2, 30), "cached": (0, 0), "other": (0, 0)}


def test_the_border_of_a_gpu_is_the_wait_nearest_to_it_and_a_bodys_own_wait_is_none():
    reach = work.BORDER_REACH_NS
    assert work._nearest([100, 5 * reach], [90, 2 * reach, 5 * reach + 7]) == [90, 5 * reach + 7]
    assert work._nearest([100, 5 * reach], [90]) == [90]  # the second was lost, which ledger() refuses
    seen = work._read([Made(work.SYNCHRONIZE, 7), Made("cudaStreamSynchronize", 8)])
    assert seen.borders == [7]


def test_all_kernels_of_a_graph_belong_to_its_launch():
    kernels = [Made("k", 1000 + i, 1, GPU, correlation=7) for i in range(5)]
    found = made(Made("cudaGraphLaunch", 350, correlation=7), *kernels)
    assert totals(found)["cached"] == (5, 5)


def test_operators_of_other_threads_and_the_profilers_own_are_not_counted():
    found = made(
        Made("aten::mm", 150),
        Made("aten::mm", 150, thread=2),
        Made("profiler::_record_function_enter_new", 160),
        device="cpu",
    )
    assert sum(phase.total.operators for phase in found.phases) == 1


def test_small_families_are_summed_up_and_nothing_is_lost():
    events = [Made("cudaLaunchKernel", 150, correlation=1)]
    events += [Made(f"name{letter}", 1000, 10_000, GPU, correlation=1) for letter in "abc"]
    events += [Made(f"small{'abcdefgh'[i % 8]}", 2000, 10, GPU, correlation=1) for i in range(8)]
    events += [Made("cheap_but_many", 3000, 1, GPU, correlation=1)] * 2000
    found = made(*events)
    named = {family.family: family.counts["text"] for family in found.families}
    assert named == {"namea": 1, "nameb": 1, "namec": 1, "cheap_but_many": 2000, OTHER_FAMILIES: 8}
    assert sum(named.values()) == found.phase("text").total.kernels


def test_a_typical_step_is_the_most_frequent_one():
    sections = [Section("computed", calls) for calls in (30, 20, 20, 21)]
    found = ledger(sections, Trace(borders=[0, 10, 20, 30], operators=[], kernels=[]), "cpu")
    assert found.phase("computed").each.calls == 20
    assert found.phase("computed").total.calls == 91


def test_lost_borders_are_an_error():
    with pytest.raises(RuntimeError, match="kept 1 of 2 borders"):
        ledger([Section("text", 1)] * 2, Trace(borders=[0], operators=[], kernels=[]), "cpu")


def test_a_ledger_is_stored_with_a_run_and_a_run_without_one_still_loads():
    found = made(Made("cudaLaunchKernel", 155, correlation=1), Made("k", 1000, 123456789, GPU, correlation=1))
    run = Run(session="s", process=1, time_utc="t", environment="e", samples=(), ledger=found)
    stored = msgspec.json.decode(msgspec.json.encode(rounded(run)), type=Run)
    assert stored.ledger.phase("text").total.device_s == 0.123457
    text = msgspec.json.encode(msgspec.structs.replace(run, ledger=None))
    assert b"ledger" not in text
    assert msgspec.json.decode(text, type=Run).ledger is None
