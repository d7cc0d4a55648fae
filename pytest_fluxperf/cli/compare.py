"""``fluxperf compare``: one recorded run judged against another."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from pytest_fluxperf.cli.arguments import Commands


def add_parser(commands: Commands) -> None:
    """What the command takes."""
    parser = commands.add_parser("compare", help="judge one recorded run against another; exits 1 on a regression")
    parser.add_argument(
        "base", type=Path, metavar="BASE.json", help="results.json of the run to compare with, or its folder"
    )
    parser.add_argument("new", type=Path, metavar="NEW.json", help="results.json of the run under test, or its folder")
    parser.add_argument(
        "--max-slowdown",
        type=float,
        metavar="FRACTION",
        help="tolerated slow-down (0.02 is 2 %%; default: that of each test)",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="inconclusive tests fail too, and so do tests of the first run that the second lacks",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Judge the new run against the base, by the rule of a stored baseline of one run, and print the summary.

    1 when something failed or nothing was judged; with ``--strict`` also when a test was inconclusive, or is in the
    base only.
    """
    import msgspec

    from pytest_fluxperf.baseline.update import fails
    from pytest_fluxperf.gate.compare import compare_documents
    from pytest_fluxperf.gate.policy import Policy
    from pytest_fluxperf.report import load_document
    from pytest_fluxperf.report.terminal import terminal_summary

    old, now, strict = load_document(options.base), load_document(options.new), options.strict
    relative = any(g.reference_latency_s for r in now.results for g in r.measurement.generations)
    policy = Policy.of(
        "relative" if relative else "absolute", cpu=now.hardware.kind == "cpu", max_slowdown=options.max_slowdown
    )
    judged = compare_documents(old, now, policy, own_tolerances=options.max_slowdown is None)
    judged = msgspec.structs.replace(judged, strict=strict)
    for line in terminal_summary(judged, shutil.get_terminal_size().columns):
        print(line)
    if not judged.gated:
        print("fluxperf: this comparison gated nothing, so it fails")
    failed = any(fails(r, strict=strict, update=None, hardware=judged.hardware) for r in judged.results)
    lacking = {result.test for result in old.results} - {result.test for result in judged.results}
    return int(failed or not judged.gated or (strict and bool(lacking)))
