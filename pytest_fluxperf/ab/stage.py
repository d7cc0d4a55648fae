"""Processes, memory and files of an A/B comparison: what the conductor's decisions stand on."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path, PurePath

from pytest_fluxperf.ab.process import Side, SideFailed
from pytest_fluxperf.ab.protocol import Collected, Finished, Go, Measured, Plan, Prepared, Skip
from pytest_fluxperf.ab.trial import Terms, Trial
from pytest_fluxperf.files import locked
from pytest_fluxperf.results import TRACES

_MEMORY_MARGIN = 1.05


_MEMORY_RESERVE_MIB = 1024.0
"""What a second process needs beside the first one's peak: a device context, and fragmentation."""


class Stage:
    """Starts the processes of a comparison, lets them work, and knows what they hold and have lost."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.held_mib = {"old": 0.0, "new": 0.0}
        """Device memory of the processes at work, as far as they have told."""
        self.lost: list[str] = []
        """Processes that were lost in a profile; what they had measured was not."""

    @contextmanager
    def process(self, name: str, label: str) -> Iterator[Side]:
        """A process of one environment, ``old`` or ``new``; its files are the comparison's at the end."""
        terms = self._terms
        python = terms.old if name == "old" else terms.new
        side = Side(name, label, python, terms.arguments, terms.folder, terms.timeout_s)
        self.held_mib[name] = 0.0
        try:
            with side:
                yield side
        finally:  # also of one that died: what was compared before is reported
            self._keep_files(side)

    def _keep_files(self, side: Side) -> None:
        """Move a side's pictures, which are named by their content, and its traces to the comparison's own."""
        images = self._terms.folder / "images"
        images.mkdir(exist_ok=True)
        for picture in (side.folder / "images").glob("*"):
            picture.replace(images / picture.name)
        traces = self._terms.folder / trace_folder(side.run)
        if (side.folder / TRACES).is_dir():
            traces.parent.mkdir(exist_ok=True)
            (side.folder / TRACES).replace(traces)
        shutil.rmtree(side.folder, ignore_errors=True)

    def collect(self, *sides: Side) -> list[Collected]:
        """What each found: both are understood before either collects, and have collected before either measures."""
        for side in sides:
            side.greet()
        return [side.collect() for side in sides]

    def plan(self, side: Side, trials: Sequence[Trial], *companions: int) -> None:
        """Tell a side what to run, beside the process groups ``companions``, which keep still."""
        compared = tuple(trial.test for trial in trials if trial.of(side.name))
        side.plan(
            Plan(
                tests=tuple(trial.test for trial in trials),
                least_pairs=self._terms.least_pairs,
                # a version that does not know what was compared compares all again, so it is asked only when it must
                quality=self._terms.quality and len(compared) < len(trials),
                compared=compared,
                companions=(*self._terms.companions, *companions),
            )
        )

    def drive(self, side: Side, trial: Trial, *, profile: bool = False) -> Finished:
        """Let a side run its test to the end without turns; one that is lost in the profile has finished before."""
        measured: Measured | None = None
        while True:
            try:
                message = side.ask(Go(profile=profile))
            except SideFailed as error:
                if measured is None:
                    raise
                side.lost = True
                self.lost.append(str(error))
                trial.notes.append(f"not profiled: {error}")
                return measured.finished
            if isinstance(message, Finished):
                if message.unprofiled:
                    trial.notes.append(f"the {side.name} environment could not be profiled: {message.unprofiled}")
                self.held_mib[side.name] = message.held_mib
                return message
            if isinstance(message, Measured):
                measured = message

    def leave(self, side: Side, reason: str) -> None:
        """Have a side leave its current test, or its next one."""
        self.held_mib[side.name] = side.ask(Skip(reason=reason), Finished).held_mib

    def fits(self, first: Prepared, second: Side) -> bool:
        """Whether a second process can run beside the first."""
        return fits(first, self.held_mib[second.name])


def device_lock(found: Collected) -> AbstractContextManager[None]:
    """The lock of the device that a process has found."""
    return locked(Path(found.lock)) if found.lock else nullcontext()


_ENDINGS = (signal.SIGTERM, signal.SIGHUP)
"""What a service manager and a terminal that is closed send."""


@contextmanager
def until_terminated() -> Iterator[None]:
    """Leave in order when told to end, so that both sides do; signals reach the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in _ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def trace_folder(run: str) -> PurePath:
    """Where the traces of a side's process lie, relative to the comparison's folder."""
    return PurePath(TRACES, run)


def fits(first: Prepared, second_held_mib: float) -> bool:
    """Whether a second process can run beside the first, judged by what the first one holds when it is warm.

    The second may already hold memory from earlier tests, which it will use again.
    """
    need = _MEMORY_MARGIN * first.held_mib + _MEMORY_RESERVE_MIB
    return first.free_mib + second_held_mib >= need
