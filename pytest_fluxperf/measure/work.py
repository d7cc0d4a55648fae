"""The work of one generation: kernels, operators and Python calls by phase.

Latency follows the machine and its neighbours; the work does not. Counted in a process where the recipe has run
before, it is the same number in every process, idle or busy, as long as the software does the same. Counting perturbs,
so it happens in a generation of its own that nobody times.

One profiler and one ``sys.setprofile`` watch the same generation. On a CPU the profiler records operators, and not a
``TorchDispatchMode``: under such a mode torch.compile runs its functions eager. On a GPU it records kernels alone,
since an operator's record costs more than the operator: those of one eager picture of FLUX.1, 427,000, took 7 s to
read on an H200's host. A kernel belongs to the phase in which the host launched it, however late the device came to
it.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, get_args

from pytest_fluxperf.measure import kineto, phases
from pytest_fluxperf.measure.kernel_names import family
from pytest_fluxperf.measure.phases import Part, PhaseHooks
from pytest_fluxperf.results import (
    FAMILY_SHARE,
    MOST_FAMILIES,
    OTHER_FAMILIES,
    FamilyWork,
    Ledger,
    Phase,
    PhaseWork,
    Work,
)

BORDER = "fluxperf border"
"""Name of the profiler's event that marks where a phase begins, on a CPU."""

SYNCHRONIZE = "cudaDeviceSynchronize"
"""Name of the event that marks it on a GPU, where no marks of the host are kept: a call that waits for the device."""

BORDER_REACH_NS = 5_000_000
"""How far apart a border's clock and the profiler's may be: both are the host's time, converted."""

_LAUNCHES = ("cuda", "cu")
"""How the CUDA runtime's and driver's calls begin, as the profiler names them."""

_PROFILERS_OWN = "profiler::"


class Event(Protocol):
    """What is read of a profiler's event (``torch._C._autograd._KinetoEvent``)."""

    def name(self) -> str: ...  # noqa: D102
    def start_ns(self) -> int: ...  # noqa: D102
    def duration_ns(self) -> int: ...  # noqa: D102
    def start_thread_id(self) -> int: ...  # noqa: D102
    def device_type(self) -> Any: ...  # noqa: D102
    def correlation_id(self) -> int: ...  # noqa: D102
    def is_user_annotation(self) -> bool: ...  # noqa: D102


def count(call: Callable[[], Any], pipe: Any, device: str, decisions: Callable[[], str | None]) -> Ledger | None:
    """Call ``call`` once, which makes one picture with ``pipe`` on ``device`` (``cuda``, ``cpu``), and count its work.

    ``decisions`` tells afterwards which steps were computed (``1``) and which a cache answered (``0``). The recipe must
    have run in this process before, or its first time is counted. None where another profiler runs or another function
    was given to ``sys.setprofile``, since there is one place for either; None and a warning where the profiler
    sees no kernel of a GPU. Whatever ``call`` raises is raised; then nothing stays behind.
    """
    import torch

    if sys.getprofile() is not None or torch._C._autograd._profiler_enabled():
        return None
    cuda = device.startswith("cuda")
    profiler = kineto.profiler(device, operators=not cuda)
    tally = _Tally(device)
    with _no_collection():
        profiler.start()
        try:
            with PhaseHooks(pipe, tally.enter, tally.leave), tally.counting():
                call()
            if cuda:
                torch.cuda.synchronize(device)  # kernels that run on when the profiler stops are lost
        finally:
            profiler.stop()
        results: Any = profiler.profiler
        seen = _read(results.kineto_results.events())
        results.kineto_results = None  # some 100,000 events, and part of a reference cycle
    if cuda and not seen.kernels:
        kineto.warn_without_kernels(device)
        return None
    if cuda:
        seen = replace(seen, borders=_nearest(tally.times_ns, seen.borders))
    return ledger(tally.sections(decisions()), seen, "cuda" if cuda else "cpu")


def _nearest(times_ns: Sequence[int], seen: Sequence[int]) -> list[int]:
    """Of the ``seen`` events the one nearest to each time, so that a body's own waits are no borders."""
    nearest = [min(seen, key=lambda event, at=at: abs(event - at), default=0) for at in times_ns]  # type: ignore[misc]
    return [event for event, at in zip(nearest, times_ns, strict=True) if abs(event - at) <= BORDER_REACH_NS]


@dataclass(frozen=True)
class Section:
    """A stretch of a generation between two borders."""

    phase: Phase
    calls: int


@dataclass(frozen=True)
class Trace:
    """What a profiler saw, in nanoseconds of one clock."""

    borders: Sequence[int]
    """When each section began, in order."""
    operators: Sequence[tuple[int, str]]
    """When each operator began on the thread of the borders, and its name."""
    kernels: Sequence[tuple[int | None, int, str]]
    """When each kernel was launched (None if that is not known), its duration and its name, in the order in which the
    device ran them."""


class _Tally:
    """Counts Python calls, section by section, and marks the borders for the profiler."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._uncounted = _uncounted()
        self.times_ns: list[int] = []
        """When each section began, on the host's clock."""
        self._names: list[Part | None] = []
        self._calls: list[int] = []
        self._seen = 0

    def enter(self, part: Part) -> None:
        self._border(part)

    def leave(self, part: Part, result: Any) -> None:  # noqa: ARG002
        if part != "step":  # what the scheduler does belongs to the step: it lasts until the next part begins
            self._border(None)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count on this thread; what the borders themselves call is no work of the generation."""
        uncounted = self._uncounted

        def on(frame: Any, event: str, _: Any) -> None:
            if event == "call" and frame.f_code.co_filename not in uncounted:
                self._seen += 1

        self._border(None)
        sys.setprofile(on)
        try:
            yield
        finally:
            sys.setprofile(None)
            self._calls.append(self._seen)

    def _border(self, part: Part | None) -> None:
        seen = self._seen
        self._names.append(part)
        self._calls.append(seen)
        self._mark()
        self._seen = seen

    def _mark(self) -> None:
        import torch

        if self._device.startswith("cuda"):
            self.times_ns.append(time.time_ns())  # the event begins here, and lasts until the device has finished
            torch.cuda.synchronize(self._device)
        else:
            with torch.profiler.record_function(BORDER):
                pass

    def sections(self, decisions: str | None) -> list[Section]:
        """The sections, in order; steps are all taken as computed where ``decisions`` does not tell of each."""
        steps = self._names.count("step")
        kinds = iter(decisions if decisions is not None and len(decisions) == steps else "1" * steps)
        found = []
        for index, name in enumerate(self._names):
            if name == "step":
                phase: Phase = "computed" if next(kinds) == "1" else "cached"
            else:
                phase = name or "other"
            found.append(Section(phase, self._calls[index + 1] - self._calls[index]))
        return found


def _uncounted() -> frozenset[str]:
    """Files whose functions are no work of a generation: those that count, and the list of modules that dynamo keeps
    as soon as anything was compiled in the process (since torch 2.0), whatever this recipe does."""
    import torch

    dynamo = Path(torch.__file__).with_name("_dynamo")
    return frozenset({__file__, phases.__file__, str(dynamo / "mutation_guard.py"), str(dynamo / "utils.py")})


def _read(events: Iterable[Event]) -> Trace:
    """Take what is counted out of a profiler's events, in one pass."""
    from torch.autograd import DeviceType  # type: ignore[attr-defined]

    gpu = DeviceType.CUDA
    borders: list[tuple[int, int]] = []
    operators: list[tuple[int, str, int]] = []
    launched: dict[int, int] = {}
    kernels: list[tuple[int, int, str, int]] = []
    for event in events:
        name = event.name()
        if event.device_type() == gpu:
            if not event.is_user_annotation():
                kernels.append((event.start_ns(), event.duration_ns(), name, event.correlation_id()))
        elif name in (BORDER, SYNCHRONIZE):
            borders.append((event.start_ns(), event.start_thread_id()))
        elif "::" in name:
            if not name.startswith(_PROFILERS_OWN):
                operators.append((event.start_ns(), name, event.start_thread_id()))
        elif name.startswith(_LAUNCHES):
            launched[event.correlation_id()] = event.start_ns()
    thread = borders[0][1] if borders else None
    kernels.sort()
    return Trace(
        borders=sorted(start for start, _ in borders),
        operators=[(start, name) for start, name, on in operators if on == thread],
        kernels=[(launched.get(at), spent, name) for _, spent, name, at in kernels],
    )


def ledger(sections: Sequence[Section], seen: Trace, device: str) -> Ledger:
    """Bring the sections' calls and what the profiler saw in them together; sections of one phase are added up.

    Raises RuntimeError when the profiler lost borders: nothing could be told apart then.
    """
    if len(seen.borders) != len(sections):
        raise RuntimeError(f"the profiler kept {len(seen.borders)} of {len(sections)} borders between phases")
    cuda = device == "cuda"
    named = lru_cache(maxsize=None)(family)
    operators = [0] * len(sections)
    kernels = [0] * len(sections)
    spent = [0] * len(sections)
    families: defaultdict[str, defaultdict[Phase, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for start, name in seen.operators:
        at = max(0, bisect_right(seen.borders, start) - 1)
        operators[at] += 1
        families[name][sections[at].phase][0] += 1
    at = 0
    for launch, duration, name in seen.kernels:
        if launch is not None:  # else with the kernel before it
            at = max(0, bisect_right(seen.borders, launch) - 1)
        kernels[at] += 1
        spent[at] += duration
        entry = families[named(name)][sections[at].phase]
        entry[0] += 1
        entry[1] += duration
    works = [
        Work(
            calls=section.calls,
            operators=None if cuda else operators[i],
            kernels=kernels[i] if cuda else None,
            device_s=spent[i] / 1e9 if cuda else None,
        )
        for i, section in enumerate(sections)
    ]
    by_phase = {p: [w for s, w in zip(sections, works, strict=True) if s.phase == p] for p in get_args(Phase)}
    return Ledger(
        device="cuda" if cuda else "cpu",
        phases=tuple(_phase(name, of) for name, of in by_phase.items() if of),
        families=_fold(families, cuda),
    )


def _phase(name: Phase, works: Sequence[Work]) -> PhaseWork:
    """``works`` of one phase, each of one section, as one."""
    steps = name in ("computed", "cached")
    return PhaseWork(
        phase=name,
        times=len(works),
        total=_combine(works, sum, sum),
        each=_combine(works, _typical, statistics.median) if steps else None,
    )


def _combine(works: Sequence[Work], counts: Callable[[list[int]], int], times: Callable[[list[float]], float]) -> Work:
    operators = [work.operators for work in works if work.operators is not None]
    kernels = [work.kernels for work in works if work.kernels is not None]
    spent = [work.device_s for work in works if work.device_s is not None]
    return Work(
        calls=counts([work.calls for work in works]),
        operators=counts(operators) if operators else None,
        kernels=counts(kernels) if kernels else None,
        device_s=times(spent) if spent else None,
    )


def _typical(values: list[int]) -> int:
    """The most frequent value, the smallest of several."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))


def _fold(families: dict[str, Any], cuda: bool) -> tuple[FamilyWork, ...]:
    """Families from the largest on (by time, on a CPU by count); small ones as one, so that nothing is lost."""
    all_counts, all_times = (
        sum(entry[i] for by_phase in families.values() for entry in by_phase.values()) or 1 for i in (0, 1)
    )

    def share(name: str) -> tuple[float, float]:
        count, time = (sum(entry[i] for entry in families[name].values()) for i in (0, 1))
        return (time / all_times, count / all_counts) if cuda else (count / all_counts, 0.0)

    order = sorted(families, key=lambda name: (*(-s for s in share(name)), name))
    kept = [name for name in order if max(share(name)) >= FAMILY_SHARE][:MOST_FAMILIES]
    rest: defaultdict[Phase, list[int]] = defaultdict(lambda: [0, 0])
    for name in families.keys() - set(kept):
        for phase, (count, spent) in families[name].items():
            rest[phase][0] += count
            rest[phase][1] += spent
    listed = [(name, families[name]) for name in kept] + ([(OTHER_FAMILIES, rest)] if rest else [])
    return tuple(
        FamilyWork(
            family=name,
            counts={phase: by_phase[phase][0] for phase in get_args(Phase) if phase in by_phase},
            device_s={p: by_phase[p][1] / 1e9 for p in get_args(Phase) if p in by_phase} if cuda else {},
        )
        for name, by_phase in listed
    )


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector, which calls what objects registered for their end, out of the count."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
