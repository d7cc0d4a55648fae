"""The pytest plugin of a child: runs the tests that its conductor names, a generation at a time, when it may.

It is loaded by ``-p`` on the command line that :mod:`~pytest_fluxperf.ab.process` writes. Whatever the user's options
say of reports, reruns, workers or baselines is the conductor's business and is put out of force here.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import platform
import signal
import socket
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from _pytest import runner

import pytest_fluxperf
from pytest_fluxperf.ab.protocol import (
    PROTOCOL,
    REPORTS_VARIABLE,
    RUN_VARIABLE,
    SOCKET_VARIABLE,
    AnyMessage,
    Channel,
    Collected,
    Described,
    Finished,
    Generated,
    Go,
    Hello,
    Measured,
    Plan,
    Prepared,
    ProtocolError,
    Skip,
)
from pytest_fluxperf.bench.bench import Bench
from pytest_fluxperf.bench.run import Envelope
from pytest_fluxperf.bench.session import Session
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.machine.software import capture
from pytest_fluxperf.plugin.collect import make_bench, session_of
from pytest_fluxperf.plugin.stash import BENCH, RESULT, RUN_NAME
from pytest_fluxperf.results import Generation, Result, Skipped

_WITHOUT_FORCE: dict[str, Any] = {
    "maxfail": 0, "xmlpath": None, "htmlpath": None, "dist": "no", "tx": [], "numprocesses": None, "timeout": 0,
    "fluxperf_update": None, "fluxperf_append": False, "fluxperf_old_python": None, "fluxperf_strict": False,
    "continue_on_collection_errors": True,
}  # fmt: skip
"""Options that are the conductor's business, and their value here."""

_PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>: the signal that a process gets when its parent dies."""

_SET_ASIDE = ("lfplugin", "nfplugin", "stepwiseplugin", "pytest-retry", "fluxperf-session")
"""Plugins that would reorder tests, remember failures, repeat a test while its report is made, or write a report."""


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Before anything of the user's runs: end with the conductor, however it ends, also in the middle of a turn."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Introduce this process, before anything heavy is imported, and wait to be let in."""
    descriptor = os.environ.pop(SOCKET_VARIABLE, None)
    if descriptor is None:
        raise pytest.UsageError("pytest_fluxperf.plugin.child is loaded by an A/B comparison, not by hand")
    connection = socket.socket(fileno=int(descriptor))
    connection.set_inheritable(False)
    strict = bool(config.option.fluxperf_strict)
    for name, value in _WITHOUT_FORCE.items():
        if hasattr(config.option, name):
            setattr(config.option, name, value)
    config.option.fluxperf_reports = os.environ.pop(REPORTS_VARIABLE)
    config.stash[RUN_NAME] = os.environ.pop(RUN_VARIABLE)
    channel = Channel(connection)
    config.pluginmanager.register(_Child(channel, strict), "fluxperf-ab-child")
    channel.send(Hello(protocol=PROTOCOL, plugin=pytest_fluxperf.__version__, python=platform.python_version()))
    _heard(channel)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Run a test as pytest itself does: by no option, marker or plugin a second time, which would take no turns."""
    return runner.pytest_runtest_protocol(item, nextitem)


def _described(item: pytest.Item) -> tuple[str, Described]:
    case = item.stash[BENCH].case
    return item.nodeid, Described(recipe=case.recipe, reference=case.reference, workload=case.workload)


def _heard(channel: Channel) -> AnyMessage:
    """The conductor's next message; without a conductor there is nothing left to do."""
    try:
        message = channel.receive()
    except ProtocolError:
        pytest.exit("the conductor is gone", returncode=pytest.ExitCode.INTERRUPTED)
    if not isinstance(message, Go | Plan | Skip):
        pytest.exit("the conductor ended the comparison", returncode=0)
    return message


class _Child:
    def __init__(self, channel: Channel, strict: bool) -> None:
        self._channel = channel
        self._strict = strict
        self._refused: dict[str, str] = {}
        self._reports: list[pytest.TestReport] = []
        self._turns: _Turns | None = None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Set plugins aside that have no business here."""
        manager = session.config.pluginmanager
        for name in _SET_ASIDE:
            if manager.has_plugin(name):
                manager.unregister(name=name)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember modules that this environment cannot import: their tests are refused, the others can be compared."""
        if report.failed:
            self._refused[report.nodeid] = _import_error(report)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what is no fluxperf test, and tests that this environment does not understand."""
        for item in list(items):
            try:
                if item.get_closest_marker("fluxperf"):
                    make_bench(item)
                    continue
            except FluxPerfError as error:
                self._refused[item.nodeid] = error.without("test")
            items.remove(item)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Tell what was found, and take the plan."""
        if sys.exc_info()[1] is not None:
            return  # pytest calls this hook also when it refuses its arguments; it ends and its log says why
        items = {item.nodeid: item for item in session.items if BENCH in item.stash}
        found = Collected(tests=tuple(items), refused=self._refused, environment=capture())
        if items:
            ours = session_of(session.config)
            found = msgspec.structs.replace(
                found,
                described=dict(_described(item) for item in items.values()),
                lock=str(ours.lock_path),
                gpu=ours.gpu.name,
                hardware=ours.hardware,
                metrics=ours.settings.metrics,
                strict=self._strict,
                profile=ours.settings.profile,
                caveats=tuple(ours.info.caveats),
                baselines=str(ours.settings.baselines.absolute()),
                model=str(ours.info.source),
                random=ours.random,
            )
        self._channel.send(found)
        plan = _heard(self._channel)
        assert isinstance(plan, Plan)
        session.items = [items[test] for test in plan.tests if test in items]
        session.testscollected = len(session.items)
        if items:
            ours.turns = self._turns = _Turns(self._channel, ours, plan)
            ours.settings = dataclasses.replace(ours.settings, profile=False)  # when to profile, the conductor says
        for item in session.items:
            if not plan.quality or item.nodeid in plan.compared:
                bench = item.stash[BENCH]
                bench.change(settings=dataclasses.replace(bench.settings, reference="none"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Run a test when it is this process's turn, and tell what came of it."""
        assert self._turns is not None
        message = self._turns.begin(item)
        if isinstance(message, Skip):
            item.add_marker(pytest.mark.skip(reason=message.reason), append=False)
        self._reports = []
        ran = yield
        self._channel.send(self._finished(item))
        return ran

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the reports of the current test."""
        self._reports.append(report)

    def _finished(self, item: pytest.Item) -> Finished:
        bench = item.stash[BENCH]
        held, _ = memory_mib(bench.session.device)
        result = item.stash.get(RESULT, None)
        if result is not None:
            return Finished(
                test=item.nodeid,
                result=result,
                policy=bench.case.policy,
                environment=bench.session.environment,
                out_of_memory=result.measurement.out_of_memory,
                unprofiled=self._turns.unprofiled if self._turns else None,
                held_mib=held,
            )
        carried: list[Envelope] = [report.fluxperf for report in self._reports]
        for envelope in carried:
            if isinstance(envelope.outcome, Skipped):
                return Finished(test=item.nodeid, skipped=envelope.outcome.reason, held_mib=held)
        failed = next((_one_line(report) for report in self._reports if report.failed), "it was not run")
        return Finished(test=item.nodeid, failed=failed, out_of_memory=bench.out_of_memory, held_mib=held)


class _Turns:
    """The conversation during a test, as the bench sees it."""

    def __init__(self, channel: Channel, session: Session, plan: Plan) -> None:
        self._channel = channel
        self._session = session
        self._least = plan.least_pairs
        self.companions = plan.companions
        self.profile = False
        self.unprofiled: str | None = None
        self._bench: Bench | None = None

    def begin(self, item: pytest.Item) -> AnyMessage:
        self._bench, self.unprofiled = item.stash[BENCH], None
        return self._hear()

    def passes(self, prompts: int) -> int:
        return -(-self._least // prompts)

    def wait(self, made: Generation | None, total: int) -> None:
        bench = self._bench
        assert bench is not None
        if made is None:
            held, free = memory_mib(self._session.device)
            self._channel.send(
                Prepared(
                    test=bench.test,
                    workload=bench.case.workload.digest,
                    generations=total,
                    held_mib=held,
                    free_mib=free,
                    policy=bench.case.policy,
                )
            )
        else:
            self._channel.send(Generated(latency_s=made.latency_s))
        message = self._hear()
        if isinstance(message, Skip):
            pytest.skip(message.reason)

    def measured(self, result: Result) -> None:
        assert self._bench is not None
        self._channel.send(
            Measured(
                test=result.test,
                result=result,
                policy=self._bench.case.policy,
                environment=self._session.environment,
            )
        )
        self._hear()

    def _hear(self) -> AnyMessage:
        message = _heard(self._channel)
        self.profile = isinstance(message, Go) and message.profile
        return message


def memory_mib(device: str) -> tuple[float, float]:
    """Memory that this process holds and that is free beside it, MiB: the device's, or on a CPU the machine's."""
    if device.startswith("cuda"):
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return torch.cuda.memory_reserved(device) / 2**20, free / 2**20
    return _mib("/proc/self/status", "VmRSS:"), _mib("/proc/meminfo", "MemAvailable:")


def _mib(path: str, name: str) -> float:
    lines = Path(path).read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def _import_error(report: pytest.CollectReport) -> str:
    """The exception that ended the import of a test module."""
    lines = str(report.longrepr).splitlines()
    raised = [line.removeprefix("E").strip() for line in lines if line.startswith("E ")]
    return (raised or lines or ["it could not be collected"])[-1]


def _one_line(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    return (text.splitlines() or [""])[0].removeprefix("fluxperf: ")
