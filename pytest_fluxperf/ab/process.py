"""A child process as its conductor sees it: started, asked, and ended with everything it started."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, overload

from pytest_fluxperf.ab.checks import Conversation
from pytest_fluxperf.ab.protocol import (
    PROTOCOL,
    REPORTS_VARIABLE,
    RUN_VARIABLE,
    SOCKET_VARIABLE,
    AnyMessage,
    Channel,
    Collected,
    Go,
    Hello,
    Message,
    Plan,
    ProtocolError,
    Stop,
)
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.files import is_there

_GRACE_S = 5.0
"""Between the signal to end and the one that cannot be refused."""


_ASKED_S = 60.0
"""Longest time to import a module of few dependencies."""

_LOG_TAIL = 64 * 2**10
"""Bytes at the end of a log in which the last words are looked for."""

_LONGEST_LOG = 256 * 2**20
"""Bytes of a log that a child may write."""

_First = TypeVar("_First", bound=Message)
_Second = TypeVar("_Second", bound=Message)

_PROGRESS = re.compile(r"\S+\.py [.FEsxX]*\s*(\[\s*\d+%\])?")
"""Pytest's, of a module whose tests run."""


class SideFailed(FluxPerfError):
    """A child died, fell silent or spoke gibberish; ``name`` says which and ``reason`` what happened."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"the {name} environment's process {reason}")
        self.name = name


def find_python(path: str | Path) -> Path:
    """The interpreter of an environment: ``path`` itself, or the one in the folder of a virtual environment.

    A link is left as it is: what it points to is the interpreter without the environment. Raises FluxPerfError.
    """
    if is_there(path):
        path = Path(path).expanduser()
        candidates = [path / "bin" / "python", path / "python"] if path.is_dir() else [path]
        for candidate in candidates:
            if candidate.is_file() and os.access(candidate, os.X_OK):
                return candidate.absolute()
    raise FluxPerfError(f"{str(path)[:300]} is neither a Python interpreter nor the folder of a virtual environment")


def check_protocol(python: Path) -> None:
    """Raise FluxPerfError unless the plugin of that environment speaks our protocol; loads nothing that measures."""
    ask = (
        "import pytest_fluxperf as p; from pytest_fluxperf.ab.protocol import PROTOCOL; print(PROTOCOL, p.__version__)"
    )
    try:
        ran = subprocess.run([python, "-c", ask], capture_output=True, text=True, timeout=_ASKED_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FluxPerfError(f"{python} cannot be asked for its pytest-fluxperf: {error}") from None
    protocol, _, version = ran.stdout.strip().partition(" ")
    if ran.returncode:
        said = (ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"])[-1]
        raise FluxPerfError(f"{python}: {said}; install pytest-fluxperf with A/B protocol {PROTOCOL} there")
    if protocol != str(PROTOCOL):
        raise FluxPerfError(
            f"{python} speaks A/B protocol {protocol} (pytest-fluxperf {version}), this pytest-fluxperf protocol "
            f"{PROTOCOL}: install versions whose protocols agree"
        )


_GUARD = """
import os, signal, sys
sys.stdin.buffer.read()
try:
    os.killpg(int(sys.argv[1]), signal.SIGKILL)
except ProcessLookupError:
    pass
"""
"""Ends a process group when whoever holds the other end of its input is no more, however that came."""


class Side:
    """One process of one environment, in a process group of its own.

    Use it as a context manager: at the end nothing of that group runs any more. Where this process is killed, a guard
    ends the group; only what a body has moved to a session of its own escapes.

    Its output goes to a log file; the conversation has a socket of its own, so what a library prints does no harm.
    """

    def __init__(
        self, name: str, label: str, python: Path, arguments: Sequence[str], folder: Path, timeout_s: float
    ) -> None:
        self.name = name
        """``old`` or ``new``."""
        self.run = f"{name}-{label}"
        self.folder = folder / self.run
        self.log = folder / f"{self.run}.log"
        self.hello: Hello | None = None
        self.lost = False
        """It failed after all that mattered was said; there is no use in asking it more."""
        self._reports = folder
        self._python = python
        self._arguments = tuple(arguments)
        self._timeout_s = timeout_s
        self._conversation = Conversation()

    def __enter__(self) -> Side:
        ours, theirs = socket.socketpair()
        environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONHOME")}
        environment = {k: v for k, v in environment.items() if not k.startswith(("PYTEST_XDIST_", "PYTEST_CURRENT_"))}
        environment |= {
            "PATH": os.pathsep.join([str(self._python.parent), os.environ.get("PATH", os.defpath)]),
            SOCKET_VARIABLE: str(theirs.fileno()),
            RUN_VARIABLE: self.run,
            REPORTS_VARIABLE: str(self._reports),
        }
        command = [str(self._python), "-m", "pytest", "-p", "pytest_fluxperf.plugin.child", *self._arguments]
        try:
            with self.log.open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            raise FluxPerfError(f"cannot start {self._python}: {error.strerror or error}") from None
        finally:
            theirs.close()
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD, str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._channel = Channel(ours)
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(ProtocolError):
            self._channel.send(Stop())
        self._channel.close()
        if failure is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)  # it takes its leave by itself
        self._end(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        self._end(signal.SIGKILL)
        self._guard.kill()  # before the group's number is free for another
        self._guard.communicate()
        self._process.wait()

    @property
    def group(self) -> int:
        """Its process group."""
        return self._process.pid

    def greet(self) -> Hello:
        """Wait for its first words and check that it can be understood; nothing is measured before.

        Raises FluxPerfError when it has no plugin of this protocol.
        """
        try:
            hello = self._channel.receive(self._timeout_s, self._watch_log)
        except ProtocolError as error:
            how = self._how(error)
            remedy = ""
            if re.search(r"No module named '?pytest|Error importing plugin \"pytest_fluxperf", how):
                remedy = f"; does it have pytest-fluxperf with A/B protocol {PROTOCOL}?"
            raise FluxPerfError(f"the {self.name} environment ({self._python}) {how}{remedy}") from None
        if not isinstance(hello, Hello) or hello.protocol != PROTOCOL:
            theirs = "something else"
            if isinstance(hello, Hello):
                theirs = f"protocol {hello.protocol} (pytest-fluxperf {hello.plugin})"
            raise FluxPerfError(
                f"the {self.name} environment ({self._python}) speaks A/B {theirs}, this pytest-fluxperf protocol "
                f"{PROTOCOL}: install versions whose protocols agree"
            )
        self.hello = hello
        return hello

    def collect(self) -> Collected:
        """Let it collect its tests; raises FluxPerfError with the reason that pytest gave when it refuses."""
        try:
            found = self.ask(Go(), Collected)
        except SideFailed as error:
            raise FluxPerfError(f"{error}, before any test") from None
        if found.tests and (found.hardware is None or not found.gpu):
            raise FluxPerfError(f"the {self.name} environment's process did not say on which hardware it runs")
        return found

    def plan(self, plan: Plan) -> None:
        """Tell it what to run."""
        self._tell(plan)

    @overload
    def ask(self, message: AnyMessage) -> AnyMessage: ...
    @overload
    def ask(self, message: AnyMessage, kind: type[_First], /) -> _First: ...
    @overload
    def ask(self, message: AnyMessage, kind: type[_First], other: type[_Second], /) -> _First | _Second: ...
    def ask(self, message: AnyMessage, *kinds: type[Message]) -> Message:
        """Say something and wait for the answer, which is one of ``kinds``; raises :class:`SideFailed`."""
        self._tell(message)
        try:
            answer = self._channel.receive(self._timeout_s, self._watch_log)
            self._conversation.check(answer)
            if kinds and not isinstance(answer, kinds):
                due = " or ".join(kind.__name__ for kind in kinds)
                raise ProtocolError(f"said {type(answer).__name__} where {due} was due")
        except ProtocolError as error:
            raise SideFailed(self.name, self._how(error)) from None
        return answer

    def _watch_log(self) -> None:
        if self.log.stat().st_size > _LONGEST_LOG:
            raise ProtocolError(f"flooded its log with more than {_LONGEST_LOG / 2**20:.0f} MiB")

    def _tell(self, message: AnyMessage) -> None:
        try:
            self._channel.send(message)
        except ProtocolError as error:
            raise SideFailed(self.name, self._how(error)) from None

    def _how(self, error: ProtocolError) -> str:
        """What happened to it, with the last thing it said and where to read more."""
        what = str(error)
        if what == "ended":
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
            code = self._process.returncode
            if code is not None:
                what = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
        said = _last_words(self.log)
        return f"{what}{f': {said}' if said else ''} (log: {self.log})"

    def _end(self, number: signal.Signals) -> None:
        """Signal the whole group; its leader has not been waited for or its pid is still ours to name."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _last_words(log: Path) -> str:
    """What pytest complained of at the end of a log, else the last line."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL))
            text = file.read(_LOG_TAIL).decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _PROGRESS.fullmatch(line.strip())]
    complaints = [
        line.removeprefix("ERROR: ").removeprefix("python -m ").removeprefix("pytest: error: ")
        for line in lines
        if line.startswith(("ERROR: ", "Fatal Python error")) or "pytest: error: " in line
    ]
    said = [*lines[-1:], *complaints][-1:]
    return said[0][:300] if said else ""
