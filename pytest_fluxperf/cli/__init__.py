"""The ``fluxperf`` command: what is done with measurements outside of a pytest run.

Every command is a module of this folder. Its ``add_parser`` says what the command takes, its ``run`` does the work and
returns the exit status; what takes long to import, ``run`` imports.
"""

from __future__ import annotations

import argparse
import os
import sys

from pytest_fluxperf.cli import ab, append, calibrate, comment, compare, doctor, gate_check, recipes, report
from pytest_fluxperf.errors import FluxPerfError

COMMANDS = (report, compare, append, comment, ab, gate_check, recipes, doctor, calibrate)
"""In the order of ``fluxperf --help``."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command that ``arguments`` name (None: those of this process).

    Exit status: 0 fine, 1 a regression (``compare``, ``ab``), a failed check (``doctor``) or a refused session
    (``append``), 4 a mistake in the input, said in one line, 130 interrupted, 141 when nobody reads the output to its
    end (``| head``): as a shell tells the signals' numbers.
    """
    words = sys.argv[1:] if arguments is None else arguments
    options = _parse(words)
    try:
        status = int(options.run(options))
        sys.stdout.flush()
    except FluxPerfError as error:
        from pytest_fluxperf.report.text import printed

        print(f"fluxperf: {printed(str(error), 10_000)}", file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        print("fluxperf: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _unread():
            raise
        return 141
    return status


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; what it reads holds the command's ``run``."""
    parser = argparse.ArgumentParser(
        prog="fluxperf", description="What is done with measurements outside of a pytest run."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def _parse(words: list[str]) -> argparse.Namespace:
    """The options; ``command`` is the whole command line, ``pytest`` what stands behind ``--``."""
    parser = make_parser()
    cut = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:cut])
    options.command = ("fluxperf", *words)
    options.pytest = tuple(words[cut + 1 :])
    if options.pytest and not getattr(options, "takes_pytest", False):
        parser.error("only ab and gate-check take pytest's arguments after --")
    return options


def _unread() -> bool:
    """Whether it is standard output that nobody reads any more; what is left of it then goes nowhere."""
    try:
        print(flush=True)  # a flush alone may have nothing left to write
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more
        return True
    return False
