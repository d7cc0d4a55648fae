"""``--fluxperf-old-python``: what stage one could not pass is compared with the old environment in turns.

The reports of a suspect are held back until all tests have run. Then the suspects are interleaved, the worst first, and
each test's own report (call phase) is told with the verdict of the comparison.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from _pytest.runner import runtestprotocol

from pytest_fluxperf.ab.conductor import Conductor
from pytest_fluxperf.ab.outcome import comparison_of, grounds_of, with_notes, with_stage_one
from pytest_fluxperf.ab.process import check_protocol, find_python
from pytest_fluxperf.ab.trial import Terms, Trial
from pytest_fluxperf.baseline.update import fails
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate import interleaved
from pytest_fluxperf.plugin.collect import session_of
from pytest_fluxperf.plugin.report_edit import end_again
from pytest_fluxperf.plugin.reporting import envelope, record, with_properties
from pytest_fluxperf.plugin.stash import BENCH, RESULT, is_worker
from pytest_fluxperf.results import Judgement, Result

_OPTION = "--fluxperf-old-python"


@dataclass
class _Held:
    item: pytest.Item
    reports: list[pytest.TestReport]
    result: Result


class Escalation:
    """Hooks of a process that runs tests."""

    def __init__(self, config: pytest.Config, old_python: str, timeout_s: float) -> None:
        self._config = config
        self._old = find_python(old_python)
        if not is_worker(config):
            check_protocol(self._old)
        self._timeout_s = timeout_s
        self._held: list[_Held] = []

    @staticmethod
    def suspects(result: Result) -> bool:
        """Whether a result is one to be compared before it counts."""
        return bool(interleaved.suspects([result]))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Run a fluxperf test, and hold its reports back if it is a suspect."""
        if BENCH not in item.stash:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        result = item.stash.get(RESULT, None)
        if result is None or not self.suspects(result):
            self._log(item, reports)
        elif all(report.passed for report in reports if report.when != "call"):
            self._held.append(_Held(item, reports, result))
            if not is_worker(self._config):  # nor is it lost where the comparison is killed
                record(self._config, item.nodeid, envelope(self._config, result))
            self._say(f"{item.nodeid}: {result.judgement.verdict} so far, to be compared with the old environment")
        else:
            self._tell(item, result)
            self._log(item, reports)
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """After the last test, compare the suspects; a run that was broken off tells what it knows."""
        try:
            ran = yield
        except BaseException:
            self._release()
            raise
        if self._held:
            self._compare()
        self._release()
        return ran

    def _compare(self) -> None:
        session = session_of(self._config)
        session.close()  # the children need the device's memory
        held = {entry.item.nodeid: entry for entry in self._held}
        order = [result.test for result in interleaved.suspects([entry.result for entry in self._held])]
        terms = Terms(
            old=self._old,
            new=find_python(sys.executable),
            arguments=self._arguments(),
            folder=session.folder / self._place,
            timeout_s=self._timeout_s,
            quality=False,
            companions=(os.getpgrp(),),
        )
        conductor = Conductor(terms, self._say)
        try:
            trials = conductor.run(order)
        except FluxPerfError as error:
            for entry in self._held:
                self._decide(entry, _changed(entry.result.judgement, "invalid", f"no comparison was possible: {error}"))
            return
        for trial in trials:
            self._judge(held[trial.test], trial, conductor.ended)

    def _judge(self, entry: _Held, trial: Trial, ended: str | None) -> None:
        """Decide on a suspect by what the comparison, which may have ``ended`` early, says of it."""
        first = entry.result.judgement
        match trial:
            case Trial(trouble=trouble) if trouble and trouble.verdict != "no baseline":
                self._decide(entry, _changed(first, trouble.verdict, f"{trouble.message}; {first.message}"))
            case Trial(trouble=trouble) if trouble:  # stage one's own verdict stands
                self._warn(entry, trouble.message)
            case Trial(skipped=skipped) if skipped:
                self._warn(entry, f"not compared with the old environment: {skipped}")
            case Trial(interleaved=compared) if compared and not compared.another_block:
                bench = entry.item.stash[BENCH]
                times = compared.judgement(grounds_of(trial, bench.session.hardware))
                again = bench.judged_again(entry.result, times)
                self._decide(entry, with_notes(with_stage_one(again, entry.result), trial), trial)
            case _:
                reason = ended or "it stayed undecided"
                self._warn(entry, f"not compared with the old environment to the end: {reason}")

    def _warn(self, entry: _Held, text: str) -> None:
        """Leave stage one's verdict as it stands, with a warning that says why."""
        self._say(f"{entry.item.nodeid}: {text}")
        first = entry.result.judgement
        self._decide(entry, msgspec.structs.replace(first, warnings=(*first.warnings, text)))

    def _decide(self, entry: _Held, judgement: Judgement, trial: Trial | None = None) -> None:
        """Put the verdict into the item's own report."""
        comparison = comparison_of(trial, self._place) if trial else None
        entry.result = msgspec.structs.replace(entry.result, judgement=judgement, comparison=comparison)
        session = session_of(self._config)
        failed = fails(entry.result, strict=session.settings.strict, update=None, hardware=session.hardware)
        for report in entry.reports:
            report.user_properties = with_properties(report.user_properties, entry.result)
            if report.when == "call":
                end_again(entry.item, report, f"fluxperf: {judgement.verdict}: {judgement.message}" if failed else None)
                report.fluxperf = envelope(self._config, entry.result)  # type: ignore[attr-defined]

    @property
    def _place(self) -> str:
        """The comparison's folder within the run's."""
        return f"ab/{session_of(self._config).worker or 'main'}"

    def _release(self) -> None:
        """Tell what was held back."""
        held, self._held = self._held, []
        for entry in held:
            entry.item.ihook.pytest_runtest_logstart(nodeid=entry.item.nodeid, location=entry.item.location)
            self._tell(entry.item, entry.result)
            self._log(entry.item, entry.reports)

    def _tell(self, item: pytest.Item, result: Result) -> None:
        """Tell the hook of a suspect's result, once it is the last word."""
        item.config.hook.pytest_fluxperf_result(item=item, result=result)

    @staticmethod
    def _log(item: pytest.Item, reports: list[pytest.TestReport]) -> None:
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    def _say(self, line: str) -> None:
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and reporter.verbosity >= 0 and not is_worker(self._config):
            reporter.ensure_newline()
            reporter.write_line(f"fluxperf: {line}")

    def _arguments(self) -> tuple[str, ...]:
        """What the user called pytest with, less our own option: the children collect the same tests."""
        if is_worker(self._config):
            given = self._config.workerinput["mainargv"][1:]  # type: ignore[attr-defined]
        else:
            given = self._config.invocation_params.args
        kept, words = [], iter(map(str, given))
        for word in words:
            if word == _OPTION:
                next(words, None)
            elif not word.startswith(f"{_OPTION}="):
                kept.append(word)
        # Without our option's path pytest might take another folder for its root, and tests would have other names.
        return (*kept, f"--rootdir={self._config.rootpath}")


def _changed(judgement: Judgement, verdict: Any, message: str) -> Judgement:
    return msgspec.structs.replace(judgement, verdict=verdict, message=message)
