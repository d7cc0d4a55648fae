"""Two kernel tables of the same generation: what appeared, vanished or moved, and what that leaves unexplained."""

from __future__ import annotations

import math

from pytest_fluxperf.results import Kernel, KernelChange, KernelDiff, KernelTable

LEAST_SHARE = 0.01
"""A family that moved by less than this share of the difference is not listed but summed up with its like."""

LEAST_S = 1e-5
"""Nor is one that moved by less than this, seconds an image."""

MOST_CHANGES = 40


def diff(
    old: KernelTable, new: KernelTable, difference_s: float | None = None, *, scale: float = 1.0
) -> KernelDiff | None:
    """Take the latency difference ``difference_s`` (seconds an image; default: of the tables' own latencies) apart.

    ``scale`` multiplies the old table's seconds, where another machine measured it. The result's parts sum to the
    difference: listed families, the others, idle time of the device, and the unexplained rest. Idle time is what a
    difference leaves over when the time in which kernels ran is taken off. The difference of the one profiled prompt
    holds the noise of its two generations, so nothing counts as idle that ``difference_s`` does not leave over too.
    None when the tables are of different kinds of device, or no difference is known.
    """
    if old.device != new.device:
        return None
    seen = None if None in (old.latency_s, new.latency_s) else _latency(new) - scale * _latency(old)
    difference = seen if difference_s is None else difference_s
    if difference is None:
        return None
    before, now = ({kernel.family: kernel for kernel in table.kernels} for table in (old, new))
    changes = [_change(name, before.get(name), now.get(name), scale) for name in sorted(before.keys() | now.keys())]
    least = max(LEAST_S, LEAST_SHARE * abs(difference))
    changes.sort(key=lambda change: (-abs(change.change_s), change.family))
    listed = [change for change in changes if abs(change.change_s) >= least][:MOST_CHANGES]
    kernels_s = sum(change.change_s for change in changes)
    listed_s = sum(change.change_s for change in listed)
    idle_s = None
    if seen is not None:
        busier = new.busy_s - scale * old.busy_s
        idle_s = _agreed(seen - busier, difference - busier)
    return KernelDiff(
        difference_s=difference,
        changes=tuple(listed),
        others_s=kernels_s - listed_s,
        idle_s=idle_s,
        unexplained_s=difference - kernels_s - (idle_s or 0.0),
    )


def headline(found: KernelDiff, *, other_calls: bool = False) -> tuple[KernelChange, float, str] | None:
    """The family that explains most of the difference, its share and a clause; None where none points the same way.

    With ``other_calls`` only of those that ran another number of times.
    """
    for change in found.changes:
        if other_calls and change.baseline_calls == change.now_calls:
            continue
        if change.change_s * found.difference_s > 0:
            how = {
                "appeared": f"appeared ({change.now_calls} calls)",
                "vanished": f"vanished ({change.baseline_calls} calls)",
                "moved": f"moved ({change.baseline_calls} → {change.now_calls} calls)",
            }[change.change]
            text = f"kernel {change.family} {how}: {_ms(change.change_s)} of {_ms(found.difference_s)} ms an image"
            return change, change.change_s / found.difference_s, text
    return None


def _agreed(one: float, other: float) -> float:
    """What two estimates have in common: the smaller of them, nothing where their signs differ."""
    return math.copysign(min(abs(one), abs(other)), one) if one * other > 0 else 0.0


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:+.4g}"


def _latency(table: KernelTable) -> float:
    assert table.latency_s is not None
    return table.latency_s


def _change(name: str, old: Kernel | None, new: Kernel | None, scale: float) -> KernelChange:
    return KernelChange(
        family=name,
        change="appeared" if old is None else "vanished" if new is None else "moved",
        baseline_calls=old.calls if old else 0,
        now_calls=new.calls if new else 0,
        baseline_s=scale * old.time_s if old else 0.0,
        now_s=new.time_s if new else 0.0,
    )
