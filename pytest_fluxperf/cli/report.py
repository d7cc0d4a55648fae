"""``fluxperf report``: recorded runs rendered again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pytest_fluxperf.cli.arguments import Commands, add_results, size_limit
from pytest_fluxperf.errors import FluxPerfError


def add_parser(commands: Commands) -> None:
    """What the command takes."""
    parser = commands.add_parser("report", help="render results.json again, also of several shards or machines")
    add_results(parser)
    parser.add_argument("--output", "-o", type=Path, metavar="FILE", help="default: standard output (not for html)")
    parser.add_argument(
        "--format",
        metavar="FORM",
        help="html, md, junit, csv, bencher (Bencher Metric Format), github-action-benchmark, pytest-benchmark or "
        "annotations; "
        "default: what the name of FILE ends in, else md",
    )
    parser.add_argument("--artifact-url", metavar="URL", help="md: where the full report can be fetched")
    parser.add_argument(
        "--max-bytes",
        type=size_limit,
        default=65_536,
        metavar="N",
        help="md: leave out what does not fit (a GitHub comment takes 65536, a job summary 1048576)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report or write its file; shards of one machine become one, machines stand side by side."""
    from pytest_fluxperf.report import write_text
    from pytest_fluxperf.report.exports import format_of

    output: Path | None = options.output
    text = _render(options, format_of(options.format, output))
    if output is None:
        sys.stdout.write(text)
        return 0
    try:
        write_text(text, output)
    except OSError as error:
        raise FluxPerfError(f"cannot write {output}: {error.strerror or error}") from None
    print(output)
    return 0


def _render(options: argparse.Namespace, form: str) -> str:
    from pytest_fluxperf.report import load_document, merge
    from pytest_fluxperf.report.exports import HTML, MARKDOWN, TEXTS
    from pytest_fluxperf.report.html.page import render_html
    from pytest_fluxperf.report.markdown import render_markdown

    documents = merge(load_document(path) for path in options.results)
    if form == MARKDOWN:
        return render_markdown(documents, limit=options.max_bytes, artifact_url=options.artifact_url)
    if form != HTML:
        return TEXTS[form](documents)
    if options.output is None:
        raise FluxPerfError("an HTML report needs a file: name it by --output")
    folders = [path if path.is_dir() else path.parent for path in options.results]
    return render_html(documents, folders, options.output.parent)
