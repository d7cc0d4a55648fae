"""The profile of a generation: real operators on the CPU, and made-up kernels where the GPU would be."""

from __future__ import annotations

import gc
import gzip
import json
from dataclasses import dataclass

import pytest
import torch

from pytest_fluxperf.measure import profile
from pytest_fluxperf.measure.profile import Totals, profile_generation


@dataclass
class Made:
    """An event as kineto hands it over."""

    called: str
    start: int
    length: int
    device: str = "DeviceType.CPU"
    thread: int = 1
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

    def is_user_annotation(self):
        return self.annotation


def by_family(kernels):
    return {kernel.family: (kernel.calls, round(kernel.time_s * 1e9)) for kernel in kernels}


def test_operators_are_charged_without_what_they_call():
    totals = Totals(cuda=False)
    totals.add([Made("b", 20, 30), Made("a", 0, 100), Made("c", 25, 10), Made("b", 60, 5), Made("a", 200, 7)])
    totals.add([Made("c", 0, 50, thread=2), Made("a", 10, 10)])
    assert by_family(totals.kernels()) == {"a": (3, 100 - 35 + 7 + 10), "b": (2, 25), "c": (2, 60)}
    assert totals.busy_ns == 107 + 50


def test_kernels_are_counted_without_annotations_and_host_operators():
    gpu = "DeviceType.CUDA"
    totals = Totals(cuda=True)
    totals.add(
        [
            Made("aten::mm", 0, 500),
            Made("cudaLaunchKernel", 0, 10),
            Made("## Call CompiledFxGraph abc ##", 100, 400, gpu, annotation=True),
            Made("nvjet_hsh_256x128_64x4_1x2_h_bz_coopA_NNT", 100, 50, gpu),
            Made("nvjet_hsh_128x64_64x4_1x2_h_bz_coopA_NNT", 160, 40, gpu),
            Made("triton_poi_fused_add_1", 180, 40, gpu),  # overlaps on another stream
        ]
    )
    assert by_family(totals.kernels()) == {"nvjet_hsh_NNT": (2, 90), "triton_poi_fused_add": (1, 40)}
    assert totals.busy_ns == 50 + 60


def test_too_many_families_are_summed_up(monkeypatch):
    monkeypatch.setattr(profile, "MOST_FAMILIES", 2)
    totals = Totals(cuda=False)
    totals.add([Made(f"op{'abcde'[i]}", 100 * i, 10 * (i + 1)) for i in range(5)])
    assert by_family(totals.kernels()) == {"ope": (1, 50), "opd": (1, 40), profile.OTHERS: (3, 60)}


class Steps(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(16, 16)

    def forward(self, x):
        return torch.tanh(self.linear(x))


@torch.no_grad()
def generate(module, steps):
    x = torch.ones(4, 16)
    for _ in range(steps):
        x = module(x)
    return torch.sigmoid(x)


def test_every_step_is_in_the_table_however_it_is_cut():
    module = Steps()
    tables = [
        profile_generation(lambda: generate(module, 7), "cpu", transformer=module, piece_steps=pieces)
        for pieces in (1, 3, 100)
    ]
    for table in tables:
        calls = {kernel.family: kernel.calls for kernel in table.kernels}
        assert (calls["aten::linear"], calls["aten::tanh"], calls["aten::sigmoid"]) == (7, 7, 1)
        assert table.device == "cpu"
        assert table.busy_s > 0
        assert sum(kernel.time_s for kernel in table.kernels) == pytest.approx(table.busy_s, rel=1e-6)
    assert not module._forward_hooks


def test_memory_is_bounded_by_a_piece(monkeypatch):
    held = []
    add = Totals.add
    monkeypatch.setattr(Totals, "add", lambda self, events: (held.append(len(events)), add(self, events)))
    module = Steps()
    profile_generation(lambda: generate(module, 40), "cpu", transformer=module, piece_steps=2)
    assert len(held) == 21
    assert max(held) <= 2 * min(held[:-1])


@pytest.mark.parametrize("traced", [False, True])
def test_finished_pieces_are_freed_at_once(monkeypatch, tmp_path, traced):
    """Not when Python's collector comes by: profilers are part of reference cycles."""
    alive = []

    def add(self, events):
        found = [o for o in gc.get_objects() if isinstance(o, torch.autograd.profiler.profile)]
        alive.append(sum(o.kineto_results is not None for o in found))

    monkeypatch.setattr(Totals, "add", add)
    module = Steps()
    gc.collect()
    gc.disable()
    try:
        stem = tmp_path / "one" if traced else None
        profile_generation(lambda: generate(module, 8), "cpu", transformer=module, piece_steps=1, traces=stem)
    finally:
        gc.enable()
    assert len(alive) == 9
    assert max(alive) <= 2


def test_traces_of_the_first_steps_and_the_last(tmp_path):
    module = Steps()
    stem = tmp_path / "traces" / "one"
    table = profile_generation(
        lambda: generate(module, 5), "cpu", transformer=module, piece_steps=2, traces=stem, latency_s=0.5
    )
    assert table.latency_s == 0.5
    assert table.traces == ("one-first.json.gz", "one-last.json.gz")
    first, last = (json.loads(gzip.decompress((stem.parent / name).read_bytes())) for name in table.traces)
    count = lambda trace, name: sum(event.get("name") == name for event in trace["traceEvents"])  # noqa: E731
    assert (count(first, "aten::tanh"), count(first, "aten::sigmoid")) == (2, 0)
    assert (count(last, "aten::tanh"), count(last, "aten::sigmoid")) == (1, 1)


def test_one_piece_has_one_trace(tmp_path):
    module = Steps()
    table = profile_generation(lambda: generate(module, 2), "cpu", traces=tmp_path / "one")
    assert table.traces == ("one-first.json.gz",)


def test_a_body_that_raises_leaves_nothing_behind():
    module = Steps()

    def broken():
        generate(module, 2)
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        profile_generation(broken, "cpu", transformer=module)
    assert not module._forward_hooks
    assert profile_generation(lambda: generate(module, 1), "cpu").kernels  # no profiler is left running
