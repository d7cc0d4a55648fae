"""Errors that a user can cause, each one line: what is wrong, where, what to do."""

from __future__ import annotations


class FluxPerfError(Exception):
    """A mistake in the input or the environment that the user can mend; the message says how."""


class Unavailable(FluxPerfError):
    """This environment cannot run what was asked (no CUDA, package missing, compute capability too low).

    A test that meets it is skipped with the message, or fails under ``--fluxperf-strict``.
    """


def origin(error: BaseException) -> BaseException:
    """The error that ``error`` was raised from, and that one from: lazy imports wrap the one that counts."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def told(error: BaseException) -> str:
    """Another library's error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
