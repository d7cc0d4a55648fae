"""One generation under torch.profiler, summed up to a table of kernel families.

A generation at full size launches some 100,000 kernels, so the profile is taken in pieces of a few denoising steps:
each is summed and dropped before the next one begins, and memory does not grow with the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pytest_fluxperf.measure import kineto
from pytest_fluxperf.measure.kernel_names import family
from pytest_fluxperf.results import Kernel, KernelTable

PIECE_STEPS = 4
"""Denoising steps a piece."""

MOST_FAMILIES = 250
"""Families kept in a table; what is beyond is summed up as :data:`OTHERS`."""

OTHERS = "(others)"


class Event(Protocol):
    """What is read of a profiler's event (``torch._C._autograd._KinetoEvent``)."""

    def name(self) -> str: ...  # noqa: D102
    def start_ns(self) -> int: ...  # noqa: D102
    def duration_ns(self) -> int: ...  # noqa: D102
    def start_thread_id(self) -> int: ...  # noqa: D102
    def device_type(self) -> Any: ...  # noqa: D102
    def is_user_annotation(self) -> bool: ...  # noqa: D102


def profile_generation(
    call: Callable[[], Any],
    device: str,
    *,
    transformer: Any = None,
    latency_s: float | None = None,
    traces: Path | None = None,
    piece_steps: int = PIECE_STEPS,
) -> KernelTable:
    """Call ``call`` once, which makes one picture, and say where ``device`` (``cuda``, ``cpu``) spent the time.

    ``transformer`` is the denoiser, at whose calls the profile may be cut into pieces; without it the generation is one
    piece. ``latency_s`` is the latency of the same generation without the profiler. ``traces`` is the stem of the files
    to write for Perfetto: ``<stem>-first.json.gz`` and, if there was more than one piece, ``<stem>-last.json.gz``; the
    table holds their names. Whatever ``call`` raises is raised; then nothing stays behind.
    """
    session = _Pieces(device, traces)
    handle = None
    if transformer is not None and hasattr(transformer, "register_forward_hook"):
        steps = 0

        def after(*_: Any) -> None:
            nonlocal steps
            steps += 1
            if steps % piece_steps == 0:
                session.cut()

        handle = transformer.register_forward_hook(after)
    try:
        session.start()
        call()
        session.stop()
    finally:
        if handle is not None:
            handle.remove()
        session.abandon()
    return session.table(latency_s)


@dataclass
class Totals:
    """Calls and nanoseconds of every family; pieces are added one after the other."""

    cuda: bool
    calls: dict[str, int] = field(default_factory=dict)
    nanoseconds: dict[str, int] = field(default_factory=dict)
    busy_ns: int = 0

    def add(self, events: Iterable[Event]) -> None:
        """Sum up a piece."""
        if self.cuda:
            kernels = [e for e in events if _on_gpu(e) and not e.is_user_annotation()]
            for event in kernels:
                self._count(event.name(), event.duration_ns())
            self.busy_ns += _union((e.start_ns(), e.start_ns() + e.duration_ns()) for e in kernels)
        else:
            operators = [e for e in events if not _on_gpu(e)]
            for name, own in _own_times(operators):
                self._count(name, own)
            self.busy_ns += _union((e.start_ns(), e.start_ns() + e.duration_ns()) for e in operators)

    def kernels(self) -> tuple[Kernel, ...]:
        """Families, the longest first."""
        order = sorted(self.nanoseconds, key=lambda name: (-self.nanoseconds[name], name))
        kept, rest = order[:MOST_FAMILIES], order[MOST_FAMILIES:]
        found = [Kernel(family=name, calls=self.calls[name], time_s=self.nanoseconds[name] / 1e9) for name in kept]
        if rest:
            calls, spent = (sum(counts[name] for name in rest) for counts in (self.calls, self.nanoseconds))
            found.append(Kernel(family=OTHERS, calls=calls, time_s=spent / 1e9))
        return tuple(found)

    def _count(self, name: str, nanoseconds: int) -> None:
        key = family(name)
        self.calls[key] = self.calls.get(key, 0) + 1
        self.nanoseconds[key] = self.nanoseconds.get(key, 0) + nanoseconds


class _Pieces:
    """The profile of one generation, piece by piece."""

    def __init__(self, device: str, traces: Path | None) -> None:
        self._cuda = device.startswith("cuda")
        self._device = device
        self._stem = traces
        self._traces: list[str] = []
        self._totals = Totals(self._cuda)
        self._running: Any = None
        self._last: Any = None
        self._pieces = 0

    def start(self) -> None:
        self._running = kineto.profiler(self._device)
        self._running.start()

    def cut(self) -> None:
        """End a piece and begin the next."""
        self._finish()
        self.start()

    def stop(self) -> None:
        """End the last piece."""
        self._finish()
        if self._stem is not None and self._pieces > 1:
            self._export("last")
        if self._cuda and not self._totals.calls:
            kineto.warn_without_kernels(self._device)

    def abandon(self) -> None:
        """Stop a profiler that still runs."""
        if self._running is not None:
            running, self._running = self._running, None
            running.stop()

    def table(self, latency_s: float | None) -> KernelTable:
        return KernelTable(
            device="cuda" if self._cuda else "cpu",
            kernels=self._totals.kernels(),
            busy_s=self._totals.busy_ns / 1e9,
            latency_s=latency_s,
            traces=tuple(self._traces),
        )

    def _finish(self) -> None:
        if self._cuda:
            import torch

            torch.cuda.synchronize(self._device)  # kernels that run on when the profiler stops are lost
        running, self._running = self._running, None
        running.stop()
        self._pieces += 1
        self._totals.add(running.profiler.kineto_results.events())
        if self._last is not None:
            _forget(self._last)
            self._last = None
        if self._stem is None:
            _forget(running)
        else:
            self._last = running
        if self._stem is not None and self._pieces == 1:
            self._export("first")

    def _export(self, which: str) -> None:
        assert self._stem is not None
        path = self._stem.with_name(f"{self._stem.name}-{which}.json.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._last.export_chrome_trace(str(path))
        self._traces.append(path.name)


def _forget(finished: Any) -> None:
    """Free the events of a piece at once: a profiler is part of a reference cycle."""
    finished.profiler.kineto_results = None
    finished.profiler = None


def _on_gpu(event: Event) -> bool:
    return str(event.device_type()).rpartition(".")[2] == "CUDA"


def _union(spans: Iterable[tuple[int, int]]) -> int:
    """Length of the union of intervals."""
    covered, reached = 0, None
    for start, end in sorted(spans):
        if reached is None or start > reached:
            covered, reached = covered + end - start, end
        elif end > reached:
            covered, reached = covered + end - reached, end
    return covered


def _own_times(events: Iterable[Event]) -> Iterable[tuple[str, int]]:
    """``(name, nanoseconds)`` of every operator without the operators that it calls, thread by thread."""
    threads: dict[int, list[Event]] = {}
    for event in events:
        threads.setdefault(event.start_thread_id(), []).append(event)
    for thread in threads.values():
        open_calls: list[list[Any]] = []  # [name, end, own]
        for event in sorted(thread, key=lambda e: (e.start_ns(), -e.duration_ns())):
            start, length = event.start_ns(), event.duration_ns()
            while open_calls and open_calls[-1][1] <= start:
                name, _, own = open_calls.pop()
                yield name, max(0, own)
            if open_calls:
                open_calls[-1][2] -= length
            open_calls.append([event.name(), start + length, length])
        while open_calls:
            name, _, own = open_calls.pop()
            yield name, max(0, own)
