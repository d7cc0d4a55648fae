"""What every report says about a run, computed once: rows, counts, the sentence, what moved underneath.

All numbers come from a :class:`~pytest_fluxperf.results.RunDocument`; nothing here judges.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_fluxperf.machine.software import Difference, differences
from pytest_fluxperf.report.prompts import by_prompt, ratios
from pytest_fluxperf.report.row import Row
from pytest_fluxperf.report.text import printed, test_name
from pytest_fluxperf.results import (
    SEVERITY,
    Environment,
    Result,
    RunDocument,
    Verdict,
)


@dataclass(frozen=True)
class Overview:
    """A whole run, or several of different machines side by side."""

    documents: tuple[RunDocument, ...]
    machines: tuple[str, ...]
    """Short name of each document's machine."""
    rows: tuple[Row, ...]
    """Worst first."""
    counts: dict[Verdict, int]
    differences: tuple[Difference, ...]
    """Suspects first."""
    environments: tuple[Environment, ...]
    """The baselines' environments (of their newest runs), the most frequent first."""

    @property
    def gated(self) -> int:
        """Tests that were judged against a baseline."""
        return sum(d.gated for d in self.documents)

    @property
    def collected(self) -> int:
        """Tests that were selected."""
        return sum(d.collected for d in self.documents)

    @property
    def unmeasured(self) -> int:
        """Tests that were selected and have neither a result nor a reason to be skipped: the run ended before."""
        return sum(map(unmeasured_of, self.documents))

    @property
    def failed(self) -> int:
        """Tests that failed."""
        return sum(row.fails for row in self.rows)

    @property
    def tone(self) -> Verdict:
        """The verdict that colours the whole run: the worst that occurred, ``invalid`` when nothing gated.

        What was not measured is undecided.
        """
        # A run that moved baselines had no duty to gate.
        if self.gated == 0 and not any(d.update for d in self.documents):
            return min([*self.counts, "invalid"], key=SEVERITY.__getitem__)
        undecided: list[Verdict] = ["inconclusive"] if self.unmeasured else []
        return min([*self.counts, *undecided], key=SEVERITY.__getitem__, default="passed")

    def differences_of(self, row: Row) -> tuple[Difference, ...]:
        """What differs for one test, between its own machine now and its own baseline's newest run.

        Nothing where the packages were cleared: they would be blamed.
        """
        if row.result.judgement.packages_cleared:
            return ()
        before = row.result.baseline.newest_environment if row.result.baseline else None
        return differences([before] if before else [], [row.document.environment])

    @property
    def gated_text(self) -> str:
        """``gated N of M``, the words that every report uses."""
        return f"gated {self.gated} of {self.collected}"


def unmeasured_of(document: RunDocument) -> int:
    """Tests that were selected and have neither a result nor a reason to be skipped: the run ended before."""
    return max(0, document.collected - len(document.results) - len(document.skipped))


def overview(documents: RunDocument | Sequence[RunDocument]) -> Overview:
    """Everything the reports need, from one document or one for each machine."""
    parts = (documents,) if isinstance(documents, RunDocument) else tuple(documents)
    machines = machine_labels(parts)
    rows = [
        row
        for part, machine in zip(parts, machines, strict=True)
        for row in _rows(part, machine if len(parts) > 1 else "")
    ]
    rows.sort(key=lambda row: (SEVERITY[row.verdict], -row.slowdown, row.result.test))
    tally = Counter(row.verdict for row in rows)
    counts = {verdict: tally[verdict] for verdict in SEVERITY if tally[verdict]}
    environments = _baseline_environments(rows)
    return Overview(
        parts, machines, tuple(rows), counts, differences(environments, [d.environment for d in parts]), environments
    )


def machine_labels(documents: Sequence[RunDocument]) -> tuple[str, ...]:
    """A short name for each machine, no two alike: of equal GPUs torch, the time or at last a number tells which."""
    labels = [machine_label(document) for document in documents]
    for traits in (
        [printed(f"torch {d.environment.packages.get('torch', 'absent')}", 80) for d in documents],
        [printed(document.time_utc, 40) for document in documents],
        [f"no. {i + 1}" for i in range(len(documents))],
    ):
        repeated = {label for label, n in Counter(labels).items() if n > 1}
        labels = [f"{a} · {b}" if a in repeated else a for a, b in zip(labels, traits, strict=True)]
    return tuple(labels)


def machine_label(document: RunDocument) -> str:
    """Short name of a machine: the baseline folder's, with the MIG profile where there is one."""
    profile = document.hardware.mig_profile
    return printed(f"{document.gpu} {profile}" if profile else document.gpu, 80)


def _rows(document: RunDocument, machine: str) -> Iterable[Row]:
    references: dict[tuple[str, str], Result] = {}
    # In turns of two environments every test has blocks of its own, minutes and states of the device away from others'.
    for result in document.results if document.against != "environment" else ():
        if result.recipe == result.reference:
            references.setdefault((result.reference, result.workload.digest), result)
    recipes = Counter(result.recipe for result in document.results)
    names = Counter(test_name(result.test) for result in document.results)
    for result in document.results:
        reference = references.get((result.reference, result.workload.digest))
        name = test_name(result.test)
        label = result.recipe if result.recipe and recipes[result.recipe] == 1 else None
        yield Row(
            result, document, machine, label or (name if names[name] == 1 else result.test), _speedup(result, reference)
        )


def _speedup(result: Result, reference: Result | None) -> float | None:
    """Median over prompts of the reference recipe's latency over this one's, each timed beside it where it was."""
    made = result.measurement.generations
    found = ratios((g.reference_latency_s for g in made), (g.latency_s for g in made))
    if not found and reference is not None:
        found = ratios(by_prompt(reference), by_prompt(result))
    return statistics.median(found) if found else None


def _baseline_environments(rows: Iterable[Row]) -> tuple[Environment, ...]:
    found = [row.result.baseline.newest_environment for row in rows if row.result.baseline is not None]
    environments = {e.digest: e for e in found if e is not None}
    tally = Counter(e.digest for e in found if e is not None)
    return tuple(environments[digest] for digest, _ in tally.most_common())
