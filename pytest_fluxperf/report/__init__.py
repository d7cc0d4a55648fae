"""What people read, all made from one :class:`~pytest_fluxperf.results.RunDocument`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.report.ci import junit_properties
from pytest_fluxperf.report.document import load_document, merge, write_document, write_text
from pytest_fluxperf.report.markdown import render_markdown
from pytest_fluxperf.results import RunDocument

__all__ = [
    "ReportPaths",
    "junit_properties",
    "load_document",
    "merge",
    "render_markdown",
    "write_document",
    "write_reports",
    "write_text",
]


@dataclass(frozen=True)
class ReportPaths:
    """Files of one run."""

    results: Path
    html: Path
    markdown: Path


def write_reports(document: RunDocument, folder: Path) -> ReportPaths:
    """Write ``results.json``, ``report.html`` and ``summary.md`` into the run's folder.

    Raises :class:`FluxPerfError` when one cannot be written.
    """
    from pytest_fluxperf.report.html.page import render_html

    paths = ReportPaths(folder / "results.json", folder / "report.html", folder / "summary.md")
    write_document(document, paths.results)
    try:
        write_text(render_markdown(document), paths.markdown)
        write_text(render_html(document, [folder]), paths.html)
    except OSError as error:
        raise FluxPerfError(f"cannot write the report in {folder}: {error.strerror or error}") from error
    return paths
