"""Several measurements as one: nothing of the later ones is lost."""

from __future__ import annotations

import records as make

from pytest_fluxperf.measure.rounds import join, supersede
from pytest_fluxperf.results import Ledger, Measurement, Telemetry


def reading(mhz: int, *reasons: str) -> Telemetry:
    return Telemetry(sm_clock_mhz=mhz, power_w=mhz / 4, throttle_reasons=reasons, other_processes=(mhz,))


def test_joined_rounds_have_the_highest_peak_and_the_state_of_all_of_them() -> None:
    rounds = [
        make.measurement(peak_memory_mib=1000.0, telemetry=reading(1980)),
        make.measurement(peak_memory_mib=3000.0, telemetry=reading(1000, "hot")),
        make.measurement(peak_memory_mib=None, telemetry=None),
        make.measurement(peak_memory_mib=2000.0, telemetry=reading(1900, "hot", "weak")),
    ]
    joined = join(rounds)

    assert joined.peak_memory_mib == 3000
    assert joined.telemetry == Telemetry(
        sm_clock_mhz=1900, power_w=475, throttle_reasons=("hot", "weak"), other_processes=(1980, 1000, 1900)
    )
    assert len(joined.generations) == 4 * make.N


def test_breaks_of_further_rounds_add_up_and_are_a_fact_too() -> None:
    rounds = [
        make.measurement(graph_breaks=1, recompiles=1, facts={"graph_breaks": 1, "ran_casts": 3}, problems=("a",)),
        make.measurement(graph_breaks=2, recompiles=2, facts={"graph_breaks": 2, "late": True}, problems=("b",)),
    ]
    joined = join(rounds)

    assert (joined.graph_breaks, joined.recompiles, joined.problems) == (3, 3, ("a", "b"))
    assert joined.facts == {"graph_breaks": 3, "ran_casts": 3, "late": True}


def test_breaks_of_fresh_processes_are_the_same_ones() -> None:
    blocks = [make.measurement(graph_breaks=n, facts={"graph_breaks": n}) for n in (2, 3)]
    joined = join(blocks, fresh=True)

    assert joined.graph_breaks == joined.facts["graph_breaks"] == 3


def test_of_nothing_and_of_one() -> None:
    one = make.measurement()

    assert join([]) == Measurement(generations=())
    assert join([one]) is one


def test_a_second_look_takes_back_times_and_the_state_of_the_machine_alone() -> None:
    first = make.measurement(
        make.latencies(shift=1.0),
        graph_breaks=2,
        facts={"graph_breaks": 2, "ran_casts": 3},
        recompiles=1,
        recompile_reasons=("why",),
        peak_memory_mib=3000.0,
        problems=("black",),
        unfit=("hot",),
        telemetry=reading(1000, "hot"),
        ledger=Ledger(device="cpu", phases=()),
    )
    second = make.measurement(
        facts={"graph_breaks": 0, "ran_casts": 4}, peak_memory_mib=2000.0, telemetry=reading(1980)
    )
    both = supersede(first, second)

    assert both.generations == second.generations
    assert (both.unfit, both.telemetry) == ((), second.telemetry)
    assert (both.graph_breaks, both.recompiles, both.problems) == (2, 1, ("black",))
    assert both.facts == {"graph_breaks": 2, "ran_casts": 4}
    assert both.peak_memory_mib == 3000
    assert both.ledger == first.ledger
