"""``fluxperf ab``: two environments in turns, from the command line to the report."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest_fluxperf
from pytest_fluxperf.ab.conductor import Conductor
from pytest_fluxperf.ab.outcome import result_of
from pytest_fluxperf.ab.process import find_python
from pytest_fluxperf.ab.trial import Mode, Terms
from pytest_fluxperf.baseline.update import fails
from pytest_fluxperf.cli.processes import make_folder, refuse_own_options
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.report import write_reports
from pytest_fluxperf.report.document import new_run_name
from pytest_fluxperf.report.terminal import terminal_summary
from pytest_fluxperf.results import RESULTS_FORMAT, Result, RunDocument, Skipped


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    old: str
    new: str
    arguments: tuple[str, ...]
    reports: Path
    timeout_s: float
    mode: Mode
    go_on: bool


def ab(request: Request) -> int:
    """Compare, write the report, and print the summary; 1 when something failed or nothing was judged."""
    refuse_own_options(request.arguments, "a comparison of two environments")
    start, run = time.monotonic(), new_run_name()
    old, new = find_python(request.old), find_python(request.new)
    folder = make_folder(request.reports, run)
    terms = Terms(
        old=old,
        new=new,
        arguments=request.arguments,
        folder=folder,
        timeout_s=request.timeout_s,
        mode=request.mode,
        go_on=request.go_on,
    )
    conductor = Conductor(terms, show=lambda line: print(line, flush=True))
    trials = conductor.run()
    found = conductor.collected
    assert found is not None
    assert found.hardware is not None
    made = [result_of(trial, found.hardware, folder, found.metrics) for trial in trials]
    results = tuple(result for result in made if isinstance(result, Result))
    environment = next((trial.environments["new"] for trial in trials if "new" in trial.environments), None)
    if environment is None:
        raise FluxPerfError(conductor.ended or f"the new environment ran none of the tests; see the logs in {folder}")
    unreached = sum(isinstance(one, Skipped) and not trial.skipped for trial, one in zip(trials, made, strict=True))
    ended = [f"the comparison ended early, {unreached} not compared: {conductor.ended}"] if conductor.ended else []
    lost = [
        f"{trial.test}: {trial.trouble.verdict}: {trial.trouble.message}"
        for trial, one in zip(trials, made, strict=True)
        if trial.trouble and not isinstance(one, Result)
    ]
    document = RunDocument(
        format=RESULTS_FORMAT,
        session=run,
        time_utc=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        plugin=pytest_fluxperf.__version__,
        gpu=found.gpu,
        hardware=found.hardware,
        environment=environment,
        command=("fluxperf", *sys.argv[1:]),
        collected=len(made),
        gated=sum(result.judgement.gated for result in results),
        results=results,
        skipped=tuple(skipped for skipped in made if isinstance(skipped, Skipped)),
        warnings=(*found.caveats, *ended, *lost),
        duration_s=round(time.monotonic() - start, 3),
    )
    return _reported(document, folder, failed=bool(lost), strict=found.strict)


def _reported(document: RunDocument, folder: Path, *, failed: bool, strict: bool) -> int:
    """Write and print it; the exit status. ``failed`` where something failed that left no result."""
    paths = write_reports(document, folder)
    for line in terminal_summary(document, shutil.get_terminal_size().columns):
        print(line)
    if not document.gated:
        print("fluxperf: this comparison gated nothing, so it fails")
    print(f"report: {os.path.relpath(paths.html)}")
    failed |= any(fails(r, strict=strict, update=None, hardware=document.hardware) for r in document.results)
    return int(failed or not document.gated or (strict and bool(document.skipped)))
