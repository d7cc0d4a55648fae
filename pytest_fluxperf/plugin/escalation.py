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
from pytest_fluxperf.ab.outcome import comparison_of, grounds_of, with_notes
from pytest_fluxperf.ab.process import check_protocol, find_python
from pytest_fluxperf.ab.trial import Terms, Trial
from pytest_fluxperf.baseline.update import fails
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.interleaved import suspects
from pytest_fluxperf.plugin.collect import session_of
from pytest_fluxperf.plugin.stash import BENCH, PAYLOAD, failure, is_worker
from pytest_fluxperf.report import junit_properties
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

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Run a fluxperf test, and hold its reports back if it is a suspect."""
        if BENCH not in item.stash:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        payload = item.stash.get(PAYLOAD, {})
        result = msgspec.convert(payload, Result) if "judgement" in payload else None
        if result is not None and suspects([result]) and all(r.passed for r in reports if r.when != "call"):
            self._held.append(_Held(item, reports, result))
            if not is_worker(self._config):  # nor is it lost where the comparison is killed
                session_of(self._config).collect(payload)
            self._say(f"{item.nodeid}: {result.judgement.verdict} so far, to be compared with the old environment")
        else:
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
        order = [result.test for result in suspects([entry.result for entry in self._held])]
        terms = Terms(
            old=self._old,
            new=find_python(sys.executable),
            arguments=self._arguments(),
            folder=session.folder / self._place,
            timeout_s=self._timeout_s,
            quality=False,
            companions=(os.getpgrp(),),
        )
        try:
            trials = Conductor(terms, self._say).run(order)
        except FluxPerfError as error:
            for entry in self._held:
                self._decide(entry, _failed(entry.result.judgement, "invalid", f"no comparison was possible: {error}"))
            return
        for trial in trials:
            self._judge(held[trial.test], trial)

    def _judge(self, entry: _Held, trial: Trial) -> None:
        result = entry.result
        if trial.interleaved is None or trial.interleaved.another_block or trial.trouble:
            if trial.trouble:
                said = f"{trial.trouble.message}; {result.judgement.message}"
                if trial.trouble.verdict == "no baseline":  # stage one's own verdict stands
                    judgement = msgspec.structs.replace(
                        result.judgement, warnings=(*result.judgement.warnings, trial.trouble.message)
                    )
                else:
                    judgement = _failed(result.judgement, trial.trouble.verdict, said)
                self._decide(entry, judgement)
            return
        bench = entry.item.stash[BENCH]
        judgement = bench.judged_again(result, trial.interleaved, grounds_of(trial, bench.session.hardware))
        self._decide(entry, with_notes(judgement, trial), trial)

    def _decide(self, entry: _Held, judgement: Judgement, trial: Trial | None = None) -> None:
        """Put the verdict into the item's own report."""
        comparison = comparison_of(trial, self._place) if trial else None
        entry.result = msgspec.structs.replace(entry.result, judgement=judgement, comparison=comparison)
        entry.item.stash[PAYLOAD] = msgspec.to_builtins(entry.result)
        entry.item.config.hook.pytest_fluxperf_result(item=entry.item, result=entry.result)
        session = session_of(self._config)
        failed = fails(entry.result, strict=session.settings.strict, update=None, hardware=session.hardware)
        properties = dict(junit_properties(entry.result))
        for report in entry.reports:
            report.user_properties = [
                *((k, v) for k, v in report.user_properties if k not in properties),
                *properties.items(),
            ]
            if report.when == "call":
                said = f"fluxperf: {judgement.verdict}: {judgement.message}" if failed else None
                vars(report).pop("wasxfail", None)
                vars(report).update(_ending(entry.item, said), fluxperf=entry.item.stash[PAYLOAD])

    @property
    def _place(self) -> str:
        """The comparison's folder within the run's."""
        return f"ab/{session_of(self._config).worker or 'main'}"

    def _release(self) -> None:
        """Tell the reports that were held back."""
        held, self._held = self._held, []
        for entry in held:
            entry.item.ihook.pytest_runtest_logstart(nodeid=entry.item.nodeid, location=entry.item.location)
            self._log(entry.item, entry.reports)

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


def _ending(item: pytest.Item, failed: str | None) -> dict[str, Any]:
    """What pytest reports of a test whose body passes, or fails with a message: what xfail makes of it is its business.

    Other plugins have seen the test end once, and are not asked.
    """

    def end() -> None:
        if failed is not None:
            raise failure(failed)

    manager = item.config.pluginmanager
    others = [plugin for name, plugin in manager.list_name_plugin() if name not in ("runner", "skipping")]
    make = manager.subset_hook_caller("pytest_runtest_makereport", others)
    report = make(item=item, call=pytest.CallInfo.from_call(end, when="call"))
    return {name: getattr(report, name) for name in ("outcome", "longrepr", "wasxfail") if hasattr(report, name)}


def _failed(judgement: Judgement, verdict: Any, message: str) -> Judgement:
    return msgspec.structs.replace(judgement, verdict=verdict, message=message)
