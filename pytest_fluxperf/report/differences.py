"""What differs between the environments of the baselines and of now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_fluxperf.baseline.environment import ABSENT, STACK
from pytest_fluxperf.results import Environment

RIDERS = {"triton": "torch", "cuda": "torch", "cudnn": "torch"}
"""What a package's own release pins exactly: where that package moved too, this is no suspect of its own."""


@dataclass(frozen=True)
class Difference:
    """One thing of the environment that is not what it was; None for absent."""

    name: str
    baseline: str | None
    now: str | None
    suspect: bool
    """Whether an image's speed is known to rest on it."""
    rides_on: str | None = None
    """The package that moved too and brought this along."""

    def __str__(self) -> str:
        return f"{self.name} {self.baseline or ABSENT} → {self.now or ABSENT}"


def differences(before: Sequence[Environment], now: Sequence[Environment]) -> tuple[Difference, ...]:
    """What is not the same, suspects first (in the order in which a reader suspects them); empty without baselines."""
    if not before:
        return ()
    old, new = [flatten(e) for e in before], [flatten(e) for e in now]
    order = {name: i for i, name in enumerate((*STACK, "cuda", "cudnn", "driver"))}
    order |= {flag: len(order) for environment in now for flag in environment.flags}
    moved: dict[str, tuple[str | None, str | None]] = {}
    for name in set().union(*old, *new):
        was = list(dict.fromkeys(e.get(name) for e in old))
        is_now = list(dict.fromkeys(e.get(name) for e in new))
        if set(was) != set(is_now):
            moved[name] = (_listed(was), _listed(is_now))
    found = [
        Difference(name, *versions, name in order, RIDERS[name] if RIDERS.get(name) in moved else None)
        for name, versions in moved.items()
    ]
    return tuple(sorted(found, key=lambda d: (order.get(d.name, len(order) + 1), d.name)))


def flatten(environment: Environment) -> dict[str, str]:
    """Everything an environment says, as one flat mapping of names to values."""
    flat = {"python": environment.python, "platform": environment.platform}
    for name in ("cuda", "cudnn", "driver"):
        if value := getattr(environment, name):
            flat[name] = value
    return flat | environment.packages | environment.flags


def _listed(values: Sequence[str | None]) -> str | None:
    return None if set(values) == {None} else ", ".join(v or ABSENT for v in values)
