"""A ledger against its baseline's: is it the same work, and does the device take as long for it?

Counts repeat exactly, so every difference is a finding; device time repeats to a percent. Nothing here knows of wall
time: what the witnesses mean together is decided where the latency is judged.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from pytest_fluxperf.gate.kernel_terms import PLURALS, operation, term
from pytest_fluxperf.results import (
    FAMILY_SHARE,
    MOST_FAMILIES,
    OTHER_FAMILIES,
    FamilyChange,
    FamilyWork,
    Ledger,
    Phase,
    PhaseWork,
    Work,
    WorkChange,
)

DEVICE_TOLERANCE = 0.01
"""Least change of the summed device time that is more than noise: four generations of one recipe, two of them beside
24 busy processes, lay within ±0.8 % (H200, 1.494 to 1.518 s), two compiled ones in processes of their own too."""

DEVICE_SPREADS = 3.0
"""Standard deviations of the stored runs' device time that are noise, where that is more."""

LEAST_PART = 0.003
"""Kernels of one operation that moved by less than this share of the device's time are not told of."""

_COUNTS = ("kernels", "operators", "calls")
_PLACES = {"text": "text encoding", "decoding": "decoding", "other": "what lies between the phases"}
_STEPS = ("computed", "cached")

Comparison = Literal["same", "more", "less"]


@dataclass(frozen=True)
class DeviceTime:
    """Summed duration of all kernels of the generation, seconds."""

    before_s: float
    """Mean of the stored runs."""
    now_s: float
    tolerance: float
    """Relative change that is noise."""

    @property
    def change(self) -> float:
        """Relative change; positive is longer."""
        return self.now_s / self.before_s - 1 if self.before_s else 0.0

    @property
    def verdict(self) -> Comparison:
        """Whether it is the same within its noise."""
        if abs(self.change) <= self.tolerance:
            return "same"
        return "more" if self.change > 0 else "less"


@dataclass(frozen=True)
class Evidence:
    """What two of the three witnesses say; the third is wall time."""

    work: Literal["same", "more", "less", "otherwise"]
    """``more`` where any count rose; ``less`` where some fell and none rose, which is a baseline to update;
    ``otherwise`` where all counts are equal but other kernels (on a CPU, other operators) make them up."""
    changes: tuple[WorkChange, ...]
    families: tuple[FamilyChange, ...]
    """Families whose count changed, the largest change first."""
    device: DeviceTime | None
    """None where a ledger has none: on a CPU."""
    parts: dict[str, float]
    """Seconds that the kernels of an operation (or of a family that is none's) take more, the largest change first."""
    growth: dict[str, float]
    """Relative growth of each count over the whole generation, by its name."""
    reasons: tuple[str, ...]
    """Clauses with numbers, the strongest first; empty where there is nothing to tell."""


def compare(now: Ledger, stored: Sequence[Ledger]) -> Evidence | None:
    """``now`` against the ledgers of a baseline's runs, the oldest first; None where none of them is comparable.

    A count that some stored run has, or that lies between those of two, is no change: what does not repeat in the
    baseline proves nothing.
    """
    known = [ledger for ledger in stored if ledger.device == now.device]
    if not known:
        return None
    last = known[-1]
    changes = tuple(_changes(now, known))
    families = tuple(_families(now, last))
    device = _device_time(now, known)
    if changes:
        work: Literal["same", "more", "less", "otherwise"] = (
            "more" if any(change.difference > 0 for change in changes) else "less"
        )
    else:
        work = "otherwise" if _chosen_otherwise(now, known) else "same"
    parts = _parts(now, known)
    return Evidence(
        work=work,
        changes=changes,
        families=families,
        device=device,
        parts=parts,
        growth={name: _growth(name, now, last) for name in _COUNTS},
        reasons=tuple(_reasons(work, changes, families, device, parts, (now, last))),
    )


# Counts -------------------------------------------------------------------------------------------------


def _changes(now: Ledger, stored: Sequence[Ledger]) -> Iterator[WorkChange]:
    for phase in get_args(Phase):
        here, before = now.phase(phase), [ledger.phase(phase) for ledger in stored]
        times = [0 if work is None else work.times for work in before]
        count = 0 if here is None else here.times
        same_times = min(times) <= count <= max(times)
        if phase in _STEPS and not same_times:
            yield WorkChange(what="steps", phase=phase, before=times[-1], now=count)
        known = [work for work in before if work is not None]
        if here is None or not known:
            continue
        for name in _COUNTS:
            if found := _count_change(name, here, known, same_times or phase not in _STEPS):
                yield found


def _count_change(name: str, here: PhaseWork, known: Sequence[PhaseWork], same_times: bool) -> WorkChange | None:
    """The change of one count; of a typical step where the number of steps changed, or where that says all."""
    totals = [_of(work.total, name) for work in known]
    each = [_of(work.each, name) for work in known]
    total, typical = _of(here.total, name), _of(here.each, name)
    what = cast("Literal['kernels', 'operators', 'calls']", name)
    of_each = None
    if typical is not None and (before := _outside(typical, each)) is not None:
        of_each = WorkChange(what=what, phase=here.phase, before=before, now=typical, each=True)
    if not same_times:
        return of_each
    if total is None or (before := _outside(total, totals)) is None:
        return None
    if of_each is not None and of_each.difference * here.times == total - before:
        return of_each
    return WorkChange(what=what, phase=here.phase, before=before, now=total)


def _outside(value: int, stored: Sequence[int | None]) -> int | None:
    """The last of the stored values, where ``value`` lies outside of all; None where it does not, or none is known."""
    known = [one for one in stored if one is not None]
    return known[-1] if known and not min(known) <= value <= max(known) else None


def _of(work: Work | None, name: str) -> int | None:
    return None if work is None else getattr(work, name)


def _growth(name: str, now: Ledger, before: Ledger) -> float:
    new, old = (sum(_of(work.total, name) or 0 for work in ledger.phases) for ledger in (now, before))
    return new / old - 1 if old else 0.0


# Families -----------------------------------------------------------------------------------------------


def _families(now: Ledger, before: Ledger) -> Iterator[FamilyChange]:
    """Families whose count changed for certain: one that is named on one side alone may be among the other's rest."""
    new, old = ({family.family: family for family in ledger.families} for ledger in (now, before))
    found = []
    for name in sorted((new.keys() | old.keys()) - {OTHER_FAMILIES}):
        for phase in get_args(Phase):
            a, b = _count(old.get(name), phase), _count(new.get(name), phase)
            if abs(b - a) > sum(_unnamed(side, phase) for side in (old, new) if name not in side):
                spent = [_time(side.get(name), phase) for side in (old, new)]
                change = FamilyChange(family=name, phase=phase, before=a, now=b, before_s=spent[0], now_s=spent[1])
                found.append(change)
    found.sort(key=lambda change: (-abs(change.change_s), -abs(change.now - change.before), change.family))
    yield from found


def _unnamed(families: dict[str, FamilyWork], phase: Phase) -> float:
    """The most that a family which is not named can count in a phase."""
    others = _count(families.get(OTHER_FAMILIES), phase)
    if len(families) > MOST_FAMILIES:  # full: those that are named may be no larger
        return others
    return min(others, FAMILY_SHARE * sum(sum(family.counts.values()) for family in families.values()))


def _chosen_otherwise(now: Ledger, stored: Sequence[Ledger]) -> bool:
    return all(any(True for _ in _families(now, ledger)) for ledger in stored)


def _count(family: FamilyWork | None, phase: Phase) -> int:
    return 0 if family is None else family.counts.get(phase, 0)


def _time(family: FamilyWork | None, phase: Phase) -> float:
    return 0.0 if family is None else family.device_s.get(phase, 0.0)


# Device time --------------------------------------------------------------------------------------------


def _device_time(now: Ledger, stored: Sequence[Ledger]) -> DeviceTime | None:
    times = [ledger.device_s for ledger in stored if ledger.device_s]
    if now.device_s is None or not times:
        return None
    logs = [math.log(time) for time in times]
    spread = statistics.stdev(logs) if len(logs) > 1 else 0.0
    tolerance = max(DEVICE_TOLERANCE, DEVICE_SPREADS * spread)
    return DeviceTime(before_s=math.exp(statistics.fmean(logs)), now_s=now.device_s, tolerance=tolerance)


def _parts(now: Ledger, stored: Sequence[Ledger]) -> dict[str, float]:
    """By operation, what the device takes longer than the mean of the stored runs."""
    change: defaultdict[str, float] = defaultdict(float)
    for ledger, weight in [(now, 1.0), *((ledger, -1.0 / len(stored)) for ledger in stored)]:
        for family in ledger.families:
            part = operation(family.family) or family.family
            change[part] += weight * sum(family.device_s.values())
    return dict(sorted(((k, v) for k, v in change.items() if v), key=lambda item: (-abs(item[1]), item[0])))


# Sentences ----------------------------------------------------------------------------------------------


def _reasons(
    work: str,
    changes: Sequence[WorkChange],
    families: Sequence[FamilyChange],
    device: DeviceTime | None,
    parts: dict[str, float],
    ledgers: tuple[Ledger, Ledger],
) -> Iterator[str]:
    on_cpu = ledgers[0].device == "cpu"
    order = {"steps": 0, "kernels": 1, "calls": 2, "operators": 3}
    told = sorted(changes, key=lambda c: (c.difference < 0, order[c.what], -_whole(c, ledgers[0])))
    for change in told:
        if change.what in ("steps", "kernels"):
            yield _told(change, families)
    if device is not None and device.verdict != "same":
        yield from _slower_parts(device, parts)
        yield from _clock(*ledgers)
    for change in told:
        if change.what == "calls":
            yield _told(change, ())
        elif change.what == "operators":
            yield _told(change, families if on_cpu else ())
    if work == "otherwise":
        what = "operators" if on_cpu else "kernels"
        yield f"as many {what}, but others{_replaced(families, 1)}"


def _whole(change: WorkChange, now: Ledger) -> int:
    """The change over the whole generation."""
    phase = now.phase(change.phase)
    return abs(change.difference) * (phase.times if change.each and phase else 1)


def _told(change: WorkChange, families: Iterable[FamilyChange]) -> str:
    """One change of a count as a clause."""
    if change.what == "steps":
        return f"{change.phase} steps {change.before} → {change.now}"
    place = _PLACES.get(change.phase) or (f"each {change.phase} step" if change.each else f"the {change.phase} steps")
    count = f"{abs(change.difference):,} {'more' if change.difference > 0 else 'fewer'}"
    if change.what == "calls":
        return f"{count} Python calls in {place} ({_percent(change)})"
    why = _replaced([f for f in families if f.phase == change.phase], change.difference)
    return f"{count} {change.what} in {place}{why or f' ({_percent(change)})'}"


def _percent(change: WorkChange) -> str:
    if not change.before:
        return "none before"
    return f"{100 * change.difference / change.before:+.2g} %, {change.before:,} → {change.now:,}"


def _replaced(families: Sequence[FamilyChange], difference: int) -> str:
    """``: new where old was``, by the families that moved the count most."""
    risen = [f for f in families if (f.now - f.before) * difference > 0]
    fallen = [f for f in families if (f.now - f.before) * difference < 0]
    if not risen:
        return ""

    def largest(found: Sequence[FamilyChange]) -> str:
        return term(max(found, key=lambda f: (abs(f.now - f.before), abs(f.change_s))).family)

    if not fallen:
        return f": {largest(risen)}"
    new, old = largest(risen), largest(fallen)
    return f": {new} where {old} was" if new != old else f": {new}"


def _slower_parts(device: DeviceTime, parts: dict[str, float]) -> Iterator[str]:
    rises = device.change > 0
    for part, seconds in parts.items():
        if abs(seconds) >= LEAST_PART * device.before_s and (seconds > 0) == rises:
            yield f"{PLURALS.get(part, part)} {1e3 * seconds:+,.3g} ms"


def _clock(now: Ledger, before: Ledger) -> Iterator[str]:
    if now.sm_clock_mhz and before.sm_clock_mhz and now.device_s and before.device_s:
        moved = now.sm_clock_mhz / before.sm_clock_mhz
        cycles = now.device_s * moved / before.device_s - 1
        if abs(moved - 1) > DEVICE_TOLERANCE and abs(cycles) <= DEVICE_TOLERANCE:
            yield f"as many cycles as before at another clock, {before.sm_clock_mhz} → {now.sm_clock_mhz} MHz"
