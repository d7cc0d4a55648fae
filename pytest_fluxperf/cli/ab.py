"""``fluxperf ab``: two environments in turns, from the command line to the report."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest_fluxperf
from pytest_fluxperf.cli.arguments import Commands
from pytest_fluxperf.cli.processes import add_process_options, make_folder, refuse_own_options
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.results import RESULTS_FORMAT, Result, RunDocument, Skipped


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    old: str
    new: str
    arguments: tuple[str, ...]
    reports: Path
    timeout_s: float
    mode: Literal["auto", "interleaved", "alternating"]
    go_on: bool
    command: tuple[str, ...] = ()
    """The whole command line, for the document."""


def add_parser(commands: Commands) -> None:
    """What the command takes."""
    parser = commands.add_parser(
        "ab",
        help="compare two environments on one device, their generations in turns; exits 1 on a regression",
        usage="fluxperf ab --old PATH --new PATH [options] -- PYTEST_ARGUMENTS",
    )
    parser.add_argument("--old", required=True, metavar="PATH", help="Python or virtual environment to compare with")
    parser.add_argument("--new", required=True, metavar="PATH", help="Python or virtual environment under test")
    parser.add_argument(
        "--mode",
        choices=("auto", "interleaved", "alternating"),
        default="auto",
        help="whether generations take turns, or whole processes (auto: generations where two copies fit in memory)",
    )
    parser.add_argument(
        "--all", action="store_true", help="compare every test (else three confirmed regressions end it)"
    )
    add_process_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compare as the command line says."""
    return ab(
        Request(
            old=options.old,
            new=options.new,
            arguments=options.pytest,
            reports=options.reports,
            timeout_s=options.timeout,
            mode=options.mode,
            go_on=options.all,
            command=options.command,
        )
    )


def ab(request: Request) -> int:
    """Compare, write the report, and print the summary; 1 when something failed or nothing was judged."""
    from pytest_fluxperf.ab.conductor import Conductor
    from pytest_fluxperf.ab.outcome import result_of
    from pytest_fluxperf.ab.process import find_python
    from pytest_fluxperf.ab.trial import Terms
    from pytest_fluxperf.report.document import new_run_name

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
        command=request.command,
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
    from pytest_fluxperf.baseline.update import fails
    from pytest_fluxperf.report import write_reports
    from pytest_fluxperf.report.terminal import terminal_summary

    paths = write_reports(document, folder)
    for line in terminal_summary(document, shutil.get_terminal_size().columns):
        print(line)
    if not document.gated:
        print("fluxperf: this comparison gated nothing, so it fails")
    print(f"report: {os.path.relpath(paths.html)}")
    failed |= any(fails(r, strict=strict, update=None, hardware=document.hardware) for r in document.results)
    return int(failed or not document.gated or (strict and bool(document.skipped)))
