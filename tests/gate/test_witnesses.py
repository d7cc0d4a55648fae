"""Who decides on a latency: each row is a case of docs/gate.md's table."""

from __future__ import annotations

import math

import pytest

from pytest_fluxperf.gate.evidence import DeviceTime, Evidence
from pytest_fluxperf.gate.statistics import Effect
from pytest_fluxperf.gate.times import TimeVerdict
from pytest_fluxperf.gate.witnesses import Host, weigh
from pytest_fluxperf.results import WorkChange

LIMIT = math.log1p(0.02)


def time(decision, change=0.0, se=0.002, common=0.0, slow_prompts=()):
    return TimeVerdict("t", decision, Effect(math.log1p(change), se, 8), common, LIMIT, slow_prompts)


def evidence(work="same", device=0.0, calls=0.0, kernels=0.0, steps=0):
    changes = []
    if steps:
        changes.append(WorkChange(what="steps", phase="computed", before=8, now=8 + steps))
    if calls:
        changes.append(
            WorkChange(what="calls", phase="computed", before=1000, now=round(1000 * (1 + calls)), each=True)
        )
    return Evidence(
        work=work,
        changes=tuple(changes),
        families=(),
        device=None if device is None else DeviceTime(before_s=1.0, now_s=1.0 + device, tolerance=0.01),
        parts={},
        growth={"kernels": kernels, "operators": 0.0, "calls": calls},
        reasons=("the reason",) if work != "same" or device else (),
    )


FAST, SLOW = Host(before_s=0.010, now_s=0.0101), Host(before_s=0.010, now_s=0.013)


@pytest.mark.parametrize(
    ("said", "of", "host", "twice", "decision", "witness"),
    [
        # no ledger: wall time alone
        (time("regressed", 0.05), None, SLOW, True, "regressed", "wall time"),
        (time("inconclusive", 0.05), None, SLOW, True, "inconclusive", "wall time"),
        # slower, and the work explains it; a slow host beside it changes nothing
        (time("regressed", 0.05), evidence("more", kernels=0.04), FAST, False, "regressed", "work"),
        (time("inconclusive", 0.05, se=0.03), evidence("more", calls=0.10), SLOW, False, "regressed", "work"),
        (time("inconclusive", 0.09, se=0.05), evidence("more", steps=4), SLOW, False, "regressed", "work"),
        # slower, and the device took longer for the same work
        (time("regressed", 0.05), evidence(device=0.05), FAST, False, "regressed", "device time"),
        (time("inconclusive", 0.05, se=0.03), evidence(device=0.05), SLOW, False, "regressed", "device time"),
        # slower, same work, same device time: the host
        (time("regressed", 0.34), evidence(), SLOW, True, "passed", "host"),
        (time("regressed", 0.34), evidence(), SLOW, False, "passed", "host"),
        (time("regressed", 0.34), evidence(), FAST, False, "inconclusive", "host"),
        (time("regressed", 0.34), evidence(), FAST, True, "regressed", "wall time"),
        (time("regressed", 0.34), evidence(), None, True, "inconclusive", "host"),
        (time("inconclusive", 0.586, se=0.1), evidence(), FAST, False, "inconclusive", "host"),
        # a little more work on a slow host does not convict, on a fast one it does
        (time("regressed", 0.34), evidence("more", calls=0.001), SLOW, True, "passed", "host"),
        (time("regressed", 0.34), evidence("more", calls=0.001), FAST, True, "regressed", "work"),
        # undecided in wall time, and nothing else moved
        (time("inconclusive", 0.01, se=0.02), evidence(), FAST, False, "passed", "device time"),
        (time("inconclusive", 0.01, se=0.02), evidence(device=None), FAST, False, "inconclusive", "wall time"),
        (
            time("inconclusive", 0.01, se=0.02, slow_prompts=(1, 3)),
            evidence(),
            FAST,
            False,
            "inconclusive",
            "wall time",
        ),
        # on a CPU the same work acquits nobody, more of it convicts
        (time("regressed", 0.34), evidence(device=None), SLOW, True, "regressed", "wall time"),
        (time("inconclusive", 0.34, 0.3), evidence("more", device=None, calls=0.1), FAST, False, "regressed", "work"),
        # not slower
        (time("passed"), evidence("more", calls=0.5), FAST, False, "passed", "wall time"),
        (time("improved", -0.05), evidence("less"), FAST, False, "improved", "wall time"),
    ],
)
def test_who_decides(said, of, host, twice, decision, witness):
    found = weigh(said, of, host, limit=LIMIT, twice=twice)
    assert (found.decision, found.witness) == (decision, witness)
    assert bool(found.reasons) or found.decision != "regressed" or of is None or of.device is None


def test_a_card_that_slows_all_tests_is_no_reason_against_one():
    slow_card = evidence(device=0.045)
    assert weigh(time("inconclusive", 0.03, 0.02), slow_card, FAST, limit=LIMIT).decision == "regressed"
    shared = time("inconclusive", 0.03, 0.02, common=math.log1p(0.03))
    assert weigh(shared, slow_card, FAST, limit=LIMIT).decision == "inconclusive"


def test_an_acquitted_test_names_the_host_with_figures():
    (warning,) = weigh(time("regressed", 0.34), evidence(), SLOW, limit=LIMIT).warnings
    assert "34.0% in wall time" in warning
    assert "host was slower by 30%" in warning


def test_hidden_work_and_a_stale_baseline_are_told():
    (hidden,) = weigh(time("passed"), evidence("more", calls=0.5), FAST, limit=LIMIT).warnings
    assert hidden == "not slower so far, but the reason"
    (stale,) = weigh(time("passed"), evidence("less"), FAST, limit=LIMIT).warnings
    assert stale.endswith("update it")
