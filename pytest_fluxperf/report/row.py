"""One row of a report: what is shown of a result."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pytest_fluxperf.baseline.update import fails
from pytest_fluxperf.report.prompts import PromptPair, mean, prompt_pairs
from pytest_fluxperf.report.text import test_name
from pytest_fluxperf.results import (
    Finding,
    Generation,
    Quality,
    Result,
    Run,
    RunDocument,
    Sample,
    Similarity,
    Verdict,
    flat_facts,
    median_latency_s,
)

PERCENTILE_SAMPLES = {90: 30, 99: 300}
"""Generations from which a percentile means what its name says (docs/gate.md, section 4)."""


@dataclass(frozen=True)
class Fact:
    """One thing that was really used, beside what the baseline's newest run used; None for unknown."""

    name: str
    baseline: str | None
    now: str | None

    @property
    def moved(self) -> bool:
        """Whether both are known and differ."""
        return self.baseline is not None and self.now is not None and self.baseline != self.now


@dataclass(frozen=True)
class Row:
    """One test as one line of a table."""

    result: Result
    document: RunDocument
    """The run it belongs to."""
    machine: str
    """Short name of the machine where there are several, else empty."""
    label: str
    """The recipe where it names one test of the run only, else the test."""
    speedup: float | None
    """Median over prompts of the reference recipe's latency over this one's; None without a reference."""

    @property
    def verdict(self) -> Verdict:
        """The judged verdict."""
        return self.result.judgement.verdict

    @property
    def fails(self) -> bool:
        """Whether the test failed, which an update that takes its result as the new baseline prevents."""
        document = self.document
        return fails(self.result, strict=document.strict, update=document.update, hardware=document.hardware)

    @property
    def recipe(self) -> str:
        """The recipe, or the test's name where no recipe was used."""
        return self.result.recipe or self.label

    @cached_property
    def families(self) -> tuple[str, ...]:
        """Names of the recipe's tokens without their values: ``bf16``, ``fbcache``, ..."""
        return families(self.result.recipe)

    @cached_property
    def anchor(self) -> str:
        """Fragment that names the test in the page; the same in every run."""
        slug = re.sub(r"[^a-z0-9]+", "-", test_name(self.result.test).lower()).strip("-")[:48]
        key = f"{self.machine}\0{self.result.test}".encode("utf-8", "replace")
        return f"{slug or 'test'}-{hashlib.sha256(key).hexdigest()[:6]}"

    @cached_property
    def latencies(self) -> tuple[float, ...]:
        """Latency of every generation, seconds."""
        return tuple(g.latency_s for g in self.result.measurement.generations)

    @property
    def n(self) -> int:
        """Number of timed generations."""
        return len(self.latencies)

    def percentile(self, q: float) -> float | None:
        """Percentile ``q`` of the latencies, seconds; None without any."""
        return float(np.percentile(self.latencies, q)) if self.latencies else None

    def supports(self, q: int) -> bool:
        """Whether there are generations enough for percentile ``q`` to mean what its name says."""
        return self.n >= PERCENTILE_SAMPLES[q]

    @cached_property
    def p50_s(self) -> float | None:
        """Median latency, seconds."""
        return self.percentile(50)

    @cached_property
    def p90_s(self) -> float | None:
        """90th percentile of latency, seconds."""
        return self.percentile(90)

    @cached_property
    def p99_s(self) -> float | None:
        """99th percentile of latency, seconds."""
        return self.percentile(99)

    @property
    def relative(self) -> bool:
        """Whether the test is gated relative to the reference recipe timed beside it (another CPU model)."""
        return any(g.reference_latency_s is not None for g in self.result.measurement.generations)

    @cached_property
    def speed(self) -> Finding | None:
        """The finding that carries the change of speed: ``latency``, or ``speed-up`` in relative mode."""
        names = ("speed-up", "latency") if self.relative else ("latency", "speed-up")
        found = (finding(self.result, name) for name in names)
        return next((f for f in found if f is not None and f.change is not None), None)

    @property
    def change(self) -> float | None:
        """Relative change of latency, or of speed-up where :attr:`speed` says so."""
        return None if self.speed is None else self.speed.change

    @property
    def slowdown(self) -> float:
        """Sort key: relative loss of speed, 0 where unknown."""
        if self.speed is None or self.speed.change is None:
            return 0.0
        return slowdown(self.speed, self.speed.change)

    @cached_property
    def computed(self) -> float | None:
        """Mean computed denoising steps per image."""
        return mean(g.computed_steps for g in self.result.measurement.generations)

    @cached_property
    def cached(self) -> float | None:
        """Mean cached denoising steps per image."""
        return mean(g.cached_steps for g in self.result.measurement.generations)

    @cached_property
    def baseline_computed(self) -> float | None:
        """Mean computed steps per image in the baseline."""
        return mean(s.computed_steps for run in self.runs for s in run.samples)

    @cached_property
    def baseline_p50_s(self) -> float | None:
        """Median over prompts of the baseline's latency, seconds."""
        values = [p.baseline_s for p in self.prompts if p.baseline_s is not None]
        return float(np.median(values)) if values else None

    @property
    def memory_mib(self) -> float | None:
        """Peak memory, MiB."""
        return self.result.measurement.peak_memory_mib

    @cached_property
    def baseline_memory_mib(self) -> float | None:
        """Median over the baseline's runs of peak memory, MiB."""
        values = [run.peak_memory_mib for run in self.runs if run.peak_memory_mib is not None]
        return float(np.median(values)) if values else None

    @cached_property
    def quality(self) -> Similarity:
        """Median over prompts of each image metric."""
        return medians(self.result.quality)

    @cached_property
    def baseline_quality(self) -> Similarity:
        """Median of each image metric over the baseline's prompts and runs."""
        return _medians([s.score for run in self.runs for s in run.samples])

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The baseline's runs that may be set beside this result, oldest first."""
        baseline = self.result.baseline
        if baseline is None or baseline.workload != self.result.workload:
            return ()
        return baseline.by_time

    @cached_property
    def prompts(self) -> tuple[PromptPair, ...]:
        """Every prompt beside its baseline."""
        return prompt_pairs(self.result, self.runs)

    @cached_property
    def facts(self) -> tuple[Fact, ...]:
        """What was really used, now and in the baseline's newest run; what differs first."""
        old = _texts(self.runs[-1].facts) if self.runs else {}
        new = _texts(self.result.measurement.facts)
        facts = [Fact(name, old.get(name), new.get(name)) for name in {**new, **old}]
        return tuple(sorted(facts, key=lambda fact: not fact.moved))

    def phases(self) -> tuple[dict[str, float], dict[str, float]]:
        """Median seconds of each phase, in the baseline and now; empty where phases were not seen."""
        before = _phases([s for run in self.runs for s in run.samples])
        return before, _phases(self.result.measurement.generations)


def families(recipe: str | None) -> tuple[str, ...]:
    """Names of the recipe's tokens without their values."""
    return tuple(token.partition(":")[0] for token in recipe.split("+")) if recipe else ()


def slowdown(speed: Finding, change: float) -> float:
    """``change`` of a latency, or of a speed-up, as relative change of latency: positive is slower."""
    return 1 / max(1 + change, 1e-9) - 1 if speed.metric == "speed-up" else change


def finding(result: Result, metric: str) -> Finding | None:
    """The finding of one metric, or None."""
    return next((f for f in result.judgement.findings if f.metric == metric), None)


def medians(quality: Quality | None) -> Similarity:
    """Median over prompts of each image metric, None where it was never computed."""
    return _medians([] if quality is None else quality.scores)


def supported_percentile(n: int) -> float:
    """The percentile that the largest of ``n`` samples bounds with 95 % confidence: 0.05^(1/n).

    (All n samples lie below the q-th percentile with probability q^n.)
    """
    return float(0.05 ** (1 / n)) if n else 0.0


def _texts(facts: dict[str, Any]) -> dict[str, str]:
    """Facts as flat names and readable values."""
    return {name.replace("_", " "): _text(value) for name, value in flat_facts(facts).items()}


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _medians(scores: Sequence[Similarity]) -> Similarity:
    def median(name: str) -> float | None:
        values = [v for v in (getattr(s, name) for s in scores) if v is not None]
        return float(np.median(values)) if values else None

    return Similarity(**{name: median(name) for name in Similarity.__struct_fields__})


def _phases(samples: Sequence[Generation] | Sequence[Sample]) -> dict[str, float]:
    phases: dict[str, float] = {}
    for label, name in (("text encoding", "text_encode_s"), ("denoising", "denoise_s"), ("decoding", "decode_s")):
        values = [v for v in (getattr(s, name) for s in samples) if v is not None]
        if values:
            phases[label] = float(np.median(values))
    if phases:
        phases["other"] = max(0.0, median_latency_s(samples) - sum(phases.values()))
    return phases
