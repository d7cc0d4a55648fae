"""Everything that is known of a test that was measured: its rounds, its pictures, and the judgement on them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from msgspec import structs

from pytest_fluxperf.gate.attribution import slow_host
from pytest_fluxperf.gate.case import Case
from pytest_fluxperf.gate.verdict import another_round, judge, lasting
from pytest_fluxperf.measure.rounds import join, supersede
from pytest_fluxperf.measure.runner import BodyRaised
from pytest_fluxperf.results import Baseline, Judgement, KernelTable, Measurement, PictureScores, median_latency_s


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A test measured in one or more rounds; what is added to it makes a new one."""

    case: Case
    baseline: Baseline | None
    rounds: tuple[Measurement, ...]
    scores: PictureScores = field(default_factory=PictureScores)
    raised: BodyRaised | None = None
    """What the body raised, where that is a failure of its own."""
    before: Attempt | None = None
    """A first look at the test, in which the machine was disturbed."""

    @cached_property
    def measurement(self) -> Measurement:
        """The rounds as one, with what the look before saw and a second one cannot take back."""
        joined = join(self.rounds)
        return joined if self.before is None else supersede(self.before.measurement, joined)

    @cached_property
    def judgement(self) -> Judgement:
        """The verdict on it."""
        first = self.before
        if first is None:
            return judge(self.case, self.measurement, self.scores, self.baseline)
        earlier = lasting(first.case, first.measurement, first.scores, first.baseline)
        judgement = judge(self.case, self.measurement, self.scores, self.baseline, earlier=earlier)
        return structs.replace(judgement, warnings=(*judgement.warnings, first._disturbance))

    @property
    def disturbed(self) -> bool:
        """Whether the machine was unfit, or a slow host explains why the latency regressed: once more, then.

        What is broken is so on any machine.
        """
        if self.judgement.verdict == "broken":
            return False
        if self.measurement.unfit or self.baseline is None:
            return bool(self.measurement.unfit)
        slower = any(f.metric == "latency" and f.verdict == "regressed" for f in self.judgement.findings)
        return slower and slow_host(self.measurement, self.baseline)

    @property
    def wants_another_round(self) -> bool:
        """Whether what a noisy machine made suspicious is to be measured again before it is convicted."""
        return self.raised is None and another_round(self.judgement, self.case.policy, len(self.rounds))

    def joined(self, more: Measurement, raised: BodyRaised | None = None) -> Attempt:
        """With one more round."""
        return replace(self, rounds=(*self.rounds, more), raised=raised)

    def profiled(self, table: KernelTable) -> Attempt:
        """With the kernels of one more generation."""
        return self._last(structs.replace(self.rounds[-1], kernels=table))

    def failed(self, problem: str) -> Attempt:
        """With what went wrong after it was measured."""
        last = self.rounds[-1]
        return self._last(structs.replace(last, problems=(*last.problems, problem)))

    def _last(self, measurement: Measurement) -> Attempt:
        return replace(self, rounds=(*self.rounds[:-1], measurement))

    @property
    def _disturbance(self) -> str:
        """What a second look says of this one."""
        if self.measurement.unfit:
            return f"measured twice: the first time {self.measurement.unfit[0]}"
        p50 = median_latency_s(self.measurement.generations)
        return f"measured twice: the first time the device waited for a slow host, p50 {p50:.4g} s"
