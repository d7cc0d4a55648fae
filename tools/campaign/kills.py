"""Whole sessions that are killed, or whose disk is full: what is left is whole or not there, and never green.

A process that has imported everything forks for each session, so that a session takes a second and not twenty.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from pytest_fluxperf.baseline.codec import decode
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.report import load_document
from tools.campaign.watch import Figures

TESTS = 8
SUITE = f"""
import subprocess
import numpy as np
import pytest

from pytest_fluxperf.bench import session


class WorkClock:
    now = 0.0

    def mark(self):
        return WorkClock.now

    def synchronize(self):
        pass

    def seconds(self, start, end):
        return end - start


session.clock_for = lambda device: WorkClock()


@pytest.mark.fluxperf(prompts=["one", "fifteen", "a hundred"], warmup=0)
@pytest.mark.parametrize("number", range({TESTS}))
def test_picture(flux_inputs, number):
    WorkClock.now += 1.0
    return np.random.default_rng(len(flux_inputs["prompt"])).random((48, 64, 3))
"""
MODES = ("--fluxperf-update=all", "--fluxperf-update=all", "--fluxperf-append", "--fluxperf-strict")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_OPTIONS = ("-q", "-p", "no:cacheprovider", "-p", "no:benchmark", "-p", "no:hypothesispytest", "--gpu=cpu")
_LONGEST_S = 120.0


class Sessions:
    """Sessions of a small suite in folders of their own, from one set of baselines."""

    def __init__(self, folder: Path, figures: Figures) -> None:
        self._folder = folder
        self._figures = figures
        self._count = 0
        self._recorded = self._project("recorded")
        begun = time.monotonic()
        if self._wait(self._start(self._recorded, "--fluxperf-update=all")) != 0:
            raise SystemExit(f"the suite cannot be recorded: {(self._recorded / 'log').read_text()[-2000:]}")
        self.seconds = time.monotonic() - begun

    def kill(self, random: Random) -> None:
        """Kill a session somewhere, and look at what it left."""
        project = self._copied()
        number = random.choice(SIGNALS)
        pid = self._start(project, random.choice(MODES))
        time.sleep(random.uniform(0.0, 1.05) * self.seconds)
        os.kill(pid, number)
        status = self._wait(pid)
        self._figures.tried["sessions killed"] += 1
        look_at(project, status, pid, signal.Signals(number).name, self._figures)
        shutil.rmtree(project, ignore_errors=True)

    def fill(self, random: Random) -> None:
        """Run a session on a disk that is too small for it."""
        project = self._copied(baselines=False)
        size_kib = random.choice((4, 16, 40, 64, 100, 200, 400))
        with small_disk(project, size_kib) as limit:
            pid = self._start(project, "--fluxperf-update=all", before=limit)
            status = self._wait(pid)
            name = "sessions on a small disk" if limit is None else "sessions with a limit on files"
            self._figures.tried[name] += 1
            look_at(project, status, pid, f"{size_kib} KiB", self._figures)
        shutil.rmtree(project, ignore_errors=True)

    def _project(self, name: str) -> Path:
        project = self._folder / name
        (project / "disk").mkdir(parents=True)
        (project / "test_suite.py").write_text(SUITE)
        (project / "pytest.ini").write_text("[pytest]\n")
        return project

    def _copied(self, *, baselines: bool = True) -> Path:
        self._count += 1
        project = self._project(f"session-{self._count}")
        if baselines:
            shutil.copytree(self._recorded / "disk" / "baselines", project / "disk" / "baselines")
        return project

    @staticmethod
    def _start(project: Path, *options: str, before: Callable[[], None] | None = None) -> int:
        pid = os.fork()
        if pid:
            return pid
        status = 70
        try:  # from here on the session's own process
            os.setsid()
            os.chdir(project)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL, signal.SIGINT) else None
            log = os.open("log", os.O_WRONLY | os.O_CREAT)
            os.dup2(log, 1)
            os.dup2(log, 2)
            if before is not None:
                before()
            folders = ("--fluxperf-baselines=disk/baselines", "--fluxperf-reports=disk/reports")
            status = int(pytest.main([*_OPTIONS, *folders, *options, "test_suite.py"]))
        finally:
            os._exit(status)

    @staticmethod
    def _wait(pid: int) -> int:
        deadline = time.monotonic() + _LONGEST_S
        while time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return 124


def look_at(project: Path, status: int, group: int, what: str, figures: Figures) -> None:
    """Look at everything that a session left which was ended by ``what``; its process group was ``group``."""
    log = (project / "log").read_text(errors="replace")
    if "INTERNALERROR" in log or "Traceback (most recent" in log:
        figures.found("tracebacks", f"session, {what}: {log[-600:]!r}")
    try:
        os.killpg(group, signal.SIGKILL)
        figures.found("orphans", f"session, {what}")
    except ProcessLookupError:
        pass
    for path in (project / "disk" / "baselines").rglob("*"):
        if problem := _torn(path):
            figures.found("torn files", f"session, {what}: {problem}")
    for run in (project / "disk" / "reports").glob("*"):
        try:
            document = load_document(run)
        except FluxPerfError as error:
            if "damaged" in str(error) or "is not a" in str(error):
                figures.found("torn files", f"session, {what}: {error}")
            if status == 0:
                figures.found("false greens", f"session, {what}: 0 without a document")
            continue
        whole = len(document.results) == TESTS and not any("had not ended" in text for text in document.warnings)
        if status == 0 and not whole:
            figures.found("false greens", f"session, {what}: 0 after {len(document.results)} tests")


def _torn(path: Path) -> str | None:
    """What is wrong with a file among the baselines."""
    if path.suffix == ".json":
        try:
            decode(path.read_bytes(), str(path))
        except FluxPerfError as error:
            return str(error)
    if path.suffix == ".png" and hashlib.sha256(path.read_bytes()).hexdigest() != path.stem:
        return f"{path} does not hold what its name says"
    return None


@contextmanager
def small_disk(project: Path, size_kib: int) -> Iterator[Callable[[], None] | None]:
    """A disk of ``size_kib``; where none can be mounted, a limit on each file, which the session has to set."""
    disk = project / "disk"
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "none", str(disk)]
    try:
        mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        limit = size_kib * 1024 // 8
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        return
    try:
        yield None
    finally:
        subprocess.run(["umount", str(disk)], check=False, capture_output=True)
