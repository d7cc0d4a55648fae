from __future__ import annotations

import torch

from pytest_fluxperf.measure.memory import PeakMemory


def test_peak_of_the_process_rises_with_what_is_allocated_and_is_reset():
    watch = PeakMemory("cpu")
    watch.start()
    before = watch.peak_mib()
    block = bytearray(b"x") * (200 * 2**20)
    assert watch.peak_mib() > before + 150
    del block
    watch.start()
    assert watch.peak_mib() < before + 150


def test_on_a_gpu_what_the_session_holds_beside_does_not_count(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", calls.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5 * 2**30)
    watch = PeakMemory("cuda", beside_mib=1024)
    watch.start()
    assert calls == ["cuda"]
    assert watch.peak_mib() == 4 * 1024
