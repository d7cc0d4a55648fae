"""Progress on a terminal: one line, rewritten, and put back as pytest had left it."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_fluxperf.plugin.stash import BENCH, is_worker
from pytest_fluxperf.report.terminal import progress_line
from pytest_fluxperf.report.text import columns


class Live:
    """Shows where a test stands; does nothing where there is no terminal, or one that is to be quiet."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        reporter = item.config.pluginmanager.get_plugin("terminalreporter")
        quiet = is_worker(item.config) or reporter is None or not reporter.isatty or reporter.verbosity < 0
        self._reporter: Any = None if quiet else reporter
        self._capture: Any = item.config.pluginmanager.get_plugin("capturemanager")
        self._width = 0
        """Columns that the line fills."""

    def show(self, stage: str, done: int, total: int, p50_s: float | None = None) -> None:
        """Show ``done`` of ``total`` (0: nothing is counted) at a stage; a generation needs no name of its stage."""
        if self._reporter is not None:
            name = self._item.name if stage == "generation" else f"{self._item.name} {stage}"
            width = self._reporter._tw.fullwidth - 1
            recipe = self._item.stash[BENCH].recipe
            self._write(progress_line(name, recipe, done, max(done, total), p50_s, width))

    def clear(self) -> None:
        """Put back what pytest had written on the line."""
        if self._width:
            self._write("")
            self._width = 0

    def _write(self, text: str) -> None:
        writer = self._reporter._tw
        below = writer._current_line  # pytest's; it goes on behind it, so it must not learn of ours
        self._width = max(self._width, columns(below), columns(text))
        blank = " " * (self._width - columns(text))
        with self._capture.global_and_fixture_disabled():
            writer._file.write(f"\r{text}{blank}" if text else f"\r{blank}\r{below}")
            writer.flush()
