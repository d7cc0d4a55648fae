"""``--fluxperf-old-python``: what stage one could not pass is compared with the old environment in turns."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import pytest

from pytest_fluxperf.ab.conductor import Conductor
from pytest_fluxperf.ab.outcome import comparison_of, grounds_of, with_notes, with_stage_one
from pytest_fluxperf.ab.process import find_python
from pytest_fluxperf.ab.trial import Terms, Trial
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.interleaved import suspects
from pytest_fluxperf.plugin.collect import session_of
from pytest_fluxperf.plugin.deferral import Held, child_arguments, is_suspect, say
from pytest_fluxperf.plugin.stash import BENCH
from pytest_fluxperf.results import Judgement, Result


class Escalation:
    """The look that takes the old environment to hand."""

    def __init__(self, config: pytest.Config, old_python: str, timeout_s: float) -> None:
        self._config = config
        self._old = find_python(old_python)
        self._timeout_s = timeout_s

    def holds(self, result: Result) -> bool:
        """Suspects that were not compared yet."""
        return result.comparison is None and is_suspect(result)

    def settle(self, held: Sequence[Held], done: Sequence[Held]) -> None:  # noqa: ARG002
        """Compare the suspects, the worst first."""
        if not held:
            return
        session = session_of(self._config)
        by_test = {entry.item.nodeid: entry for entry in held}
        order = [result.test for result in suspects([entry.result for entry in held])]
        terms = Terms(
            old=self._old,
            new=find_python(sys.executable),
            arguments=child_arguments(self._config),
            folder=session.folder / self._place,
            timeout_s=self._timeout_s,
            quality=False,
            companions=(os.getpgrp(),),
        )
        conductor = Conductor(terms, partial(say, self._config))
        try:
            trials = conductor.run(order)
        except FluxPerfError as error:
            for entry in held:
                entry.decide(_changed(entry.result.judgement, "invalid", f"no comparison was possible: {error}"))
            return
        for trial in trials:
            self._judge(by_test[trial.test], trial, conductor.ended)

    def _judge(self, entry: Held, trial: Trial, ended: str | None) -> None:
        """Decide on a suspect by what the comparison, which may have ``ended`` early, says of it."""
        first = entry.result.judgement
        match trial:
            case Trial(trouble=trouble) if trouble and trouble.verdict != "no baseline":
                entry.decide(_changed(first, trouble.verdict, f"{trouble.message}; {first.message}"))
            case Trial(trouble=trouble) if trouble:  # stage one's own verdict stands
                self._warn(entry, trouble.message)
            case Trial(skipped=skipped) if skipped:
                self._warn(entry, f"not compared with the old environment: {skipped}")
            case Trial(interleaved=compared) if compared and not compared.another_block:
                bench = entry.item.stash[BENCH]
                times = compared.judgement(grounds_of(trial, bench.session.hardware))
                again = bench.judged_again(entry.result, times)
                judgement = with_notes(with_stage_one(again, entry.result), trial)
                entry.decide(judgement, comparison_of(trial, self._place))
            case _:
                reason = ended or "it stayed undecided"
                self._warn(entry, f"not compared with the old environment to the end: {reason}")

    def _warn(self, entry: Held, text: str) -> None:
        """Leave stage one's verdict as it stands, with a warning that says why."""
        say(self._config, f"{entry.item.nodeid}: {text}")
        entry.warn(text)

    @property
    def _place(self) -> str:
        """The comparison's folder within the run's."""
        return f"ab/{session_of(self._config).worker or 'main'}"


def _changed(judgement: Judgement, verdict: Any, message: str) -> Judgement:
    return msgspec.structs.replace(judgement, verdict=verdict, message=message)
