"""``fluxperf ab``: two environments in turns, from the command line to the report."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_fluxperf.cli.arguments import Commands
from pytest_fluxperf.cli.processes import add_process_options, make_folder, refuse_own_options
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.results import Environment, Skipped

if TYPE_CHECKING:
    from pytest_fluxperf.ab.conductor import Conductor
    from pytest_fluxperf.ab.trial import Trial
    from pytest_fluxperf.bench.run import Ending, Origin, Run


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
    from pytest_fluxperf.ab.process import find_python
    from pytest_fluxperf.ab.trial import Terms
    from pytest_fluxperf.bench.run import Run
    from pytest_fluxperf.report.document import new_run_name

    refuse_own_options(request.arguments, "a comparison of two environments")
    name = new_run_name()
    old, new = find_python(request.old), find_python(request.new)
    folder = make_folder(request.reports, name)
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
    run = Run(name, lambda: _origin(conductor, request.command))
    trials = conductor.run()
    run.environments |= _environments(trials)
    if not run.environments:
        raise FluxPerfError(conductor.ended or f"the new environment ran none of the tests; see the logs in {folder}")
    _collect(run, trials, conductor, folder)
    return _report(run.end(folder))


def _origin(conductor: Conductor, command: tuple[str, ...]) -> Origin:
    """What the run is of, as the processes that were compared have told."""
    from pytest_fluxperf.bench.run import Origin

    found = conductor.collected
    assert found is not None
    assert found.hardware is not None
    return Origin(
        gpu=found.gpu,
        hardware=found.hardware,
        command=command,
        against="environment",
        baselines=Path(found.baselines) if found.baselines else None,
        strict=found.strict,
        caveats=found.caveats,
        model=found.model,
        random=found.random,
    )


def _environments(trials: Sequence[Trial]) -> dict[str, Environment]:
    """The new environment by digest, as it was when the tests were measured, or else when they were collected."""
    known = [trial for trial in trials if "new" in trial.environments]
    measured = [trial for trial in known if trial.new]
    found = [trial.environments["new"] for trial in measured or known[:1]]
    return {environment.digest: environment for environment in found}


def _collect(run: Run, trials: Sequence[Trial], conductor: Conductor, folder: Path) -> None:
    """Take what came of the trials into the run."""
    from pytest_fluxperf.ab.outcome import result_of

    origin, found = run.origin, conductor.collected
    assert found is not None
    unreached = 0
    for trial in trials:
        run.selected.add(trial.test)
        outcome = result_of(trial, origin.hardware, folder, found.metrics, strict=origin.strict)
        unreached += not trial.trouble and not trial.skipped and trial.interleaved is None
        if trial.trouble and isinstance(outcome, Skipped):  # nothing is known of it that a result could hold
            run.warnings.append(f"{trial.test}: {trial.trouble.verdict}: {trial.trouble.message}")
        else:
            run.add(outcome)
    if conductor.ended:
        run.warnings.append(f"the comparison ended early, {unreached} not compared: {conductor.ended}")


def _report(ending: Ending) -> int:
    """Print the summary of what was written; the exit status."""
    from pytest_fluxperf.report.terminal import terminal_summary
    from pytest_fluxperf.report.view import overview

    document = ending.document
    for line in (*terminal_summary(document, shutil.get_terminal_size().columns), *ending.errors):
        print(line)
    if ending.gated_nothing:
        print("fluxperf: this comparison gated nothing, so it fails")
    if ending.reports:
        print(f"report: {os.path.relpath(ending.reports.html)}")
    view = overview(document)
    return int(ending.failed or view.failed > 0 or view.unmeasured > 0)
