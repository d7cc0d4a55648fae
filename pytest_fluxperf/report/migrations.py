"""Older ``results.json`` brought to the current format, one version at a time.

Each function takes a document of its version as plain builtins and returns it as the next version has it, so a
reader needs to know the current records only. The schemas of all versions are in ``docs/schema``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_fluxperf.results import RESULTS_FORMAT

Builtins = dict[str, Any]


def _from_1(document: Builtins) -> Builtins:
    """Format 2 only added optional records; a reader of format 1 would have refused them as unknown."""
    return {**document, "format": 2}


def _from_2(document: Builtins) -> Builtins:
    """Format 3 only added the tolerance of a test."""
    return {**document, "format": 3}


MIGRATIONS: dict[int, Callable[[Builtins], Builtins]] = {1: _from_1, 2: _from_2}
"""The step away from each older format."""


def migrate(document: Builtins) -> Builtins:
    """``document`` in the current format."""
    while (version := document["format"]) != RESULTS_FORMAT:
        document = MIGRATIONS[version](document)
    return document
