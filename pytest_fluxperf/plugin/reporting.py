"""From pytest's hooks to the session: one test, its report, the end of the run."""

from __future__ import annotations

import os
import statistics
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pytest_fluxperf import report as reporting
from pytest_fluxperf.baseline.update import fails
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.measure.runner import BodyRaised
from pytest_fluxperf.plugin.collect import session_of
from pytest_fluxperf.plugin.progress import Live
from pytest_fluxperf.plugin.stash import BENCH, PAYLOAD, REFUSED, failure, is_worker
from pytest_fluxperf.report import terminal
from pytest_fluxperf.results import Result, Skipped

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

CHANGES: pytest.StashKey[tuple[str, ...]] = pytest.StashKey()
"""What became of the baselines, and what could not be written."""
REPORTS: pytest.StashKey[reporting.ReportPaths] = pytest.StashKey()


QUIET = ("regressed", "invalid", "no baseline", "inconclusive")
"""Verdicts for which captured output explains nothing."""


class FluxPerfWarning(UserWarning):
    """Something about a measurement that does not fail the test."""


def run(item: pytest.Function) -> None:
    """Measure and judge a test; fails it by its verdict with one short message."""
    bench = item.stash[BENCH]
    session = bench.session
    names = item._fixtureinfo.argnames
    arguments = {name: item.funcargs[name] for name in names}
    live = Live(item)
    try:
        result = bench.run(lambda: item.obj(**arguments), live.show)
    except BodyRaised as error:
        cause = error.__cause__
        assert cause is not None
        _publish(item, error.result)
        cause.add_note(f"fluxperf: broken: the test raised {error}")
        raise cause from None
    except FluxPerfError as error:
        raise failure(f"fluxperf: {error}") from None
    finally:
        live.clear()
    _publish(item, result)
    judgement = result.judgement
    for text in judgement.warnings:
        item.warn(FluxPerfWarning(text))
    settings = session.settings
    if fails(result, strict=settings.strict, update=settings.update, hardware=session.hardware):
        raise failure(f"fluxperf: {judgement.verdict}: {judgement.message}")


def _publish(item: pytest.Item, result: Result) -> None:
    item.stash[PAYLOAD] = msgspec.to_builtins(result)
    item.user_properties.extend(reporting.junit_properties(result))
    item.config.hook.pytest_fluxperf_result(item=item, result=result)


def attach(item: pytest.Item, report: pytest.TestReport) -> None:
    """Put an item's result, or why it was skipped, on its report."""
    payload: dict[str, Any] = item.stash.get(PAYLOAD, {}) if report.when == "call" else {}
    if report.skipped and not payload:
        payload = _skipped(item, report)
    if report.when == "setup" and report.failed and not payload and BENCH in item.stash:
        payload = _not_set_up(item, report)
    if payload.get("judgement", {}).get("verdict") in QUIET:
        report.sections.clear()  # what the libraries logged while all went well would hide the one line that counts
    report.fluxperf = payload  # type: ignore[attr-defined]
    if is_worker(item.config) and "judgement" in payload:
        report.fluxperf_told = session_of(item.config).told()  # type: ignore[attr-defined]


def _skipped(item: pytest.Item, report: pytest.TestReport) -> dict[str, Any]:
    """A skip, or the broken result of a test that skipped itself though its baseline shows that it ran."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    marked = any(item.get_closest_marker(name) for name in ("skip", "skipif"))
    session = session_of(item.config)
    expected = marked or hasattr(report, "wasxfail") or item.get_closest_marker("xfail") is not None
    if not expected and session.turns is None and BENCH in item.stash:
        path = session.store.path(item.nodeid)
        problem = (
            f"was skipped ({reason}), but ran when its baseline was recorded; mark it skip or skipif, "
            f"or delete {os.path.relpath(path)} to give it up"
        )
        if path.exists() and (payload := _broken(item, problem)):
            report.outcome, report.longrepr = "failed", f"fluxperf: broken: {problem}"
            return payload
    recipe = item.stash[BENCH].recipe if BENCH in item.stash else None
    return dict(msgspec.to_builtins(Skipped(test=item.nodeid, recipe=recipe, reason=reason, marked=marked)))


def _not_set_up(item: pytest.Item, report: pytest.TestReport) -> dict[str, Any]:
    """The broken result of a test whose fixtures failed."""
    crash = getattr(report.longrepr, "reprcrash", None)
    said = (str(crash.message if crash else report.longrepr).strip() or "without a word").splitlines()[0]
    said = said.removeprefix("Failed: ")  # pytest.fail's exception
    said = said.removeprefix(f"recipe {item.stash[BENCH].recipe}: ")  # the result's own
    return _broken(item, f"could not be set up: {said}")


def _broken(item: pytest.Item, problem: str) -> dict[str, Any]:
    """The broken result of a test that was not measured; nothing where even that cannot be made."""
    try:
        result = item.stash[BENCH].broken(problem)
    except FluxPerfError:  # the session was refused
        return {}
    try:
        item.config.hook.pytest_fluxperf_result(item=item, result=result)
    except Exception as error:  # in the middle of pytest's own reporting, it would end the session
        item.warn(FluxPerfWarning(f"pytest_fluxperf_result: {type(error).__name__}: {error}"))
    return dict(msgspec.to_builtins(result))


def collect(config: pytest.Config, report: pytest.TestReport) -> None:
    """Take what a report carries into the session."""
    session = session_of(config)
    session.selected.add(report.nodeid)
    session.adopt(getattr(report, "fluxperf_told", {}))
    payload = report.fluxperf
    if payload:
        result = session.collect(payload)
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and isinstance(result, Result) and not reporter.isatty and reporter.verbosity >= 0:
            reporter.ensure_newline()
            if reporter._tw.width_of_current_line:  # xdist's dots, of which pytest does not know
                reporter.write_line("")
            reporter.write_line(f"fluxperf: {_line(result)}")


def finish(session: pytest.Session) -> None:
    """At the end of the run: move baselines, write reports, fail if nothing was judged."""
    if REFUSED in session.config.stash:
        session.exitstatus = pytest.ExitCode.USAGE_ERROR
        return
    ours = session_of(session.config)
    ours.close()
    if not ours.selected:
        return
    update = ours.settings.update
    document = ours.document()
    if update:
        try:
            moved = ours.move_baselines(document.results)
            changes = tuple(change.line for change in moved)
            if session.exitstatus == pytest.ExitCode.OK and any(change.action == "refused" for change in moved):
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        except FluxPerfError as error:  # the report of what was measured is not lost with them
            changes = (f"no baseline was moved: {error}",)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.stash[CHANGES] = changes
        document = msgspec.structs.replace(document, changes=changes)
    try:
        session.config.stash[REPORTS] = reporting.write_reports(document, ours.folder)
    except FluxPerfError as error:  # the terminal still tells the verdicts
        session.config.stash[CHANGES] = (*session.config.stash.get(CHANGES, ()), str(error))
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if not ours.gated and not (update and document.results) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def summarize(reporter: TerminalReporter) -> None:
    """The table, the baselines that moved, and where the report is."""
    config = reporter.config
    if refused := config.stash.get(REFUSED, None):
        reporter.section("fluxperf")
        reporter.write_line(f"ERROR: {refused}", red=True)
        return
    ours = session_of(config)
    if not ours.selected:
        return
    document = msgspec.structs.replace(ours.document(), changes=config.stash.get(CHANGES, ()))
    reporter.section("fluxperf")
    for line in terminal.terminal_summary(document, reporter._tw.fullwidth, reporter._tw.markup):
        reporter.write_line(line)
    for line in config.stash.get(CHANGES, ()):
        reporter.write_line(line)
    if not ours.gated and not (ours.settings.update and document.results):
        reporter.write_line("fluxperf: this run gated nothing, so it fails", red=True, bold=True)
    if paths := config.stash.get(REPORTS, None):
        reporter.write_line(f"report: {os.path.relpath(paths.html)}")


def _line(result: Result) -> str:
    """What a log shows of a finished test."""
    times = [generation.latency_s for generation in result.measurement.generations]
    p50 = f", p50 {statistics.median(times):.3f} s over {len(times)}" if times else ""
    return f"{result.judgement.verdict}{p50}, {result.duration_s:.0f} s in all"
