"""What a session's wall time went into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from statistics import median

from pytest_fluxperf.results import RunDocument


@dataclass(frozen=True)
class Spent:
    """Seconds of a session; ``prepare_s`` is loading, quantizing and switching, and the import of torch."""

    session_s: float
    prepare_s: float
    reference_s: float
    warmup_s: float
    """With compiling."""
    generation_s: float

    @property
    def other_s(self) -> float:
        """Everything else: collecting, judging, comparing pictures, reports, baselines."""
        return self.session_s - self.prepare_s - self.reference_s - self.warmup_s - self.generation_s

    @property
    def overhead(self) -> float:
        """:attr:`other_s` as a share of the session."""
        return self.other_s / self.session_s

    def __str__(self) -> str:
        parts = {
            "loading and switching": self.prepare_s,
            "the reference": self.reference_s,
            "warm-up and compiling": self.warmup_s,
            "measured generations": self.generation_s,
        }
        told = ", ".join(f"{name} {seconds:.0f}" for name, seconds in parts.items() if seconds)
        return f"{self.session_s:.0f} s ({told}, everything else {self.other_s:.0f}: {self.overhead:.1%})"


def spent(document: RunDocument) -> Spent | None:
    """Where the time of one session went; None for one that did not record its duration.

    Time that broken tests and dropped measurements took counts as everything else.
    """
    if not document.duration_s:
        return None
    measurements = [result.measurement for result in document.results]
    return Spent(
        session_s=document.duration_s,
        prepare_s=sum(m.prepare_s or 0.0 for m in measurements),
        reference_s=sum(result.reference_s for result in document.results),
        warmup_s=sum(sum(m.warmup_s) for m in measurements),
        generation_s=sum(made.wall_s for m in measurements for made in m.generations),
    )


def of_sessions(sessions: Sequence[Spent]) -> str:
    """Where the time of several sessions went: one by one up to three, else all together and how they differ."""
    if len(sessions) <= 3:
        return "; ".join(map(str, sessions))
    whole = Spent(*map(sum, zip(*map(astuple, sessions), strict=True)))
    shares = sorted(one.overhead for one in sessions)
    return (
        f"{whole}; everything else {shares[0]:.1%} to {shares[-1]:.1%} of a session, {median(shares):.1%} in the middle"
    )
