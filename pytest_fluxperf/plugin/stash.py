"""What the plugin keeps on pytest's objects, and how our errors become pytest's. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pytest_fluxperf.errors import FluxPerfError, Unavailable

if TYPE_CHECKING:
    from pytest_fluxperf.bench.bench import Bench
    from pytest_fluxperf.bench.run import Run
    from pytest_fluxperf.bench.session import Session
    from pytest_fluxperf.results import Result
    from pytest_fluxperf.settings import RunSettings

DEFERRAL = "fluxperf-deferral"
"""Name of the plugin that holds the reports of suspects back until the end of the session."""

SETTINGS: pytest.StashKey[RunSettings] = pytest.StashKey()
SESSION: pytest.StashKey[Session] = pytest.StashKey()
RUN: pytest.StashKey[Run] = pytest.StashKey()
BENCH: pytest.StashKey[Bench] = pytest.StashKey()
RESULT: pytest.StashKey[Result | None] = pytest.StashKey()
"""On an item whose body was called: what came of it."""
RUN_NAME: pytest.StashKey[str] = pytest.StashKey()
REFUSED: pytest.StashKey[str] = pytest.StashKey()
"""In an xdist worker, and in the controller that heard of it: why nothing can be measured."""


def run_name(config: pytest.Config) -> str:
    """Name of the run, shared by xdist's workers."""
    if is_worker(config):
        return str(config.workerinput["fluxperf_run"])  # type: ignore[attr-defined]
    if RUN_NAME not in config.stash:
        from pytest_fluxperf.report.document import new_run_name

        config.stash[RUN_NAME] = new_run_name()
    return config.stash[RUN_NAME]


def is_worker(config: pytest.Config) -> bool:
    """True in a worker process of pytest-xdist."""
    return hasattr(config, "workerinput")


def refuse(config: pytest.Config, error: FluxPerfError) -> None:
    """End the run before anything is measured; an xdist worker cannot, so its tests fail with the message."""
    if not is_worker(config):
        raise pytest.UsageError(str(error)) from None
    config.stash.setdefault(REFUSED, str(error))


def forgo_trace() -> None:
    """Take pytest's capture of log messages off torch's trace of compilations.

    pytest 9.2 attaches it to loggers that do not propagate. The trace's records are for torch's own handler: captured,
    they are thousands of empty lines in the output of a failing test, and torch makes them only where one listens.
    """
    import logging

    trace = logging.getLogger("torch.__trace")
    for handler in [handler for handler in trace.handlers if type(handler).__module__.startswith("_pytest.")]:
        trace.removeHandler(handler)


def fail_if_refused(config: pytest.Config) -> None:
    """Fail the current test when its session was refused."""
    if REFUSED in config.stash:
        pytest.fail(config.stash[REFUSED], pytrace=False)


@contextmanager
def preparing(config: pytest.Config) -> Iterator[None]:
    """Turn our errors into pytest's, one line without a traceback of ours.

    :class:`Unavailable` becomes a skip, or a failure under ``--fluxperf-strict``; other errors fail the test.
    """
    try:
        yield
    except FluxPerfError as error:
        if isinstance(error, Unavailable):
            if not config.stash[SETTINGS].strict:
                pytest.skip(str(error))
            error.problem += " (--fluxperf-strict fails what cannot run)"
        raise failure(str(error)) from None


def failure(message: str) -> BaseException:
    """What fails a test with nothing but a message; raise it ``from None``, or pytest shows what led to it as well."""
    return pytest.fail.Exception(message, pytrace=False)
