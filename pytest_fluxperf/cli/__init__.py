"""The ``fluxperf`` command: what is done with measurements outside of a pytest run."""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path

from pytest_fluxperf.errors import FluxPerfError


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Exit status: 0 fine, 1 a regression (``compare``, ``ab``), a failed check (``doctor``, ``cost``) or a refused
    session (``append``), 4 a mistake in the input, told in one line, 130 interrupted, 141 when nobody reads the output
    to its end (``| head``): as a shell tells the signals' numbers.
    """
    parser = _parser()
    words = sys.argv[1:] if arguments is None else arguments
    cut = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:cut])
    options.pytest = tuple(words[cut + 1 :])
    if options.pytest and not getattr(options, "takes_pytest", False):
        parser.error("only ab and gate-check take pytest's arguments after --")
    try:
        status = int(options.run(options))
        sys.stdout.flush()
    except FluxPerfError as error:
        print(f"fluxperf: {error}", file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        print("fluxperf: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _unread():
            raise
        return 141
    return status


def _unread() -> bool:
    """Whether it is standard output that nobody reads any more; what is left of it then goes nowhere."""
    try:
        print(flush=True)  # a flush alone may have nothing left to write
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more
        return True
    return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fluxperf", description="What is done with measurements outside of a pytest run."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("report", help="render results.json again, also of several shards or machines")
    command.add_argument("results", type=Path, nargs="+", metavar="RESULTS.json", help="or the folder of a run")
    command.add_argument("--output", "-o", type=Path, metavar="FILE", help="default: standard output (not for html)")
    command.add_argument(
        "--format",
        metavar="FORM",
        help="html, md, junit, csv, bencher (Bencher Metric Format), github-action-benchmark, pytest-benchmark or "
        "annotations; "
        "default: what the name of FILE ends in, else md",
    )
    command.add_argument("--artifact-url", metavar="URL", help="md: where the full report can be fetched")
    command.add_argument(
        "--max-bytes",
        type=_bytes,
        default=65_536,
        metavar="N",
        help="md: leave out what does not fit (a GitHub comment takes 65536, a job summary 1048576)",
    )
    command.set_defaults(run=_report)

    command = commands.add_parser("compare", help="judge one recorded run against another; exits 1 on a regression")
    command.add_argument(
        "base", type=Path, metavar="BASE.json", help="results.json of the run to compare with, or its folder"
    )
    command.add_argument("new", type=Path, metavar="NEW.json", help="results.json of the run under test, or its folder")
    command.add_argument(
        "--max-slowdown",
        type=float,
        metavar="FRACTION",
        help="tolerated slow-down (0.02 is 2 %%; default: that of each test)",
    )
    command.add_argument(
        "--strict",
        action="store_true",
        help="inconclusive tests fail too, and so do tests of the first run that the second lacks",
    )
    command.set_defaults(run=_compare)

    command = commands.add_parser(
        "append",
        help="add recorded sessions to the baselines, as --fluxperf-append would have; exits 1 if a test's is refused",
    )
    command.add_argument("results", type=Path, nargs="+", metavar="RESULTS.json", help="or the folder of a run")
    command.add_argument("--baselines", type=Path, default=Path("baselines"), metavar="DIR")
    command.set_defaults(run=_append)

    command = commands.add_parser("comment", help="write or rewrite one comment on a GitHub pull request")
    command.add_argument("body", type=Path, metavar="FILE.md", help="what it says; see fluxperf report --format md")
    command.add_argument("--name", required=True, metavar="NAME", help="which comment: one a name and request")
    command.add_argument("--pull-request", type=int, required=True, metavar="N")
    command.set_defaults(run=_comment)

    command = commands.add_parser(
        "ab",
        help="compare two environments on one device, their generations in turns; exits 1 on a regression",
        usage="fluxperf ab --old PATH --new PATH [options] -- PYTEST_ARGUMENTS",
    )
    command.add_argument("--old", required=True, metavar="PATH", help="Python or virtual environment to compare with")
    command.add_argument("--new", required=True, metavar="PATH", help="Python or virtual environment under test")
    command.add_argument(
        "--mode",
        choices=("auto", "interleaved", "alternating"),
        default="auto",
        help="whether generations take turns, or whole processes (auto: generations where two copies fit in memory)",
    )
    command.add_argument(
        "--all", action="store_true", help="compare every test (else three confirmed regressions end it)"
    )
    _add_side_options(command)
    command.set_defaults(run=_ab, takes_pytest=True)

    command = commands.add_parser(
        "gate-check",
        help="measure this machine's noise in fresh processes, and the tolerance that it supports",
        usage="fluxperf gate-check [options] -- PYTEST_ARGUMENTS",
    )
    command.add_argument(
        "--processes", type=int, default=4, metavar="N", help="fresh processes to measure in (default: 4)"
    )
    _add_side_options(command)
    command.set_defaults(run=_gate_check, takes_pytest=True)

    command = commands.add_parser("recipes", help="list what a recipe can be made of, and what this machine lacks")
    command.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    command.set_defaults(run=_recipes)

    command = commands.add_parser("doctor", help="check device, packages, model and folders; exits 1 if one fails")
    command.add_argument("--gpu", default="auto", metavar="NAME", help="as pytest's --gpu (default: auto)")
    command.add_argument("--model", metavar="NAME|PATH", help="as --fluxperf-model (default: the device's)")
    command.add_argument("--baselines", type=Path, default=Path("baselines"), metavar="DIR")
    command.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR")
    command.set_defaults(run=_doctor)

    command = commands.add_parser("calibrate", help="fit a step cache to a model")
    command.add_argument("cache", choices=["teacache"])
    command.add_argument("--model", default="tiny", metavar="NAME|PATH")
    command.add_argument("--prompts", default="default", metavar="SET|FILE")
    command.add_argument("--steps", type=int)
    command.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    command.set_defaults(run=_calibrate)
    return parser


def _add_side_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--reports",
        type=Path,
        default=Path("reports"),
        metavar="DIR",
        help="parent of this run's folder of reports and logs (default: reports)",
    )
    command.add_argument(
        "--timeout",
        type=_seconds,
        default=1800.0,
        metavar="SECONDS",
        help="longest silence of a process, loading and compiling included (default: 1800)",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, not {text!r}")
    return seconds


def _bytes(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= 1000):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1000, not {text!r}")
    return int(text)


def _ab(options: argparse.Namespace) -> int:
    from pytest_fluxperf.cli.ab import Request, ab

    return ab(
        Request(
            old=options.old,
            new=options.new,
            arguments=options.pytest,
            reports=options.reports,
            timeout_s=options.timeout,
            mode=options.mode,
            go_on=options.all,
        )
    )


def _gate_check(options: argparse.Namespace) -> int:
    from pytest_fluxperf.cli.gatecheck import gate_check

    return gate_check(options.pytest, options.processes, options.reports, options.timeout)


def _report(options: argparse.Namespace) -> int:
    from pytest_fluxperf.cli.commands import report

    return report(
        options.results,
        options.output,
        options.format,
        artifact_url=options.artifact_url,
        max_bytes=options.max_bytes,
    )


def _compare(options: argparse.Namespace) -> int:
    from pytest_fluxperf.cli.commands import compare

    return compare(options.base, options.new, options.max_slowdown, strict=options.strict)


def _append(options: argparse.Namespace) -> int:
    from pytest_fluxperf.cli.commands import append

    return append(options.results, options.baselines)


def _comment(options: argparse.Namespace) -> int:
    from pytest_fluxperf.cli.comment import Repository, post

    print(post(options.body, options.name, options.pull_request, Repository.of_environment()))
    return 0


def _recipes(options: argparse.Namespace) -> int:
    from pytest_fluxperf.cli.commands import recipes

    return recipes(options.device)


def _doctor(options: argparse.Namespace) -> int:
    from pytest_fluxperf.cli.doctor import examine

    failed = 0
    for check in examine(options.gpu, options.model, options.baselines, options.reports):
        print(f"{check.status:<4}  {check.name:<12}  {check.text}", flush=True)
        failed += check.status == "fail"
    return int(failed > 0)


def _calibrate(options: argparse.Namespace) -> int:
    from pytest_fluxperf.cli.commands import calibrate

    return calibrate(options.model, options.prompts, options.steps, options.device)
