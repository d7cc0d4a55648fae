from __future__ import annotations

import torch

from pytest_fluxperf.measure.memory import PeakMemory, resident_bytes


def test_peak_of_the_process_rises_with_what_is_allocated_and_is_reset():
    watch = PeakMemory("cpu")
    watch.start()
    before = watch.peak_mib()
    block = bytearray(b"x") * (200 * 2**20)
    assert watch.peak_mib() > before + 150
    del block
    watch.start()
    assert watch.peak_mib() < before + 150


def test_resident_bytes_counts_shared_weights_once():
    shared = torch.nn.Linear(8, 8, bias=False)
    model = torch.nn.Sequential(shared, shared)
    other = torch.nn.Linear(8, 8, bias=False)
    other.weight = shared.weight
    pipe = type("Pipe", (), {"components": {"a": model, "b": other, "tokenizer": object()}})()
    assert resident_bytes(pipe) == 8 * 8 * 4
