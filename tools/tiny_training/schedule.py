"""How long a stage of the training lasts, and the learning rate along it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

CHECKPOINT_S = 90.0
"""What an interruption costs at most."""


def cosine(progress: float, warmup: float) -> float:
    """Factor on the learning rate: linear from 0 to 1 over ``warmup``, then a cosine to 0 at progress 1."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


@dataclass
class Clock:
    """A stage of a fixed number of steps that may be spread over several sittings.

    ``deadline`` (``time.monotonic``) ends the sitting; :meth:`done` tells whether the stage itself has ended.
    ``checkpoint`` is called every :data:`CHECKPOINT_S` seconds, between two steps.
    """

    name: str
    total: int
    step: int = 0
    deadline: float = math.inf
    every: int = 200
    losses: list[Tensor] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    checkpoint: Callable[[], None] = lambda: None
    kept: float = field(default_factory=time.monotonic)

    @property
    def progress(self) -> float:
        """Fraction of the stage's steps that are done."""
        return self.step / self.total

    @property
    def done(self) -> bool:
        """True when the stage has had all its steps."""
        return self.step >= self.total

    def running(self) -> bool:
        """True while there are steps to do and time to do them in."""
        return not self.done and time.monotonic() < self.deadline

    def tick(self, loss: Tensor) -> None:
        """Count a step; prints the mean loss now and then (the only synchronization with the device)."""
        self.step += 1
        self.losses.append(loss.detach())
        if self.step % self.every == 0 or self.done:
            mean = sum(float(value) for value in self.losses) / len(self.losses)
            elapsed = time.monotonic() - self.started
            print(f"{self.name} {self.step}/{self.total} loss {mean:.4f} {elapsed:.0f} s", flush=True)
            self.losses.clear()
        if time.monotonic() - self.kept > CHECKPOINT_S:
            self.checkpoint()
            self.kept = time.monotonic()
