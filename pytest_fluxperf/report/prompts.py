"""The prompts of one test: what was measured of each beside what the baseline's runs say of the same prompt."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_fluxperf.results import Generation, Result, Run, Sample


@dataclass(frozen=True)
class PromptPair:
    """One prompt of one test: now (the median over the rounds) beside the baseline (the median over its runs)."""

    index: int
    text: str
    seed: int
    now_s: float
    baseline_s: float | None
    changes: tuple[float, ...]
    """Relative change of what is gated, of each round: latency, or latency over the reference recipe's (relative mode).
    Empty without a baseline of this prompt."""
    computed: int | None
    """Of the first round, as ``cached`` and ``decisions`` are."""
    cached: int | None
    baseline_computed: float | None
    decisions: str | None
    baseline_decisions: str | None
    """Of the baseline's newest run."""

    @property
    def change(self) -> float | None:
        """The median of the changes."""
        return statistics.median(self.changes) if self.changes else None


_LEAST_S = 1e-9
"""Seconds below which a latency is none, and nothing is divided by it."""


def prompt_pairs(result: Result, runs: Sequence[Run]) -> tuple[PromptPair, ...]:
    """Every prompt that was measured, beside ``runs``, oldest first.

    Generation ``k`` is of prompt ``k % n``, n being the workload's prompts: a measurement goes through them in rounds.
    """
    count = max(1, len(result.workload.prompts))
    generations = result.measurement.generations
    # A body that raised midway leaves fewer generations than prompts.
    return tuple(_pair(result, index, generations[index::count], runs) for index in range(min(count, len(generations))))


def by_prompt(result: Result) -> tuple[float, ...]:
    """Median latency of each prompt that was measured, seconds."""
    count = max(1, len(result.workload.prompts))
    made = result.measurement.generations
    return tuple(statistics.median(g.latency_s for g in made[i::count]) for i in range(min(count, len(made))))


def _pair(result: Result, index: int, rounds: Sequence[Generation], runs: Sequence[Run]) -> PromptPair:
    count = max(1, len(result.workload.prompts))
    prompt = result.workload.prompts[index] if result.workload.prompts else None
    samples = [sample for run in runs for sample in run.samples[index::count]]
    first = rounds[0]
    return PromptPair(
        index=index,
        text=prompt.text if prompt else "",
        seed=prompt.seed if prompt else 0,
        now_s=statistics.median(made.latency_s for made in rounds),
        baseline_s=statistics.median(sample.latency_s for sample in samples) if samples else None,
        changes=_changes(rounds, samples),
        computed=first.computed_steps,
        cached=first.cached_steps,
        baseline_computed=mean(sample.computed_steps for sample in samples),
        decisions=first.decisions,
        baseline_decisions=samples[-1].decisions if samples else None,
    )


def _changes(rounds: Sequence[Generation], samples: Sequence[Sample]) -> tuple[float, ...]:
    if any(made.reference_latency_s is not None for made in rounds):
        before = ratios((s.latency_s for s in samples), (s.reference_latency_s for s in samples))
        now = ratios((made.latency_s for made in rounds), (made.reference_latency_s for made in rounds))
    else:
        before, now = [s.latency_s for s in samples], [made.latency_s for made in rounds]
    centre = statistics.median(before) if before else 0.0
    return tuple(value / centre - 1 for value in now) if centre > _LEAST_S else ()


def ratios(over: Iterable[float | None], under: Iterable[float | None]) -> list[float]:
    """One over the other, pair by pair, of those that were both timed."""
    pairs = zip(over, under, strict=False)
    return [a / b for a, b in pairs if a is not None and b is not None and b > _LEAST_S]


def mean(values: Iterable[int | None]) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
