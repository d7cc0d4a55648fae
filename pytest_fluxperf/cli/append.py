"""``fluxperf append``: recorded sessions added to the baselines."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from pytest_fluxperf.cli.arguments import Commands, add_baselines, add_results
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.results import BASELINE, NONE, RunDocument


def add_parser(commands: Commands) -> None:
    """What the command takes."""
    parser = commands.add_parser(
        "append",
        help="add recorded sessions to the baselines, as --fluxperf-append would have; exits 1 if a test's is refused",
    )
    add_results(parser)
    add_baselines(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Add the sessions, as ``--fluxperf-append`` would have done in each; 1 if a test's is refused.

    Raises:
        FluxPerfError: a document holds no session's results (then nothing is added), or a picture is missing.
    """
    from pytest_fluxperf.report import load_document

    documents = [load_document(path) for path in options.results]
    for path, document in zip(options.results, documents, strict=True):
        _check(path, document)
    refused = [
        _add(path, document, options.baselines) for path, document in zip(options.results, documents, strict=True)
    ]
    return int(any(refused))


def _check(path: Path, document: RunDocument) -> None:
    """Raise FluxPerfError for what no baseline takes."""
    if document.against != "baselines":
        command = "ab" if document.against == "environment" else "compare"
        raise FluxPerfError(f"{path}: holds a comparison by fluxperf {command}, which no baseline takes")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", document.gpu, re.ASCII):
        raise FluxPerfError(f"{path}: {document.gpu!r} is no name of a GPU's folder")


def _add(path: Path, document: RunDocument, baselines: Path) -> bool:
    """Add one session and print what became of each test; whether one was refused."""
    from pytest_fluxperf.baseline.store import BaselineStore
    from pytest_fluxperf.gate.policy import Policy
    from pytest_fluxperf.report.text import visible

    if not document.results:
        print(f"{path}: nothing was measured")
    policy = Policy.of("relative" if _gated_speedups(document) else "absolute")
    changes = BaselineStore(baselines, document.gpu).update(
        document.results,
        "append",
        hardware=document.hardware,
        environments=document.measured_in,
        tau0=policy.tau0,
        nu0=policy.nu0,
        pictures=path if path.is_dir() else path.parent,
    )
    for change in changes:
        print(visible(change.record.line))
    return any(change.action == "refused" for change in changes)


def _gated_speedups(document: RunDocument) -> bool:
    """Whether the session was in relative mode; where no test has a reference to be timed beside, what ``auto`` is."""
    paired = [
        r for r in document.results if r.measurement.generations and r.reference not in (NONE, BASELINE, r.recipe)
    ]
    if paired:
        return any(g.reference_latency_s for r in paired for g in r.measurement.generations)
    return document.hardware.kind == "cpu"
