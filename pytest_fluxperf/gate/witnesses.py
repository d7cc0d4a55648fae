"""What wall time, device time, the work and the host say together of one test's latency.

Wall time is what users feel, and it follows the weather. The work repeats exactly and the device's time to a percent,
so they decide what a change of wall time means: whether the software does more, whether the device takes longer, or
whether the host let both wait. docs/gate.md has the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pytest_fluxperf.gate.evidence import Evidence
from pytest_fluxperf.gate.statistics import Decision
from pytest_fluxperf.gate.times import TimeVerdict

Witness = Literal["work", "device time", "wall time", "host"]

HOST_SLOWER = 0.10
"""Least relative change of the host's pace that makes the host slower: its median over a test's
generations moves by less where nothing else runs."""


@dataclass(frozen=True)
class Host:
    """Seconds of the fixed piece of work on the host: median of the stored runs, and of the generations now."""

    before_s: float
    now_s: float

    @property
    def change(self) -> float:
        """Relative change; positive is slower."""
        return self.now_s / self.before_s - 1

    @property
    def slower(self) -> bool:
        """Whether the host itself was slower."""
        return self.change > HOST_SLOWER


@dataclass(frozen=True)
class Testimony:
    """The decision on a test's latency, who decided, and what there is to say of it."""

    decision: Decision
    witness: Witness
    reasons: tuple[str, ...] = ()
    """Why it is slower, the strongest first; empty where it is not."""
    warnings: tuple[str, ...] = ()
    """What is worth knowing though it decides nothing."""


def weigh(
    time: TimeVerdict, evidence: Evidence | None, host: Host | None, *, limit: float, twice: bool = False
) -> Testimony:
    """Hear all witnesses of one test.

    ``limit`` is ``ln(1 + tolerance)``; ``twice`` says that a second measurement of this session was judged with the
    first. Without ``evidence`` (no ledger on either side, or a body that is not ours) wall time decides alone. On a
    CPU, which has no device time, the same work acquits nobody: the work itself may have become dearer.
    """
    if evidence is None:
        return Testimony(time.decision, "wall time")
    if _slower(time, limit) and evidence.device is not None:
        return _of_a_slower_test(time, evidence, host, limit, twice=twice)
    if _slower(time, limit) and evidence.work == "more" and _grew(evidence, limit):
        return Testimony("regressed", "work", evidence.reasons)
    if time.decision == "inconclusive" and _nothing_changed(evidence, time, limit):
        return Testimony("passed", "device time", warnings=_lesser(evidence))
    return Testimony(time.decision, "wall time", warnings=(*_hidden(evidence, time, limit), *_lesser(evidence)))


def _slower(time: TimeVerdict, limit: float) -> bool:
    """Whether wall time is slower beyond the tolerance, as far as it can tell by itself."""
    return time.decision == "regressed" or (time.decision == "inconclusive" and time.effect.value > limit)


def _of_a_slower_test(
    time: TimeVerdict, evidence: Evidence, host: Host | None, limit: float, *, twice: bool
) -> Testimony:
    if evidence.work == "more" and _grew(evidence, limit):
        return Testimony("regressed", "work", evidence.reasons)
    if _device_slower(evidence, time, limit):
        return Testimony("regressed", "device time", evidence.reasons)
    if host is not None and host.slower:
        waited = (
            f"slower by {math.expm1(time.effect.value):.1%} in wall time with the same work"
            f"{' and the same device time' if evidence.device else ''}: its host was slower by {host.change:.0%}"
        )
        return Testimony("passed", "host", warnings=(waited, *_lesser(evidence)))
    if time.decision == "regressed" and evidence.work == "more":
        return Testimony("regressed", "work", evidence.reasons)
    if time.decision == "regressed" and twice and host is not None:
        dearer = (
            f"the same work costs more, twice in this session, while the host is as fast as ever ({host.change:+.0%})"
        )
        return Testimony("regressed", "wall time", (dearer,))
    unsaid = "the host's own speed is not known" if host is None else "the host is as fast as ever"
    return Testimony("inconclusive", "host", (f"host: slower in wall time with the same work, and {unsaid}",))


def _grew(evidence: Evidence, limit: float) -> bool:
    """Whether a count grew by more than the tolerance, or device time did: enough to explain a slower test."""
    device = 0.0 if evidence.device is None else evidence.device.change
    steps = any(change.what == "steps" and change.difference > 0 for change in evidence.changes)
    return steps or max((device, *evidence.growth.values())) > math.expm1(limit)


def _device_slower(evidence: Evidence, time: TimeVerdict, limit: float) -> bool:
    """Whether the device itself took longer beyond tolerance and noise, what all tests share taken out."""
    device = evidence.device
    if device is None or device.verdict != "more":
        return False
    return math.log1p(device.change) - max(time.common, 0.0) > limit + device.tolerance


def _nothing_changed(evidence: Evidence, time: TimeVerdict, limit: float) -> bool:
    """Whether work and device time stand where they stood, so that an unsteady wall time need not be believed."""
    device = evidence.device
    same = evidence.work in ("same", "less") and device is not None and device.verdict != "more"
    return same and time.effect.interval()[0] <= limit and not time.slow_prompts


def _hidden(evidence: Evidence, time: TimeVerdict, limit: float) -> tuple[str, ...]:
    """More work, or a slower device, that wall time does not show beyond the tolerance."""
    if evidence.work == "more" or _device_slower(evidence, time, limit):
        return (f"not slower so far, but {'; '.join(evidence.reasons[:3])}",)
    return ()


def _lesser(evidence: Evidence) -> tuple[str, ...]:
    """Less work than the baseline's, which then guards less than it could."""
    if evidence.work != "less":
        return ()
    return (f"less work than the baseline's ({'; '.join(evidence.reasons[:2])}): update it",)
