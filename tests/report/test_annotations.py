from __future__ import annotations

import re

import msgspec
import report_documents as documents

from pytest_fluxperf.report.ci import LIMIT, render_annotations

COMMAND = re.compile(r"::(error|warning) (?:file=([^,:]+),)?title=([^:,]+)::(.+)")


def commands(document):
    lines = render_annotations(document).splitlines()
    found = [COMMAND.fullmatch(line) for line in lines]
    assert all(found), lines
    return [match.groups() for match in found]


def test_nothing_to_say_of_a_run_that_passes():
    assert render_annotations(documents.passing()) == ""


def test_failures_are_errors_on_their_files_and_the_undecided_are_warnings():
    document = documents.failing()
    verdicts = {r.judgement.verdict for r in document.results}
    found = commands(document)
    kinds = [kind for kind, *_ in found]
    assert kinds == sorted(kinds)  # errors first
    assert ("warning" in kinds) == ("inconclusive" in verdicts)
    for _, file, _, message in found:
        (result,) = [r for r in document.results if message.startswith(r.judgement.message[:40].replace("%", "%25"))]
        assert file == result.test.partition("::")[0]


def test_what_is_foreign_starts_no_command():
    document = documents.hostile()
    result = document.results[0]
    judgement = msgspec.structs.replace(
        result.judgement, verdict="regressed", message="bad\n::error::planted\r\n::add-mask::x 100%"
    )
    evil = msgspec.structs.replace(result, test="../../etc/a,b:c.py::t", recipe="r,title=x::y", judgement=judgement)
    document = msgspec.structs.replace(document, results=(evil,), collected=1 + len(document.skipped))
    ((kind, file, title, message),) = commands(document)
    assert (kind, file) == ("error", None)
    assert "%2C" in title or "%3A" in title
    assert "\n" not in message
    assert message.endswith("100%25")


def test_more_than_github_shows_are_counted():
    document = documents.many(25, None)
    results = tuple(
        msgspec.structs.replace(r, judgement=msgspec.structs.replace(r.judgement, verdict="regressed"))
        for r in document.results
    )
    found = commands(msgspec.structs.replace(document, results=results))
    assert len(found) == LIMIT
    assert found[-1][3] == f"{25 - LIMIT + 1} more; the report has them all"


def test_a_run_that_gated_nothing_says_so():
    document = documents.ungated()
    assert "nothing was gated" in render_annotations(document)
    assert "nothing was gated" not in render_annotations(msgspec.structs.replace(document, update="all"))
