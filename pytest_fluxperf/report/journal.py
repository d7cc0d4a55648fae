"""The journal of a run that has not ended: one line a test, from which a killed run's document is made.

``journal.jsonl`` lies where ``results.json`` will. Its first line is the document before any test, every other one an
:class:`Entry`. Lines are only added, each by one write and without waiting for the disk: what a process has written
outlives it, and only a machine that goes down may take the last lines along.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.report.text import printed
from pytest_fluxperf.results import Environment, PublishedFigure, Record, Result, RunDocument, Skipped

NAME = "journal.jsonl"


class Entry(Record, frozen=True, kw_only=True):
    """What came of one test, and what the run learnt with it."""

    outcome: Result | Skipped
    collected: int
    """fluxperf tests that were selected, as far as it was known."""
    duration_s: float
    """Of the run until then."""
    environments: dict[str, Environment] = msgspec.field(default_factory=dict)
    """Those that no line before has, by digest."""
    warnings: tuple[str, ...] = ()
    published: tuple[PublishedFigure, ...] = ()
    """Those that no line before has."""


def add_line(path: Path, line: RunDocument | Entry) -> None:
    """Add a line to the journal ``path``; one that does not fit on the disk is taken back. Raises OSError."""
    raw = msgspec.json.encode(line) + b"\n"
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        if file.write(raw) != len(raw):
            file.truncate(before)
            raise OSError(errno.ENOSPC, "No space left on device", str(path))


def read_entries(lines: Sequence[bytes], source: str) -> list[Entry]:
    """The entries in ``lines``, the second and later ones of ``source``; raises FluxPerfError."""
    decoder = msgspec.json.Decoder(Entry)
    entries = []
    for number, line in enumerate(lines, start=2):
        try:
            entries.append(decoder.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FluxPerfError(
                f"is damaged: {printed(str(error), 200)}",
                remedy="run the tests again",
                file=printed(source, 300),
                place=f"line {number}",
            ) from None
    return entries


def fold(start: RunDocument, entries: Sequence[Entry]) -> RunDocument:
    """The document of a run that began as ``start`` and got as far as ``entries``; of a test the last one counts."""
    results = {entry.outcome.test: entry.outcome for entry in entries if isinstance(entry.outcome, Result)}
    skipped = {entry.outcome.test: entry.outcome for entry in entries if isinstance(entry.outcome, Skipped)}
    environments = {digest: one for entry in entries for digest, one in entry.environments.items()}
    collected = max((entry.collected for entry in entries), default=start.collected)
    moved = "; no baseline was moved" if start.update else ""
    unfinished = (
        "the session had not ended when this was written; tests that were done: "
        f"{len(results) + len(skipped)} of {collected}{moved}"
    )
    return msgspec.structs.replace(
        start,
        environment=next(iter(environments.values()), start.environment),
        environments=environments if len(environments) > 1 else {},
        collected=collected,
        gated=sum(result.judgement.gated for result in results.values()),
        results=tuple(results[test] for test in sorted(results)),
        skipped=tuple(skipped[test] for test in sorted(skipped)),
        warnings=tuple(dict.fromkeys((unfinished, *start.warnings, *(w for entry in entries for w in entry.warnings)))),
        duration_s=entries[-1].duration_s if entries else start.duration_s,
        update=None,
        published=tuple(dict.fromkeys(figure for entry in entries for figure in entry.published)),
    )
