"""After the last test: the latencies of the session judged together, and suspects measured once more.

What is still slower is measured again in a fresh process of the same environment: a slow spell is over by then, and
what one process had by chance (its memory's layout, a tuned kernel) is drawn anew.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pytest_fluxperf.ab.measure import measure_once
from pytest_fluxperf.ab.process import Side, find_python
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.latency import TimeJudgement, session_latencies
from pytest_fluxperf.plugin.collect import session_of
from pytest_fluxperf.plugin.deferral import Held, child_arguments, is_suspect, say
from pytest_fluxperf.plugin.stash import BENCH
from pytest_fluxperf.results import Measurement, Result, median_latency_s


class SecondLook:
    """The look that every session takes."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def holds(self, result: Result) -> bool:
        """Suspects of absolute time; a speed-up is measured again beside its reference, in its own test."""
        relative = any(finding.metric == "speed-up" for finding in result.judgement.findings)
        return not relative and result.comparison is None and is_suspect(result)

    def settle(self, held: Sequence[Held], done: Sequence[Held]) -> None:
        """Judge the latencies together; measure again what needs it, and judge once more."""
        if not held:
            return
        entries = [*done, *held]
        cases = {entry.result.test: entry.item.stash[BENCH].case for entry in entries}
        results = [entry.result for entry in entries]
        times = session_latencies(cases, results)
        wanted = [entry.result.test for entry in held if times[entry.result.test].again]
        again: dict[str, Measurement] = {}
        trouble: dict[str, str] = {}
        if wanted and session_of(self._config).settings.second_look:
            again, trouble = self._measured_again(wanted)
            times = session_latencies(cases, results, again)
        for entry in held:
            test = entry.result.test
            self._decide(entry, times[test], again.get(test), trouble.get(test))

    def _decide(self, entry: Held, times: TimeJudgement, again: Measurement | None, trouble: str | None) -> None:
        notes = times.warnings
        if again is not None:
            notes += (f"measured again in a fresh process: p50 {median_latency_s(again.generations):.4g} s",)
        if trouble is not None:
            notes += (f"not measured again: {trouble}",)
        bench = entry.item.stash[BENCH]
        judgement = bench.judged_again(entry.result, replace(times, warnings=notes))
        if judgement.verdict != entry.result.judgement.verdict:
            say(self._config, f"{entry.result.test}: {judgement.verdict}")
        entry.decide(judgement)

    def _measured_again(self, tests: Sequence[str]) -> tuple[dict[str, Measurement], dict[str, str]]:
        """Second measurements by test, and why there is none."""
        session = session_of(self._config)
        folder = session.folder / f"again-{session.worker or 'main'}"
        folder.mkdir(parents=True, exist_ok=True)
        say(self._config, f"measuring {len(tests)} test{'s' if len(tests) > 1 else ''} again in a fresh process")
        side = Side(
            "again",
            "1",
            find_python(sys.executable),
            child_arguments(self._config),
            folder,
            session.settings.ab_timeout_s,
        )
        measured: dict[str, Measurement] = {}
        trouble: dict[str, str] = {}
        try:
            for done in measure_once(side, tests, companions=(os.getpgrp(),)):
                if done.result is not None and done.result.run is not None:
                    measured[done.test] = done.result.measurement
                else:
                    judged = done.result and done.result.judgement.message
                    trouble[done.test] = judged or done.skipped or done.failed or "it was not measured"
        except FluxPerfError as error:
            trouble |= {test: str(error) for test in tests if test not in measured}
        return measured, trouble
