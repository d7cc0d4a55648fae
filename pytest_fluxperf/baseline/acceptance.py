"""Which results fail a run: their verdict, and whether an update takes them as the new baseline."""

from __future__ import annotations

from pytest_fluxperf.baseline.update import crossed_floor, other_hardware
from pytest_fluxperf.results import FAILING, Hardware, Result


def accepted(result: Result, update: str | None, hardware: Hardware) -> bool:
    """True when ``--fluxperf-update`` takes a result as the new baseline, so that the test passes."""
    verdict, stored = result.judgement.verdict, result.baseline
    if update is None or verdict in ("broken", "invalid") or crossed_floor(result):
        return False
    if update == "all":
        return True
    if update == "failed":
        return verdict in ("regressed", "no baseline")
    if verdict != "no baseline":
        return False
    # What is stored and cannot be compared is replaced by "new" alone, and on the same hardware.
    return stored is None or (update == "new" and not other_hardware(stored, result, hardware))


def fails(result: Result, *, strict: bool, update: str | None, hardware: Hardware) -> bool:
    """Whether the test fails."""
    if accepted(result, update, hardware):
        return False
    verdict = result.judgement.verdict
    return verdict in FAILING or (strict and verdict == "inconclusive")
