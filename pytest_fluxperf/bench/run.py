"""One run of tests: what came out of it, the one document that its reports are made of, the baselines that it moves.

The only process of a suite, the controller of pytest-xdist and ``fluxperf ab`` each have one. It measures nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import msgspec

import pytest_fluxperf
from pytest_fluxperf.baseline import published
from pytest_fluxperf.baseline.store import BaselineStore
from pytest_fluxperf.baseline.update import Change, UpdateMode
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.compare import tail_warning
from pytest_fluxperf.gate.policy import Mode, Policy
from pytest_fluxperf.machine import software
from pytest_fluxperf.report import ReportPaths, journal, write_reports
from pytest_fluxperf.results import (
    RESULTS_FORMAT,
    Against,
    Environment,
    Hardware,
    PublishedFigure,
    Record,
    Result,
    RunDocument,
    Skipped,
)


@dataclass(frozen=True)
class Origin:
    """What a run is of: where it ran, what was asked for, and against what it judges."""

    gpu: str
    """Name of the baseline folder."""
    hardware: Hardware
    command: tuple[str, ...]
    baselines: Path | None = None
    """Folder of all baselines; None where it is not known."""
    against: Against = "baselines"
    mode: Mode = "absolute"
    """Whose defaults a new baseline's prior is."""
    strict: bool = False
    update: UpdateMode | None = None
    caveats: tuple[str, ...] = ()
    """What the model under test cannot tell."""
    model: str = ""
    """Where the model comes from, as ``--model`` takes it."""
    random: bool = False
    """Whether the model has random weights, of which the caveats tell."""


_DECODING = threading.Lock()
"""msgspec (0.22) learns a type when it first meets it; two threads that did so at once crashed the interpreter."""


class Envelope(Record, frozen=True, kw_only=True):
    """What the process that measures tells the one that reports, with the report of a test or at its own end."""

    outcome: Result | Skipped | None = None
    environments: dict[str, Environment] = msgspec.field(default_factory=dict)
    """What it measured in, by digest."""
    configurations: int = 0
    """fluxperf tests that it selected."""
    warnings: tuple[str, ...] = ()
    """What is to be known of the run."""

    def encode(self) -> dict[str, Any]:
        """As plain builtins, for another process; ``kind`` in the outcome says what it is."""
        encoded: dict[str, Any] = msgspec.to_builtins(self)
        return encoded

    @classmethod
    def decode(cls, encoded: Mapping[str, Any]) -> Self:
        """The envelope that another process has encoded; xdist's controller asks from a thread for each worker."""
        with _DECODING:
            return msgspec.convert(encoded, cls)


@dataclass(frozen=True)
class Ending:
    """How a run ended."""

    document: RunDocument
    reports: ReportPaths | None
    """None where they could not be written."""
    errors: tuple[str, ...]
    """What could not be moved or written."""
    refused: bool
    """Whether a baseline that was to be moved was not."""

    @property
    def gated_nothing(self) -> bool:
        """True of a run that had a duty to judge and judged nothing."""
        return not self.document.gated and not (self.document.update and self.document.results)

    @property
    def failed(self) -> bool:
        """Whether the run fails, whatever its tests did."""
        return bool(self.errors) or self.refused or self.gated_nothing


class Run:
    """Collects results and skips; ``name`` is that of its folder, ``origin`` is asked when a document is made.

    ``origin`` may raise :class:`FluxPerfError` for a device or model that is not there.
    """

    def __init__(self, name: str, origin: Callable[[], Origin]) -> None:
        self.name = name
        self._make_origin = origin
        self._start = time.monotonic()
        self._time_utc = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        self.selected: set[str] = set()
        """Tests of which something was heard."""
        self.configurations = 0
        """fluxperf tests that were selected, which may be more: an interrupted run never reaches some."""
        self.results: dict[str, Result] = {}
        self.skipped: dict[str, Skipped] = {}
        self.environments: dict[str, Environment] = {}
        """What results were measured in, by digest; xdist's workers may differ."""
        self._saved: set[object] = set()
        """What the journal has: its own path, digests of environments, published figures."""
        self.warnings: list[str] = []
        """What whoever conducts the run, or measures in it, has to say of it."""

    @cached_property
    def origin(self) -> Origin:
        """What this run is of."""
        return self._make_origin()

    def receive(self, envelope: Envelope) -> None:
        """Take over what a process that measures has told."""
        self.environments |= envelope.environments
        self.configurations = max(self.configurations, envelope.configurations)
        self.warnings.extend(envelope.warnings)
        if envelope.outcome is not None:
            self.add(envelope.outcome)

    def add(self, outcome: Result | Skipped) -> None:
        """Take what came of a test; of one that ran again the last counts."""
        self.selected.add(outcome.test)
        if isinstance(outcome, Result):
            self.results[outcome.test] = outcome
        else:
            self.skipped[outcome.test] = outcome

    def save(self, folder: Path, outcome: Result | Skipped) -> None:
        """Add ``outcome`` to the journal in ``folder``: a run that is killed loses only what it has not finished.

        Raises :class:`FluxPerfError` when that cannot be written.
        """
        path = folder / journal.NAME
        results = (outcome,) if isinstance(outcome, Result) else ()
        figures, complaints = self._published(results)
        entry = journal.Entry(
            outcome=outcome,
            collected=max(len(self.selected), self.configurations),
            duration_s=self._elapsed_s,
            environments={digest: one for digest, one in self.environments.items() if digest not in self._saved},
            warnings=(*self._caches(results), *complaints),
            published=tuple(figure for figure in figures if figure not in self._saved),
        )
        try:
            if not self._saved:
                journal.add_line(path, msgspec.structs.replace(self.document(), results=(), skipped=(), gated=0))
                self._saved.add(path)
            journal.add_line(path, entry)
        except OSError as error:
            raise FluxPerfError(f"cannot write {path}: {error.strerror or error}") from error
        self._saved |= {*entry.environments, *entry.published}

    def end(self, folder: Path) -> Ending:
        """Move baselines, where that was asked for, and write the reports."""
        document, errors, moved = self.document(), [], list[Change]()
        if document.update:
            try:
                moved = self.move_baselines(document.results, folder)
            except FluxPerfError as error:  # the report of what was measured is not lost with them
                errors.append(f"no baseline was moved: {error}")
                document = msgspec.structs.replace(document, update=None)
        changes = tuple(change.record for change in moved)
        document = msgspec.structs.replace(document, changes=changes, warnings=(*document.warnings, *errors))
        reports = None
        try:
            reports = write_reports(document, folder)
            with suppress(OSError):  # beside a document it is not read
                (folder / journal.NAME).unlink()
        except FluxPerfError as error:  # the terminal still tells the verdicts
            errors.append(str(error))
        return Ending(document, reports, tuple(errors), any(change.action == "refused" for change in moved))

    def move_baselines(self, results: Sequence[Result], pictures: Path) -> list[Change]:
        """Do what ``--fluxperf-update`` or ``--fluxperf-append`` asks for; says what happened to each baseline.

        ``pictures`` is the folder that the paths of the results' pictures are relative to. Raises
        :class:`FluxPerfError` when a baseline cannot be written.
        """
        origin = self.origin
        assert origin.update is not None
        assert origin.baselines is not None
        policy = Policy.of(origin.mode)
        return BaselineStore(origin.baselines, origin.gpu).update(
            results,
            origin.update,
            hardware=origin.hardware,
            environments=self.environments,
            tau0=policy.tau0,
            nu0=policy.nu0,
            pictures=pictures,
        )

    def document(self) -> RunDocument:
        """Everything the reports are made of."""
        origin = self.origin
        results = tuple(self.results[test] for test in sorted(self.results))
        figures, complaints = self._published(results)
        environment = next(iter(self.environments.values()), None) or software.capture()
        collected = max(len(self.selected), self.configurations)
        return RunDocument(
            format=RESULTS_FORMAT,
            session=self.name,
            time_utc=self._time_utc,
            plugin=pytest_fluxperf.__version__,
            gpu=origin.gpu,
            hardware=origin.hardware,
            environment=environment,
            environments=self.environments if len(self.environments) > 1 else {},
            strict=origin.strict,
            command=origin.command,
            against=origin.against,
            collected=collected,
            gated=sum(result.judgement.gated for result in results),
            results=results,
            skipped=tuple(self.skipped[test] for test in sorted(self.skipped)),
            warnings=(*origin.caveats, *self._remarks(results), *complaints, *self.warnings),
            duration_s=self._elapsed_s,
            update=origin.update,
            published=figures,
        )

    @property
    def _elapsed_s(self) -> float:
        return round(time.monotonic() - self._start, 3)

    def _remarks(self, results: Sequence[Result]) -> Iterator[str]:
        """What is to be known of the results as a whole."""
        yield from self._caches(results)
        if self.origin.against == "baselines" and (tail := tail_warning(results)):
            yield tail

    def _caches(self, results: Sequence[Result]) -> Iterator[str]:
        if not self.origin.random:
            yield from _unusual_caches(results, self.origin.model)

    @cached_property
    def _figures(self) -> tuple[published.Published, ...]:
        return published.load(self.origin.baselines) if self.origin.baselines else ()

    def _published(self, results: Sequence[Result]) -> tuple[tuple[PublishedFigure, ...], list[str]]:
        """Published figures of the same workloads, or why there are none."""
        try:
            return published.beside(self._figures, (result.workload for result in results)), []
        except FluxPerfError as error:  # no reason to lose what was measured
            return (), [f"published figures are left out: {error}"]


def _unusual_caches(results: Sequence[Result], model: str) -> Iterator[str]:
    """Step caches whose hits are not those that a serving team would see."""
    if any("cache_schedule" in result.measurement.facts for result in results):
        yield (
            "step caches with computed=K follow a fixed schedule, whatever their threshold says: a way to measure, "
            "never one to serve"
        )
    if any(result.measurement.facts.get("teacache_fitted_for_model") is False for result in results):
        yield (
            "TeaCache decides by the coefficients of FLUX.1-dev, which were not fitted to this model; fit them by: "
            f"fluxperf calibrate teacache --model {model}"
        )
