"""One measurement of a test: what happens around its generations, and what was really used in them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pytest_fluxperf.baseline.codec import as_stored
from pytest_fluxperf.baseline.store import baseline_path
from pytest_fluxperf.bench.case import Progress
from pytest_fluxperf.bench.pictures import Pictures
from pytest_fluxperf.bench.reference import ReferenceRecipe
from pytest_fluxperf.bench.session import Session
from pytest_fluxperf.bench.witnesses import ReferenceAnswers, fidelity_of, ledger_of
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.case import Case
from pytest_fluxperf.machine import host, telemetry
from pytest_fluxperf.measure import runner
from pytest_fluxperf.measure.inputs import GenerationInputs
from pytest_fluxperf.measure.observe import Observation, first_step
from pytest_fluxperf.results import (
    TRACES,
    Generation,
    KernelTable,
    Measurement,
    Picture,
    Telemetry,
    median_latency_s,
)

if TYPE_CHECKING:
    from pytest_fluxperf.pipelines.compile_counters import CompileCounts
    from pytest_fluxperf.pipelines.pool import Prepared


@dataclass(frozen=True)
class Body:
    """The marked body, and what it generates with."""

    call: Callable[[], Any]
    inputs: GenerationInputs
    prepared: Prepared | None
    """Its pipeline, where it is one of ours."""


class _Subject:
    """A prepared pipeline as the runner sees it."""

    def __init__(self, prepared: Prepared) -> None:
        self.pipe = prepared.pipe
        self.begin = prepared.begin
        self._steps = prepared.steps

    @property
    def decisions(self) -> str | None:
        return self._steps.decisions or None


class GenerationHooks(runner.Hooks):
    """What a session does around the generations of a test."""

    def __init__(self, session: Session, prepared: Prepared | None, pictures: Pictures, progress: Progress) -> None:
        self._session = session
        self._prepared = prepared
        self._pictures = pictures
        self._progress = progress
        self.generations = 0
        """Measured generations that there will be."""
        self.observation = Observation()
        self.clocks_mhz: list[int] = []
        """Median clock of each generation's multiprocessors, where NVML tells."""

    def keep(self, index: int, output: Any, decoded: Any) -> tuple[Picture | None, tuple[str, ...]]:
        """Store the picture."""
        return self._pictures.keep(index, output, decoded)

    def progress(self, stage: str, done: int, total: int, p50_s: float | None) -> None:
        """Pass it on."""
        self._progress(stage, done, total, p50_s)

    def compilation(self) -> CompileCounts:
        """The counters of this process."""
        from pytest_fluxperf.pipelines.compile_counters import snapshot

        return snapshot()

    def is_failure(self, error: BaseException) -> bool:
        """What the session takes for one."""
        return self._session.is_failure(error)

    def observing(self) -> AbstractContextManager[None]:
        """Watch the first step of our own pipeline."""
        if self._prepared is None:
            return nullcontext()
        return first_step(self._prepared.pipe.transformer, self.observation)

    def busy(self, began: float, ended: float) -> float | None:
        """By the driver's samples."""
        load = telemetry.during(self._session.gpu.uuid, began, ended)
        if load is not None and load.sm_clock_mhz is not None:
            self.clocks_mhz.append(load.sm_clock_mhz)
        return None if load is None else load.busy

    def pace(self) -> float | None:
        """Of this session's host."""
        return host.pace(self._session.device)

    def turn(self, made: Generation | None) -> None:
        """Take turns with the other environment of an A/B comparison."""
        if self._session.turns:
            self._session.turns.wait(made, self.generations)


def measure(
    session: Session,
    case: Case,
    body: Body,
    *,
    pictures: Pictures,
    reference: ReferenceRecipe,
    progress: Progress,
    warmup: int | None = None,
) -> Measurement:
    """Measure a test while the device is ours; ``warmup`` is the least number of warm-ups, by default the test's own.

    Raises :class:`~pytest_fluxperf.measure.runner.BodyRaised` when the body does, and
    :class:`~pytest_fluxperf.bench.reference.ReferenceFailed` when the recipe timed beside it does.
    """
    turns, prepared, prompts = session.turns, body.prepared, len(case.workload.prompts)
    passes = turns.passes(prompts) if turns else 1
    companions = turns.companions if turns else ()
    asked = runner.MIN_WARMUP if case.settings.warmup is None else case.settings.warmup
    hooks = GenerationHooks(session, prepared, pictures, progress)
    hooks.generations = passes * prompts
    compiled = hooks.compilation()
    with session.device_lock():
        hooks.reference = reference.timer()
        before = telemetry.read(session.gpu.uuid, companions)
        measurement = runner.Runner(
            call=body.call,
            load=body.inputs.load,
            workload=case.workload,
            clock=session.clock,
            device=session.device,
            subject=_Subject(prepared) if prepared else None,
            warmup=asked if warmup is None else warmup,
            passes=passes,
            beside_mib=prepared.spare_memory_mib() if prepared else 0.0,
            compiles=prepared is None or prepared.compiles,
            hooks=hooks,
        ).run()
        after = telemetry.read(session.gpu.uuid, companions)
    measurement = with_facts(measurement, prepared, hooks.observation, hooks.compilation() - compiled)
    return with_telemetry(measurement, before, after, hooks.clocks_mhz)


def with_facts(
    measurement: Measurement, prepared: Prepared | None, observation: Observation, compiled: CompileCounts
) -> Measurement:
    """``measurement`` with what was really used, and what was asked for and was not active."""
    facts: dict[str, Any] = {"graph_breaks": measurement.graph_breaks, **observation.facts}
    problems = measurement.problems
    if prepared:
        facts = {**prepared.facts(), **facts}
        problems += prepared.problems() + prepared.contradictions(observation.facts)
    elif compiled.graphs:  # a body that compiles its own pipeline
        facts |= {
            "compiled_graphs": compiled.graphs,
            "inductor_cache_hits": compiled.cache_hits,
            "inductor_cache_misses": compiled.cache_misses,
        }
    return replace(measurement, facts=as_stored(facts), problems=problems)  # they are compared with a baseline's


def with_telemetry(
    measurement: Measurement, before: Telemetry | None, after: Telemetry | None, clocks_mhz: list[int]
) -> Measurement:
    """``measurement`` with the state of the device, and whether that was fit to measure."""
    if after is not None and clocks_mhz:
        after = replace(after, sm_clock_mhz=round(statistics.median(clocks_mhz)))
    unfit = (*telemetry.unfit(before), *telemetry.unfit(after))
    return replace(measurement, telemetry=after, unfit=tuple(dict.fromkeys(unfit)))


def with_witnesses(
    measurement: Measurement, session: Session, case: Case, body: Body, expected: ReferenceAnswers | None
) -> Measurement:
    """``measurement`` with the work of one more generation and what the transformer answers to fixed inputs."""
    fidelity, problems = None, measurement.problems
    with session.device_lock():
        ledger, why = ledger_of(body.call, body.inputs, case.workload.prompts[0], body.prepared, session)
        if body.prepared is not None and expected is not None:
            try:
                fidelity = fidelity_of(body.prepared, expected)
            except FluxPerfError as error:
                problems = (*problems, str(error))
    facts = measurement.facts if why is None else {**measurement.facts, "ledger": why}
    return replace(measurement, ledger=ledger, fidelity=fidelity, facts=facts, problems=problems)


def profile(session: Session, case: Case, body: Body, measurement: Measurement) -> KernelTable:
    """Profile one more generation, of the first prompt; raises what the body raises."""
    from pytest_fluxperf.measure.profile import profile_generation

    stem = session.folder / TRACES / baseline_path(case.test).with_suffix("")
    prompts = case.workload.prompts
    with session.device_lock():
        body.inputs.load(prompts[0])
        if body.prepared:
            body.prepared.begin()
        table = profile_generation(
            body.call,
            session.device,
            transformer=body.prepared.pipe.transformer if body.prepared else None,
            latency_s=median_latency_s(measurement.generations[:: len(prompts)]),
            traces=stem,
        )
    folder = stem.parent.relative_to(session.folder)
    return replace(table, traces=tuple(str(folder / name) for name in table.traces))
