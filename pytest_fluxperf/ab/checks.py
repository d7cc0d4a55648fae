"""What a child says is checked where it arrives: by its place in the conversation, and by its values.

A child runs other people's code. What it says in a wrong place, or a value that nobody can have measured, ends it.
"""

from __future__ import annotations

import math
from pathlib import PurePosixPath

from msgspec.structs import replace

from pytest_fluxperf.ab.protocol import (
    AnyMessage,
    Collected,
    Finished,
    Generated,
    Hello,
    Measured,
    Prepared,
    ProtocolError,
)
from pytest_fluxperf.baseline.codec import check
from pytest_fluxperf.baseline.run import baseline_of
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.results import TRACES, Environment, Hardware, Result


class Conversation:
    """Which message may come next: Hello, Collected, then of every test Prepared, Generated ..., Measured, Finished."""

    def __init__(self) -> None:
        self._left: int | None = None
        """Generations that are still to come of the test at hand; None where it was not prepared."""
        self._measured = False

    def check(self, message: AnyMessage) -> None:
        """Raise :class:`ProtocolError` for a message out of its place, or with a value that cannot be."""
        match message:
            case Prepared() if self._left is None:
                self._left = message.generations
            case Generated() if self._left:
                self._left -= 1
                _check_seconds(message.latency_s)
            case Measured() if self._left == 0 and not self._measured:
                self._measured = True
                _check_result(message.result, message.environment, message.policy)
            case Finished():
                self._left, self._measured = None, False
                if message.result is not None:
                    _check_result(message.result, message.environment, message.policy)
            case Hello() | Collected() if self._left is None:
                pass
            case _:
                raise ProtocolError(f"said {type(message).__name__!r}, which was not due")


def _check_seconds(seconds: float) -> None:
    if not (math.isfinite(seconds) and seconds > 0):
        raise ProtocolError(f"says that a generation took {seconds} s")


def _check_result(result: Result, environment: Environment | None, policy: Policy | None) -> None:
    if environment is None or policy is None:
        raise ProtocolError("says nothing of the environment or the tolerances of its result")
    for generation in result.measurement.generations:
        _check_seconds(generation.latency_s)
    _check_files(result)
    if result.run is None:
        return
    made, prompts = len(result.measurement.generations), len(result.workload.prompts)
    run = replace(result.run, environment=environment.digest)  # another version may count more to the digest
    anywhere = Hardware(kind="cpu", name="")
    stored = baseline_of(result, [run], hardware=anywhere, environment=environment, tau0=policy.tau0, nu0=policy.nu0)
    try:
        check(stored, result.test, "nobody can have measured that")
    except FluxPerfError as error:
        raise ProtocolError(f"sent a bad value: {error}") from None
    if made % prompts:
        raise ProtocolError(f"sent {made} generations of {prompts} prompts")


def _check_files(result: Result) -> None:
    """Pictures and traces lie in the child's own folder."""
    pictures = [generation.picture for generation in result.measurement.generations]
    for quality in (result.quality, result.drift):
        if quality is not None:
            pictures += [*quality.references, *quality.flip_maps]
    traces = () if result.measurement.kernels is None else result.measurement.kernels.traces
    for name in (*(picture.path for picture in pictures if picture is not None), *traces):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or (name in traces and path.parts[:1] != (TRACES,)):
            raise ProtocolError(f"names a file outside of its folder: {name!r:.100}")
