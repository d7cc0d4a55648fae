"""Tables and the cost model of recorded sessions, and their archive: ``python -m tools.recorded table|cost|keep``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pytest_fluxperf.baseline import published
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.report import write_text
from tools.recorded import cost as costs
from tools.recorded.archive import ARCHIVE, keep, read_documents
from tools.recorded.costtable import cost_tables
from tools.recorded.sections import write_section
from tools.recorded.table import recipe_tables

SOURCES = "a results.json, the folder of a run, or ARCHIVE.tar.xz:PATTERN"


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 4 and one line on stderr for what the user can mend."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except FluxPerfError as error:
        print(f"error: {error}", file=sys.stderr)
        return 4


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.recorded", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "table", help="recipes of recorded sessions as a Markdown table, published figures beside"
    )
    command.add_argument("results", nargs="+", metavar="RESULTS", help=SOURCES)
    command.add_argument("--into", type=Path, metavar="FILE.md", help="put it between FILE's marks, not on the screen")
    command.add_argument("--baselines", type=Path, default=Path("baselines"), metavar="DIR", help="has published/")
    command.set_defaults(run=lambda o: table(o.results, o.into, o.baselines))

    command = commands.add_parser(
        "cost",
        help="what computed and cached steps cost, and the speed-up at any hit rate, as Markdown tables; exits 1 if a "
        "schedule is predicted more than 2 %% wrong",
    )
    command.add_argument("results", nargs="+", metavar="RESULTS", help=f"sessions of one machine: {SOURCES}")
    command.add_argument("--into", type=Path, metavar="FILE.md", help="put it between FILE's marks, not on the screen")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the model too")
    command.set_defaults(run=lambda o: cost(o.results, o.into, o.json))

    command = commands.add_parser("keep", help="put a results.json, or what a program measured, into the archive")
    command.add_argument("file", type=Path, metavar="FILE.json")
    command.add_argument("--as", dest="name", required=True, metavar="NAME.json", help="h200-results-4.json")
    command.add_argument("--archive", type=Path, default=ARCHIVE, metavar="ARCHIVE.tar.xz")
    command.set_defaults(run=lambda o: put(o.file, o.name, o.archive))
    return parser


def put(file: Path, name: str, archive: Path) -> int:
    """Put one file into the archive under a name."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise FluxPerfError(f"cannot read {file}: {error.strerror or error}") from error
    keep({name: content}, archive)
    print(f"{archive}:{name}")
    return 0


def table(results: Sequence[str], into: Path | None, baselines: Path) -> int:
    """Print the table of recipes, or put it into a file."""
    _show(recipe_tables(read_documents(results), published.load(baselines)), "table", into)
    return 0


def _show(text: str, section: str, into: Path | None) -> None:
    """Print it, or put it into a section of a page."""
    if into is None:
        print(text, end="")
    else:
        write_section(into, section, text)
        print(into)


def cost(results: Sequence[str], into: Path | None, output: Path | None) -> int:
    """Print the cost model of the recipes of one machine and workload; 1 if a prediction is off by more than 2 %."""
    documents = read_documents(results)
    workloads = {(d.hardware.name, r.workload.digest) for d in documents for r in d.results}
    if len(workloads) != 1:
        raise FluxPerfError(f"a cost model is of one machine and workload; these results are of {len(workloads)}")
    dense, caches = costs.cost_model([document.results for document in documents])
    if not dense:
        raise FluxPerfError("no recipe without a step cache has recorded steps here; measure one, such as bf16")
    _show(cost_tables(dense, caches), "cost", into)
    if output is not None:
        model = {"dense": dense, "caches": [costs.describe(cache) for cache in caches]}
        write_text(msgspec.json.format(msgspec.json.encode(model), indent=1).decode() + "\n", output)
    return int(any(abs(check.error) > costs.TOLERANCE for cache in caches for check in cache.checks))


if __name__ == "__main__":
    sys.exit(main())
