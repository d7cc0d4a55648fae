"""Verdicts that wait for the end of the session.

A latency is judged by what all tests of the session share, and by a second measurement where the first is not enough
(docs/gate.md). So the reports of a suspect are held back until all tests have run; then :class:`SecondLook` and, where
an old environment is at hand, the comparison with it decide, and each test's own report (call phase) is told with the
verdict.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import pytest
from _pytest.runner import runtestprotocol

from pytest_fluxperf.baseline.update import fails
from pytest_fluxperf.gate.interleaved import suspects
from pytest_fluxperf.plugin.collect import session_of
from pytest_fluxperf.plugin.report_edit import end_again
from pytest_fluxperf.plugin.reporting import envelope, record, with_properties
from pytest_fluxperf.plugin.stash import BENCH, RESULT, is_worker
from pytest_fluxperf.results import Comparison, Judgement, Result


@dataclass
class Held:
    """A suspect whose reports wait."""

    item: pytest.Item
    reports: list[pytest.TestReport]
    result: Result

    def decide(self, judgement: Judgement, comparison: Comparison | None = None) -> None:
        """Put the verdict into the item's own report."""
        self.result = msgspec.structs.replace(self.result, judgement=judgement, comparison=comparison)
        config = self.item.config
        session = session_of(config)
        settings = session.settings
        failed = fails(self.result, strict=settings.strict, update=settings.update, hardware=session.hardware)
        for report in self.reports:
            report.user_properties = with_properties(report.user_properties, self.result)
            if report.when == "call":
                end_again(self.item, report, f"fluxperf: {judgement.verdict}: {judgement.message}" if failed else None)
                report.fluxperf = envelope(config, self.result)  # type: ignore[attr-defined]

    def warn(self, text: str) -> None:
        """Leave the verdict as it stands, with a warning."""
        judgement = self.result.judgement
        self.decide(msgspec.structs.replace(judgement, warnings=(*judgement.warnings, text)), self.result.comparison)


class Look(Protocol):
    """One more look at the suspects, after the last test."""

    def holds(self, result: Result) -> bool:
        """Whether this look may change the verdict on a result."""

    def settle(self, held: Sequence[Held], done: Sequence[Held]) -> None:
        """Decide on what is held; ``done`` are the session's other tests with a result."""


class Deferral:
    """Hooks of a process that runs tests."""

    def __init__(self, config: pytest.Config, looks: Sequence[Look]) -> None:
        self._config = config
        self._looks = looks
        self._held: list[Held] = []
        self._done: list[Held] = []

    def holds(self, result: Result) -> bool:
        """Whether a result is not the last word."""
        return any(look.holds(result) for look in self._looks)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Run a fluxperf test, and hold its reports back if it is a suspect."""
        if BENCH not in item.stash or _is_repeated(item):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        result = item.stash.get(RESULT, None)
        if result is None:
            self._log(item, reports)
        elif not self.holds(result):
            self._done.append(Held(item, reports, result))
            self._log(item, reports)
        elif all(report.passed for report in reports if report.when != "call"):
            self._held.append(Held(item, reports, result))
            if not is_worker(self._config):  # nor is it lost where what follows is killed
                record(self._config, item.nodeid, envelope(self._config, result))
            say(self._config, f"{item.nodeid}: {result.judgement.verdict} so far, decided after the last test")
        else:
            self._tell(item, result)
            self._log(item, reports)
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """After the last test, look again at the suspects; a run that was broken off tells what it knows."""
        try:
            ran = yield
            if self._held:
                session_of(self._config).close()  # what follows needs the device's memory
                for look in self._looks:
                    look.settle([held for held in self._held if look.holds(held.result)], self._done)
        finally:
            self._release()
        return ran

    def _release(self) -> None:
        """Tell what was held back."""
        held, self._held = self._held, []
        for entry in held:
            entry.item.ihook.pytest_runtest_logstart(nodeid=entry.item.nodeid, location=entry.item.location)
            self._tell(entry.item, entry.result)
            self._log(entry.item, entry.reports)

    @staticmethod
    def _tell(item: pytest.Item, result: Result) -> None:
        """Tell the hook of a suspect's result, once it is the last word."""
        item.config.hook.pytest_fluxperf_result(item=item, result=result)

    @staticmethod
    def _log(item: pytest.Item, reports: list[pytest.TestReport]) -> None:
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def is_suspect(result: Result) -> bool:
    """Whether the latency of a result is one that stage one could not pass."""
    return bool(suspects([result]))


def say(config: pytest.Config, line: str) -> None:
    """A line on the terminal of a session that has one and is not to be quiet."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.verbosity >= 0 and not is_worker(config):
        reporter.ensure_newline()
        reporter.write_line(f"fluxperf: {line}")


def child_arguments(config: pytest.Config) -> tuple[str, ...]:
    """What the user called pytest with, less the old environment: a child collects the same tests."""
    option = "--fluxperf-old-python"
    worker = getattr(config, "workerinput", None)
    given = worker["mainargv"][1:] if worker else config.invocation_params.args
    kept, words = [], iter(map(str, given))
    for word in words:
        if word == option:
            next(words, None)
        elif not word.startswith(f"{option}="):
            kept.append(word)
    # Without our option's path pytest might take another folder for its root, and tests would have other names.
    return (*kept, f"--rootdir={config.rootpath}")


def _is_repeated(item: pytest.Item) -> bool:
    """Whether another plugin runs the test several times, and has its own word on what counts."""
    plugins = item.config.pluginmanager
    return plugins.has_plugin("rerunfailures") and bool(
        getattr(item.config.option, "reruns", 0) or item.get_closest_marker("flaky")
    )
