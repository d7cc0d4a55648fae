"""From pytest's hooks to the run: one test, its report, the end of the session."""

from __future__ import annotations

import os
import unittest
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import pytest

from pytest_fluxperf.baseline.update import fails
from pytest_fluxperf.bench.run import Ending, Envelope
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.measure.runner import BodyRaised
from pytest_fluxperf.plugin.collect import run_of, session_of
from pytest_fluxperf.plugin.progress import Live
from pytest_fluxperf.plugin.stash import BENCH, DEFERRAL, REFUSED, RESULT, SESSION, failure
from pytest_fluxperf.report import junit_properties, terminal
from pytest_fluxperf.results import Result, Skipped, median_latency_s

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

ENDING: pytest.StashKey[Ending] = pytest.StashKey()
"""How the run ended, once it has."""

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
    item.stash[RESULT] = None  # that of an earlier attempt
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
    """Keep a result for the report, and tell the hook, unless it is going to be judged once more."""
    item.stash[RESULT] = result
    item.user_properties[:] = with_properties(item.user_properties, result)
    deferral = item.config.pluginmanager.get_plugin(DEFERRAL)
    if deferral is None or not deferral.holds(result):
        item.config.hook.pytest_fluxperf_result(item=item, result=result)


def with_properties(properties: list[tuple[str, object]], result: Result) -> list[tuple[str, object]]:
    """A test's JUnit properties with those of ``result`` in the place of ours: those of an earlier attempt."""
    others = [(name, value) for name, value in properties if not name.startswith("fluxperf_")]
    return [*others, *junit_properties(result)]


def envelope(config: pytest.Config, outcome: Result | Skipped | None = None) -> Envelope:
    """What this process tells the one that reports, which may be another."""
    session = config.stash.get(SESSION, None)
    if session is None:  # it was refused
        return Envelope(outcome=outcome)
    return Envelope(outcome=outcome, environments=session.environments, configurations=session.configurations)


def attach(item: pytest.Item, report: pytest.TestReport, error: BaseException | None) -> None:
    """Put an item's result, or why it was skipped, on its report; ``error`` ended what it reports."""
    outcome: Result | Skipped | None = item.stash.get(RESULT, None) if report.when == "call" else None
    if report.skipped and outcome is None:
        outcome = _skipped(item, report, error)
    if report.when == "setup" and report.failed and outcome is None and BENCH in item.stash:
        outcome = _not_set_up(item, report, error)
    if isinstance(outcome, Result) and outcome.judgement.verdict in QUIET:
        report.sections.clear()  # what the libraries logged while all went well would hide the one line that counts
    told = envelope(item.config, outcome)
    if report.when == "teardown" and BENCH in item.stash:
        told = msgspec.structs.replace(told, warnings=item.stash[BENCH].remarks)
    report.fluxperf = told  # type: ignore[attr-defined]


def _skipped(item: pytest.Item, report: pytest.TestReport, error: BaseException | None) -> Result | Skipped:
    """A skip, or the broken result of a test that skipped itself though its baseline shows that it ran."""
    reason = _first_line(error) if error else str(report.longrepr)
    marked = any(item.get_closest_marker(name) for name in ("skip", "skipif"))
    session = session_of(item.config)
    expected = marked or hasattr(report, "wasxfail") or item.get_closest_marker("xfail") is not None
    if not expected and session.turns is None and BENCH in item.stash:
        path = session.store.path(item.nodeid)
        problem = (
            f"was skipped ({reason}), but ran when its baseline was recorded; mark it skip or skipif, "
            f"or delete {os.path.relpath(path)} to give it up"
        )
        if path.exists() and (result := _broken(item, problem)):
            report.outcome, report.longrepr = "failed", f"fluxperf: broken: {problem}"
            return result
    recipe = item.stash[BENCH].recipe if BENCH in item.stash else None
    return Skipped(test=item.nodeid, recipe=recipe, reason=reason, marked=marked)


def _not_set_up(item: pytest.Item, report: pytest.TestReport, error: BaseException | None) -> Result | None:
    """The broken result of a test whose fixtures failed."""
    return _broken(item, f"could not be set up: {_first_line(error) if error else report.longrepr}")


def _first_line(error: BaseException) -> str:
    """What ended a phase of a test, in one line without what its result says already."""
    ours = error.__context__  # of which a failure of pytest's was made
    if isinstance(error, pytest.fail.Exception) and isinstance(ours, FluxPerfError):
        return ours.without("test", "recipe").splitlines()[0]
    said = (str(error).strip().splitlines() or ["without a word"])[0]
    if isinstance(error, pytest.fail.Exception | pytest.skip.Exception | unittest.SkipTest):
        return said
    return f"{type(error).__name__}: {said}"


def _broken(item: pytest.Item, problem: str) -> Result | None:
    """The broken result of a test that was not measured; None where even that cannot be made."""
    try:
        result: Result = item.stash[BENCH].broken(problem)
    except FluxPerfError:  # the session was refused
        return None
    try:
        item.config.hook.pytest_fluxperf_result(item=item, result=result)
    except Exception as error:  # in the middle of pytest's own reporting, it would end the session
        item.warn(FluxPerfWarning(f"pytest_fluxperf_result: {type(error).__name__}: {error}"))
    return result


def collect(config: pytest.Config, report: pytest.TestReport) -> None:
    """Take what a report carries into the run; a result is saved at once."""
    carried: Envelope = report.fluxperf
    record(config, report.nodeid, carried)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not isinstance(carried.outcome, Result) or reporter.isatty or reporter.verbosity < 0:
        return
    reporter.ensure_newline()
    if reporter._tw.width_of_current_line:  # xdist's dots, of which pytest does not know
        reporter.write_line("")
    reporter.write_line(f"fluxperf: {_line(carried.outcome)}")


def record(config: pytest.Config, test: str, carried: Envelope) -> None:
    """Take what came of a test into the run; it is saved at once."""
    collected = run_of(config)
    collected.selected.add(test)
    collected.receive(carried)
    if carried.outcome is not None:
        with suppress(FluxPerfError):  # the end of the run tells that the folder cannot be written
            collected.save(session_of(config).folder, carried.outcome)


def finish(session: pytest.Session) -> None:
    """At the end of the run: move baselines, write reports, fail if nothing was judged."""
    if REFUSED in session.config.stash:
        session.exitstatus = pytest.ExitCode.USAGE_ERROR
        return
    ours = session_of(session.config)
    ours.close()
    collected = run_of(session.config)
    if not (collected.selected or collected.configurations):
        return
    ending = session.config.stash[ENDING] = collected.end(ours.folder)
    if ending.failed and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def summarize(reporter: TerminalReporter) -> None:
    """The table, the baselines that moved, and where the report is."""
    config = reporter.config
    if refused := config.stash.get(REFUSED, None):
        reporter.section("fluxperf")
        reporter.write_line(f"ERROR: {refused}", red=True)
        return
    ending = config.stash.get(ENDING, None)
    if ending is None:
        return
    reporter.section("fluxperf")
    for line in terminal.terminal_summary(ending.document, reporter._tw.fullwidth, reporter._tw.markup):
        reporter.write_line(line)
    for line in (
        *(change.line for change in ending.document.changes),
        *(e for e in ending.errors if e not in ending.document.warnings),
    ):
        reporter.write_line(line)
    if ending.gated_nothing:
        reporter.write_line("fluxperf: this run gated nothing, so it fails", red=True, bold=True)
    if ending.reports:
        reporter.write_line(f"report: {os.path.relpath(ending.reports.html)}")


def _line(result: Result) -> str:
    """What a log shows of a finished test."""
    made = result.measurement.generations
    p50 = f", p50 {median_latency_s(made):.3f} s over {len(made)}" if made else ""
    return f"{result.judgement.verdict}{p50}, {result.duration_s:.0f} s in all"
