"""Several measurements of a test as one, in one place: a Measurement never changes after it was made."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from pytest_fluxperf.results import Measurement, Telemetry

_T = TypeVar("_T")


def join(measurements: Sequence[Measurement], *, fresh: bool = False) -> Measurement:
    """Rounds over the same prompts as one measurement; of none an empty one.

    Generations, problems and recompilations are all of them, the peak of memory is the highest. ``fresh`` says that
    each was measured in a process of its own: there the same graph breaks come back, else they add up. A profile is
    the last one's, preparation and what was observed of a step are the first's.
    """
    if not measurements:
        return Measurement(generations=())
    first = measurements[0]
    if len(measurements) == 1:
        return first
    count = max if fresh else sum
    breaks: int = count([m.graph_breaks for m in measurements])
    facts = {name: fact for m in reversed(measurements) for name, fact in m.facts.items()}
    return replace(
        first,
        generations=tuple(made for m in measurements for made in m.generations),
        warmup_s=tuple(seconds for m in measurements for seconds in m.warmup_s),
        peak_memory_mib=max((m.peak_memory_mib for m in measurements if m.peak_memory_mib is not None), default=None),
        graph_breaks=breaks,
        recompiles=sum(m.recompiles for m in measurements),
        recompile_reasons=tuple(reason for m in measurements for reason in m.recompile_reasons),
        facts={**facts, "graph_breaks": breaks} if "graph_breaks" in facts else facts,
        telemetry=_telemetry([m.telemetry for m in measurements if m.telemetry is not None]),
        kernels=next((m.kernels for m in reversed(measurements) if m.kernels is not None), None),
        ledger=next((m.ledger for m in measurements if m.ledger is not None), None),
        fidelity=next((m.fidelity for m in measurements if m.fidelity is not None), None),
        problems=tuple(problem for m in measurements for problem in m.problems),
        out_of_memory=any(m.out_of_memory for m in measurements),
        unfit=tuple(reason for m in measurements for reason in m.unfit),
    )


def supersede(first: Measurement, second: Measurement) -> Measurement:
    """A second look at a test whose machine was disturbed in the first: its times count, and the machine's state.

    What no disturbance of the machine explains stays: problems, graph breaks, recompilations and the peak of memory.
    What was compiled in the first look breaks its graphs no second time.
    """
    both = join([first, second], fresh=True)
    breaks = {name: fact for name, fact in both.facts.items() if name == "graph_breaks"}
    return replace(
        both,
        generations=second.generations,
        warmup_s=second.warmup_s,
        facts={**both.facts, **second.facts, **breaks},
        telemetry=second.telemetry,
        kernels=second.kernels,
        ledger=second.ledger if second.ledger is not None else first.ledger,
        fidelity=second.fidelity if second.fidelity is not None else first.fidelity,
        unfit=second.unfit,
    )


def _telemetry(readings: Sequence[Telemetry]) -> Telemetry | None:
    """The device over several readings: its typical clock, the last power and temperature, all that went wrong."""
    if not readings:
        return None
    clocks = [reading.sm_clock_mhz for reading in readings if reading.sm_clock_mhz is not None]
    return replace(
        readings[-1],
        sm_clock_mhz=round(statistics.median(clocks)) if clocks else None,
        throttle_reasons=_every(reason for reading in readings for reason in reading.throttle_reasons),
        other_processes=_every(pid for reading in readings for pid in reading.other_processes),
    )


def _every(values: Iterable[_T]) -> tuple[_T, ...]:
    """Each value once, in the order of coming."""
    return tuple(dict.fromkeys(values))
