"""Every form in which ``fluxperf report`` writes recorded runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.report import exports
from pytest_fluxperf.report.annotations import render_annotations
from pytest_fluxperf.report.junit import render_junit
from pytest_fluxperf.results import RunDocument

HTML, MARKDOWN = "html", "md"

TEXTS: dict[str, Callable[[Sequence[RunDocument]], str]] = {
    "junit": render_junit,
    "csv": exports.render_csv,
    "bencher": exports.render_bencher,
    "github-action-benchmark": exports.render_github_action_benchmark,
    "pytest-benchmark": exports.render_pytest_benchmark,
    "annotations": render_annotations,
}
"""Forms that need nothing but the documents."""

FORMATS: tuple[str, ...] = (HTML, MARKDOWN, *TEXTS)

_SUFFIXES = {".html": HTML, ".md": MARKDOWN, ".xml": "junit", ".csv": "csv"}


def format_of(form: str | None, output: Path | None) -> str:
    """The form asked for by name, else by the name of the output file, else Markdown.

    Raises:
        FluxPerfError: there is no such form, or the file's name does not say which (several are JSON).
    """
    known = ", ".join(FORMATS)
    if form is not None:
        if form not in FORMATS:
            raise FluxPerfError(f"there is no format {form!r}; choose one of {known}")
        return form
    if output is None:
        return MARKDOWN
    if output.suffix not in _SUFFIXES:
        raise FluxPerfError(
            f"{output} must end in {', '.join(_SUFFIXES)}, or its format must be named by --format: {known}"
        )
    return _SUFFIXES[output.suffix]
