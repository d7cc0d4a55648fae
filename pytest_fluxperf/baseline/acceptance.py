"""Which results fail a run: their verdict, and whether an update takes them as the new baseline."""

from __future__ import annotations

from pytest_fluxperf.baseline.environment import hardware_differences
from pytest_fluxperf.results import FAILING, Baseline, Hardware, Result, Verdict


def accepted(verdict: Verdict, update: str | None, stored: Baseline | None, hardware: Hardware) -> bool:
    """True when ``--fluxperf-update`` takes a result of this verdict as the new baseline, so that the test passes."""
    if update is None or verdict in ("broken", "invalid"):
        return False
    if update == "all":
        return True
    if update == "failed":
        return verdict in ("regressed", "no baseline")
    if verdict != "no baseline":
        return False
    # What is stored and cannot be compared is replaced by "new" alone, and on the same hardware.
    return stored is None or (update == "new" and not hardware_differences(stored.hardware, hardware))


def fails(result: Result, *, strict: bool, update: str | None, hardware: Hardware) -> bool:
    """Whether the test fails."""
    verdict = result.judgement.verdict
    if accepted(verdict, update, result.baseline, hardware):
        return False
    return verdict in FAILING or (strict and verdict == "inconclusive")
