"""The run as JUnit XML: a test's properties, and the whole file rendered again from recorded results."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from pytest_fluxperf.report.row import Row, medians
from pytest_fluxperf.report.text import plural, shorten, visible
from pytest_fluxperf.report.view import overview, unmeasured_of
from pytest_fluxperf.results import Result, RunDocument, Skipped


def junit_properties(result: Result) -> list[tuple[str, str]]:
    """Name and value of what a JUnit test case carries: verdict, recipe, latency percentiles, quality, memory."""
    found: list[tuple[str, str]] = [("fluxperf_verdict", result.judgement.verdict)]
    if result.recipe:
        found.append(("fluxperf_recipe", result.recipe))
    latencies = [generation.latency_s for generation in result.measurement.generations]
    if latencies:
        found.append(("fluxperf_n", str(len(latencies))))
        found += [(f"fluxperf_p{q}_s", f"{np.percentile(latencies, q):.6g}") for q in (50, 90, 99)]
    if result.measurement.peak_memory_mib is not None:
        found.append(("fluxperf_peak_memory_mib", f"{result.measurement.peak_memory_mib:.6g}"))
    scores = medians(result.quality)
    for name in scores.__struct_fields__:
        if (value := getattr(scores, name)) is not None:
            found.append((f"fluxperf_{name}", f"{value:.6g}"))
    return found


def render_junit(documents: RunDocument | Sequence[RunDocument]) -> str:
    """JUnit XML in pytest's shape (``xunit2``): a suite for each machine, a failure for each verdict that fails."""
    view = overview(documents)
    root = ET.Element("testsuites", name="fluxperf")
    for machine, document in zip(view.machines, view.documents, strict=True):
        rows = [row for row in view.rows if row.document is document]
        failed = sum(row.fails for row in rows)
        unmeasured = unmeasured_of(document)
        suite = ET.SubElement(
            root,
            "testsuite",
            name=f"fluxperf {visible(machine)}",
            tests=str(len(rows) + len(document.skipped) + bool(unmeasured)),
            failures=str(failed),
            errors=str(int(bool(unmeasured))),
            skipped=str(len(document.skipped)),
            time=f"{document.duration_s:.3f}",
            timestamp=visible(document.time_utc),
            hostname=visible(document.hardware.name),
        )
        for row in rows:
            _case(suite, row)
        for skipped in document.skipped:
            _skipped(suite, skipped)
        if unmeasured:
            case = ET.SubElement(suite, "testcase", classname="fluxperf", name="not measured", time="0.000")
            ET.SubElement(case, "error", message=f"not measured: {plural(unmeasured, 'test')}")
    ET.indent(root, " ")
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ET.Element, row: Row) -> None:
    result, judgement = row.result, row.result.judgement
    case = ET.SubElement(suite, "testcase", _identity(result.test), time=f"{result.duration_s:.3f}")
    properties = ET.SubElement(case, "properties")
    for name, value in junit_properties(result):
        ET.SubElement(properties, "property", name=name, value=_bounded(value))
    if row.fails:
        failure = ET.SubElement(case, "failure", message=_bounded(f"{row.verdict}: {judgement.message}"))
        failure.text = "\n".join(
            visible(shorten(t, 4000)) for t in (*judgement.attribution, *result.measurement.problems)
        )
    if judgement.warnings:
        ET.SubElement(case, "system-out").text = "\n".join(
            f"warning: {visible(shorten(w, 4000))}" for w in judgement.warnings
        )


def _skipped(suite: ET.Element, skipped: Skipped) -> None:
    case = ET.SubElement(suite, "testcase", _identity(skipped.test), time="0.000")
    ET.SubElement(case, "skipped", type="pytest.skip", message=_bounded(skipped.reason))


def _bounded(text: str) -> str:
    return visible(shorten(text, 4000))


def _identity(test: str) -> dict[str, str]:
    path, _, name = shorten(test, 4000).partition("::")
    return {"classname": visible(path.removesuffix(".py").replace("/", ".")), "name": visible(name or test)}


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
    known = file and len(file) <= 1000 and not path.is_absolute() and ".." not in path.parts
    place = f"file={_property(file)}," if known else ""
    title = _property(shorten(f"{row.label}: {row.verdict}", 200))
    return f"::{kind} {place}title={title}::{_data(shorten(row.result.judgement.message, 1000))}"


def _data(text: str) -> str:
    return visible(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
