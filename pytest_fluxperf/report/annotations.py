"""GitHub workflow commands: each failing test as an annotation on the request's files, the worst first.

The format is GitHub's (*Workflow commands for GitHub Actions*): ``::error file=F,title=T::message``, where ``%``, line
ends and, in properties, ``:`` and ``,`` are percent-encoded. What is printed comes from results, so it is encoded: no
prompt or test name can start a command of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from pytest_fluxperf.report.text import plural, shorten, visible
from pytest_fluxperf.report.view import Row, overview
from pytest_fluxperf.results import RunDocument

LIMIT = 10
"""Annotations of one kind that GitHub shows of a step; further ones are dropped silently."""


def render_annotations(documents: RunDocument | Sequence[RunDocument]) -> str:
    """One line a failing or inconclusive test, at most :data:`LIMIT` of a kind; the last one counts the rest."""
    view = overview(documents)
    errors = [row for row in view.rows if row.fails]
    warnings = [row for row in view.rows if row.verdict == "inconclusive"]
    lines = [*_lines("error", errors), *_lines("warning", warnings)]
    if view.unmeasured:
        lines.insert(0, f"::error title=fluxperf::not measured: {plural(view.unmeasured, 'test')}")
    if view.collected and not view.gated and not any(document.update for document in view.documents):
        lines.insert(0, "::error title=fluxperf::nothing was gated: no test was compared with a baseline")
    return "".join(f"{line}\n" for line in lines)


def _lines(kind: str, rows: Sequence[Row]) -> list[str]:
    shown = rows if len(rows) <= LIMIT else rows[: LIMIT - 1]
    lines = [_annotation(kind, row) for row in shown]
    if rest := len(rows) - len(shown):
        lines.append(f"::{kind} title=fluxperf::{rest} more; the report has them all")
    return lines


def _annotation(kind: str, row: Row) -> str:
    file = row.result.test.partition("::")[0]
    path = PurePosixPath(file)
    place = f"file={_property(file)}," if file and not path.is_absolute() and ".." not in path.parts else ""
    title = _property(shorten(f"{row.label}: {row.verdict}", 200))
    return f"::{kind} {place}title={title}::{_data(shorten(row.result.judgement.message, 1000))}"


def _data(text: str) -> str:
    return visible(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
