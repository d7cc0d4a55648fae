"""Errors that a user can cause, each one line: what is wrong, where, what to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike, fspath
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Where:
    """What an error is about; empty where it is about nothing of the kind."""

    test: str = ""
    """pytest node id."""
    recipe: str = ""
    reference: str = ""
    """The recipe, where it is the reference's."""
    file: str | PathLike[str] = ""
    place: str = ""
    """In the file: a line, or a path such as ``$.runs[0]``."""

    def __str__(self) -> str:
        named = (("", self.test), ("recipe ", self.recipe), ("reference recipe ", self.reference))
        located = (("", fspath(self.file)), ("", self.place))
        return "".join(f"{kind}{name}: " for kind, name in (*named, *located) if name)


class FluxPerfError(Exception):
    """A mistake in the input or the environment that the user can mend; the message says how.

    ``problem`` is what is wrong and ``remedy`` what to do; what it is about are fields of :class:`Where`, which
    whoever knows them adds. The message is rendered here alone: ``test: recipe X: file: place: problem; remedy``.
    """

    def __init__(self, problem: str = "", *, remedy: str = "", **where: Any) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy
        self.where = Where(**where)

    def at(self, **where: Any) -> Self:
        """The same error with these fields of :class:`Where` set anew; to be raised again."""
        self.where = replace(self.where, **where)
        return self

    def without(self, *fields: str) -> str:
        """The message without what a reader knows already, by the names of the fields of :class:`Where`."""
        where = replace(self.where, **dict.fromkeys(fields, ""))
        return f"{where}{self.problem}{f'; {self.remedy}' if self.remedy else ''}"

    def __str__(self) -> str:
        return self.without()


class Unavailable(FluxPerfError):
    """This environment cannot run what was asked (no CUDA, package missing, compute capability too low).

    A test that meets it is skipped with the message, or fails under ``--fluxperf-strict``.
    """


class OutOfMemory(FluxPerfError):
    """The device's memory does not suffice."""


def origin(error: BaseException) -> BaseException:
    """The error that ``error`` was raised from, and that one from: lazy imports wrap the one that counts."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def one_line(error: BaseException) -> str:
    """Another library's error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
