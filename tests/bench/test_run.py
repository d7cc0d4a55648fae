"""A run: what came of it, and what crosses a process."""

from __future__ import annotations

from pytest_fluxperf.bench import run
from pytest_fluxperf.bench.run import Envelope


def test_envelopes_are_decoded_one_at_a_time(monkeypatch):
    """Each worker of xdist has a thread in the controller."""
    held = []
    convert = run.msgspec.convert
    monkeypatch.setattr(run.msgspec, "convert", lambda *a: held.append(run._DECODING.locked()) or convert(*a))
    assert Envelope.decode(Envelope(configurations=3).encode()).configurations == 3
    assert held == [True]
