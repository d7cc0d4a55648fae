"""What crosses between the conductor and its two children: typed JSON lines over a socket.

A child works only between a message it received and the one message it answers with, so at any time at most one of
the two works: the turn is the conversation itself.
"""

from __future__ import annotations

import math
import select
import socket
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any

import msgspec
from msgspec import inspect

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.results import Environment, Hardware, Result, Workload

PROTOCOL = 1
"""Raised when an older side could misread a message. Fields may be added: what a side does not know it ignores."""

SOCKET_VARIABLE = "FLUXPERF_AB_SOCKET"
"""Environment variable that holds the number of the child's end of the socket."""

_LONGEST_LINE = 256 * 2**20

_WATCH_S = 1.0
"""How often whoever waits looks at something else."""


class ProtocolError(FluxPerfError):
    """The other side closed, fell silent, or said something that is no message."""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="say", tag=str.lower):
    """Base of all messages."""


# From a child ---------------------------------------------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True):
    """First words, before anything is imported that measures."""

    protocol: int
    plugin: str
    """Version of pytest-fluxperf."""
    python: str


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """What a report says of a test, also of one that is never measured."""

    recipe: str | None
    reference: str
    workload: Workload


class Collected(Message, frozen=True, kw_only=True):
    """The tests were found, and device, model and prompts checked."""

    tests: tuple[str, ...]
    described: dict[str, Described] = {}
    environment: Environment | None = None
    """None of a plugin that did not tell it yet."""
    refused: dict[str, str] = {}
    """Tests whose recipe or marker this environment does not know, and modules it cannot import, and why."""
    lock: str | None = None
    """File of the device's lock."""
    gpu: str = ""
    hardware: Hardware | None = None
    metrics: tuple[str, ...] = ()
    strict: bool = False
    profile: bool = False
    """Whether the user wants every test profiled."""
    caveats: tuple[str, ...] = ()
    """What the model under test cannot tell."""
    baselines: str = ""
    """Folder of the baselines, beside which published figures lie."""
    model: str = ""
    """Where the model comes from."""
    random: bool = False
    """Whether it has random weights."""

    def why_not(self, test: str) -> str:
        """Why ``test`` was not found."""
        module = test.partition("::")[0]
        return self.refused.get(test) or self.refused.get(module) or "it has no such test"

    def require_tests(self, elsewhere: Sequence[str] = ()) -> None:
        """Raise FluxPerfError unless there are tests, and all that were asked for.

        What another environment found (``elsewhere``) is no mistake of who asked for it.
        """
        for test, reason in self.refused.items():
            if not any(test in (known, known.partition("::")[0]) for known in elsewhere):
                raise FluxPerfError(f"{test}: {reason}")
        if elsewhere:
            return
        if not self.tests:
            raise FluxPerfError("no fluxperf test was collected; name the tests after --")


class Prepared(Message, frozen=True, kw_only=True):
    """The test is set up and warm."""

    test: str
    workload: str
    """Digest of what it generates."""
    generations: Annotated[int, msgspec.Meta(ge=1)]
    """How many are to come."""
    held_mib: float
    """Device memory (on a CPU: resident) of this process, now that it has run the test."""
    free_mib: float
    """Device memory that is free beside it."""
    policy: Policy | None = None
    """As in :class:`Finished`."""


class Generated(Message, frozen=True, kw_only=True):
    """One generation was made."""

    latency_s: float


class Measured(Message, frozen=True, kw_only=True):
    """The test is measured and will be profiled on the next :class:`Go`: what is known, should that go wrong.

    Said only to a conductor that asked for a profile.
    """

    test: str
    result: Result
    policy: Policy
    environment: Environment

    @property
    def finished(self) -> Finished:
        """What is known as the end of the test."""
        return Finished(test=self.test, result=self.result, policy=self.policy, environment=self.environment)


class Finished(Message, frozen=True, kw_only=True):
    """The test is over and torn down. One of ``result``, ``skipped`` and ``failed`` is set."""

    test: str
    result: Result | None = None
    policy: Policy | None = None
    """The test's tolerances."""
    environment: Environment | None = None
    skipped: str | None = None
    failed: str | None = None
    """Why there is no result: one line."""
    out_of_memory: bool = False
    """Whether the device's memory did not suffice."""
    unprofiled: str | None = None
    """Why there is no profile, where one was asked for: one line."""
    held_mib: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether the test was measured to its end, or would have been on a fit machine."""
        return self.result is not None and bool(self.result.run or self.result.measurement.unfit)


# To a child -----------------------------------------------------------------------------------------------


class Go(Message, frozen=True, kw_only=True):
    """It is your turn: go on to the next message."""

    profile: bool = False
    """Once the test is measured, profile one more generation."""


class Plan(Message, frozen=True, kw_only=True):
    """Run these tests, in this order."""

    tests: tuple[str, ...]
    least_pairs: int
    """Generations of a test at least; prompts are gone through as often as that takes."""
    quality: bool
    """Whether pictures are to be compared with the reference recipe's."""
    compared: tuple[str, ...] = ()
    """Tests whose pictures were compared already."""
    companions: tuple[int, ...] = ()
    """Process groups that hold the device as well and keep still."""


class Skip(Message, frozen=True, kw_only=True):
    """Leave the current test as it stands; answered by :class:`Finished`."""

    reason: str


class Stop(Message, frozen=True, kw_only=True):
    """No more tests."""


AnyMessage = Hello | Collected | Prepared | Generated | Measured | Finished | Go | Plan | Skip | Stop


class Channel:
    """One end of the conversation."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = b""

    def send(self, message: AnyMessage) -> None:
        """Say something; raises :class:`ProtocolError` when the other side is gone."""
        try:
            self._socket.sendall(msgspec.json.encode(message) + b"\n")
        except OSError:
            raise ProtocolError("ended") from None

    def receive(self, timeout_s: float = math.inf, watch: Callable[[], None] = lambda: None) -> AnyMessage:
        """The other side's next message.

        ``watch`` is called every second and may raise. Raises :class:`ProtocolError`: it ended, said nothing for
        ``timeout_s`` seconds, or what it said is no message.
        """
        deadline = time.monotonic() + timeout_s
        scanned = 0
        while (end := self._buffer.find(b"\n", scanned)) < 0:
            scanned = len(self._buffer)
            watch()
            left = deadline - time.monotonic()
            if left <= 0:
                raise ProtocolError(f"did not answer for {timeout_s:.4g} s")
            if not select.select([self._socket], [], [], min(left, _WATCH_S))[0]:
                continue
            try:
                more = self._socket.recv(2**16)
            except OSError:
                more = b""
            if not more:
                raise ProtocolError("ended")
            self._buffer += more
            if len(self._buffer) > _LONGEST_LINE:
                raise ProtocolError(f"sent what is no message of this protocol: {self._buffer[:60]!r}")
        line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        try:
            message: AnyMessage = tolerant(msgspec.json.decode(line), AnyMessage)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, FluxPerfError):  # the last: tolerances
            raise ProtocolError(f"sent what is no message of this protocol: {line[:60]!r}") from None
        return message

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def tolerant(value: Any, kind: Any) -> Any:
    """``value`` (plain builtins) as ``kind``, without the fields that this version does not know."""
    return msgspec.convert(_known(value, _type_info(kind)), kind)


_type_info = cache(inspect.type_info)


def _known(value: Any, kind: inspect.Type) -> Any:
    match kind:
        case inspect.UnionType() if isinstance(value, dict):
            options = [option for option in kind.types if isinstance(option, inspect.StructType)]
            fits = [o for o in options if o.tag_field is None or value.get(o.tag_field, o.tag) == o.tag]
            return _known(value, fits[0]) if fits else value
        case inspect.UnionType() if isinstance(value, list):
            lists = [o for o in kind.types if isinstance(o, inspect.VarTupleType | inspect.ListType)]
            return _known(value, lists[0]) if lists else value
        case inspect.StructType() | inspect.DataclassType() if isinstance(value, dict):
            known = {field.encode_name: field.type for field in kind.fields}
            tag = getattr(kind, "tag_field", None)
            return {k: _known(v, known[k]) if k in known else v for k, v in value.items() if k in known or k == tag}
        case inspect.VarTupleType() | inspect.ListType() if isinstance(value, list | tuple):
            return [_known(item, kind.item_type) for item in value]
        case inspect.DictType() if isinstance(value, dict):
            return {key: _known(item, kind.value_type) for key, item in value.items()}
    return value


RUN_VARIABLE = "FLUXPERF_AB_RUN"
"""Environment variable that holds the name of this child's folder."""


REPORTS_VARIABLE = "FLUXPERF_AB_REPORTS"
"""Environment variable that holds the folder of the comparison."""
