"""What ``ab`` and ``gate-check`` share: pytest's arguments for other processes, and a folder for what they write."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pytest_fluxperf.cli.arguments import seconds
from pytest_fluxperf.errors import FluxPerfError

_NOT_HERE = ("--fluxperf-update", "--fluxperf-append", "--fluxperf-old-python", "--fluxperf-reports")


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """``--reports`` and ``--timeout``, and pytest's arguments behind ``--``."""
    parser.add_argument(
        "--reports",
        type=Path,
        default=Path("reports"),
        metavar="DIR",
        help="parent of this run's folder of reports and logs (default: reports)",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=1800.0,
        metavar="SECONDS",
        help="longest silence of a process, loading and compiling included (default: 1800)",
    )
    parser.set_defaults(takes_pytest=True)


def refuse_own_options(arguments: Sequence[str], where: str) -> None:
    """Raise FluxPerfError for an option of pytest's command line that has no place in ``where``."""
    for argument in arguments:
        if (option := argument.partition("=")[0]) in _NOT_HERE:
            raise FluxPerfError(f"{option} has no place in {where}")


def make_folder(reports: Path, run: str) -> Path:
    """The folder of a run under ``reports``, made; raises FluxPerfError."""
    folder = reports / run
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise FluxPerfError(
            f"the reports folder {reports} cannot be written ({error.strerror or error}); choose another by --reports"
        ) from None
    return folder.absolute()
