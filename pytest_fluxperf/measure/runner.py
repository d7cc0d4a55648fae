"""Calls the marked body: warm-ups until it has settled, then once per prompt, timed."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from pytest_fluxperf.measure.clock import Clock, WallClock
from pytest_fluxperf.measure.memory import PeakMemory
from pytest_fluxperf.measure.phases import Phases, PhaseTracer
from pytest_fluxperf.results import Generation, Measurement, Picture, Prompt, Workload, median_latency_s

MIN_WARMUP = 2
MAX_WARMUP = 8
OBSERVED_WARMUPS = 1
"""Warm-up generation (from 0) in which it is looked at what runs: the first may compile, a third may not come. Where
there is one alone and nothing to compile, it is that one."""

SETTLING_TOLERANCE = 0.25
"""Warm-up has settled when the last generation took no more than this fraction longer than the fastest."""


class Subject(Protocol):
    """What the runner needs of a pipeline with a recipe applied."""

    pipe: Any

    def begin(self) -> None:
        """Reset caches and step log before a generation."""

    @property
    def decisions(self) -> str | None:
        """Computed (``1``) and reused (``0``) denoising steps of the last generation."""


class Compilation(Protocol):
    """Running totals of the compiler's counters; the difference of two tells what a region compiled."""

    @property
    def graphs(self) -> int: ...  # noqa: D102
    @property
    def graph_breaks(self) -> int: ...  # noqa: D102
    @property
    def recompile_reasons(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def gave_up(self) -> tuple[str, ...]: ...  # noqa: D102
    def __sub__(self, earlier: Any) -> Compilation: ...


class BodyRaised(Exception):
    """The marked body raised; ``__cause__`` is its exception."""

    def __init__(self, index: int | None, total: int) -> None:
        self.result: Any = None
        """Set by whoever judges it."""
        where = "in warm-up" if index is None else f"at generation {index + 1} of {total}"
        super().__init__(where)


class Hooks:
    """What happens around the generations; a subclass overrides what it needs."""

    def keep(self, index: int, output: Any, decoded: Any) -> tuple[Picture | None, tuple[str, ...]]:  # noqa: ARG002
        """Store the picture of generation ``index`` (untimed); return it and what is wrong with it.

        ``output`` is what the body returned, ``decoded`` what the VAE decoded (None where unknown).
        """
        return None, ()

    def progress(self, stage: str, done: int, total: int, p50_s: float | None) -> None:
        """Told after every warm-up and every generation."""

    def compilation(self) -> Compilation | None:
        """The compiler's counters now; None where nothing compiles."""
        return None

    def is_failure(self, error: BaseException) -> bool:
        """Whether what the body raised is a failure of the test; else it passes through."""
        return isinstance(error, Exception)

    def observing(self) -> AbstractContextManager[None]:
        """Around the warm-up generation in which it may be looked at what really runs."""
        return nullcontext()

    def busy(self, began: float, ended: float) -> float | None:  # noqa: ARG002
        """Share of a generation (Unix seconds) in which the device computed; None where nobody can tell."""
        return None

    def pace(self) -> float | None:
        """Seconds of a fixed piece of work on the host, done after each generation; None where nobody asks."""
        return None

    def turn(self, made: Generation | None) -> None:
        """Called when warm (None) and with every generation; returns when the device may be used again."""

    reference: Callable[[Prompt], float] | None = None
    """Times the reference recipe on one prompt; set in relative mode."""


@dataclass
class _Timing:
    latency_s: float
    wall_s: float
    phases: Phases
    output: Any
    decoded: Any = None
    began: float = 0.0
    ended: float = 0.0
    """Unix seconds."""


@dataclass
class Runner:
    """Measures one test on one device.

    ``call`` is the marked body with its fixtures bound; ``load`` makes a prompt the current one.
    """

    call: Callable[[], Any]
    load: Callable[[Prompt], None]
    workload: Workload
    clock: Clock
    device: str
    subject: Subject | None = None
    warmup: int = MIN_WARMUP
    passes: int = 1
    """How often the prompts are gone through."""
    beside_mib: float = 0.0
    """Device memory that the session holds beside what is measured."""
    compiles: bool = True
    """Whether the first generation may compile."""
    hooks: Hooks = field(default_factory=Hooks)

    def run(self) -> Measurement:
        """Warm up and measure.

        Raises :class:`BodyRaised` when the body does; everything else that is wrong (a bad picture, a
        recompilation) is recorded in the measurement's ``problems``.
        """
        tracer = PhaseTracer(self.subject.pipe, self.clock) if self.subject else None
        with tracer or nullcontext(), _no_collection():
            start = self._compiled()
            warmup_s = self._warm_up(tracer)
            warm = self._compiled()
            memory = PeakMemory(self.device, self.beside_mib)
            memory.start()
            generations, problems = self._measure(tracer)
            peak = memory.peak_mib()
            end = self._compiled()
        measured = end - warm if warm and end else None
        whole = end - start if start and end else None
        return Measurement(
            generations=tuple(generations),
            warmup_s=tuple(warmup_s),
            peak_memory_mib=peak,
            graph_breaks=whole.graph_breaks if whole else 0,
            recompiles=measured.graphs if measured else 0,
            recompile_reasons=measured.recompile_reasons if measured else (),
            problems=(*(whole.gave_up if whole else ()), *problems),
        )

    def _compiled(self) -> Compilation | None:
        return self.hooks.compilation()

    def _warm_up(self, tracer: PhaseTracer | None) -> list[float]:
        """Generate until compile and caches have settled: at least ``warmup``, at most :data:`MAX_WARMUP` times."""
        seconds: list[float] = []
        prompts = self.workload.prompts
        if self.hooks.reference and self.warmup:
            self.hooks.reference(prompts[0])
        settled = self.warmup == 0
        observed = OBSERVED_WARMUPS if self.compiles else min(OBSERVED_WARMUPS, self.warmup - 1)
        while not settled or len(seconds) < self.warmup:
            if len(seconds) >= max(self.warmup, MAX_WARMUP):
                break
            before = self._compiled()
            with self.hooks.observing() if len(seconds) == observed else nullcontext():
                seconds.append(self._generate(prompts[len(seconds) % len(prompts)], None, tracer).latency_s)
            self.hooks.progress("warm-up", len(seconds), self.warmup, None)
            after = self._compiled()
            compiled = bool(before and after and (after - before).graphs)
            settled = not compiled and seconds[-1] <= (1 + SETTLING_TOLERANCE) * min(seconds)
        return seconds

    def _measure(self, tracer: PhaseTracer | None) -> tuple[list[Generation], list[str]]:
        generations: list[Generation] = []
        problems: list[str] = []
        prompts = self.workload.prompts
        total = self.passes * len(prompts)
        self.hooks.turn(None)
        for index, prompt in enumerate(prompts * self.passes):
            reference_s = None
            # alternate the order within pairs, so that a drift of the machine cancels
            if self.hooks.reference and index % 2 == 0:
                reference_s = self.hooks.reference(prompt)
            timed = self._generate(prompt, index, tracer)
            pace = self.hooks.pace()
            decisions = self.subject.decisions if self.subject else None
            if self.hooks.reference and index % 2 == 1:
                reference_s = self.hooks.reference(prompt)
            busy = self.hooks.busy(timed.began, timed.ended)
            picture, wrong = self.hooks.keep(index, timed.output, timed.decoded)
            problems += wrong
            generations.append(
                Generation(
                    latency_s=timed.latency_s,
                    wall_s=timed.wall_s,
                    reference_latency_s=reference_s,
                    device_busy_s=None if busy is None else busy * timed.wall_s,
                    text_encode_s=timed.phases.text_encode_s,
                    denoise_s=timed.phases.denoise_s,
                    decode_s=timed.phases.decode_s,
                    steps_s=timed.phases.steps_s,
                    decisions=decisions,
                    picture=picture,
                    host_s=pace,
                )
            )
            p50 = median_latency_s(generations)
            self.hooks.progress("generation", index + 1, total, p50)
            self.hooks.turn(generations[-1])
        return generations, problems

    def _generate(self, prompt: Prompt, index: int | None, tracer: PhaseTracer | None) -> _Timing:
        self.load(prompt)
        if self.subject:
            self.subject.begin()
        if tracer:
            tracer.begin()
        gc.collect(0)
        began = time.time()
        try:
            seconds, wall_s, output = time_call(self.call, self.clock)
        except BaseException as error:
            if not self.hooks.is_failure(error):
                raise
            raise BodyRaised(index, self.passes * len(self.workload.prompts)) from error
        phases = tracer.read() if tracer else Phases()
        decoded = tracer.decoded if tracer else None
        return _Timing(seconds, wall_s, phases, output, decoded, began, time.time())


def time_call(call: Callable[[], Any], clock: Clock) -> tuple[float, float, Any]:
    """Device seconds, wall seconds and result of one call, synchronized before and after."""
    wall = WallClock()
    clock.synchronize()
    wall_start = wall.mark()
    start = clock.mark()
    output = call()
    end = clock.mark()
    clock.synchronize()
    return clock.seconds(start, end), wall.seconds(wall_start, wall.mark()), output


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of the timed regions."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
