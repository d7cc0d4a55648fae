"""Where a generation spends its time: text encoding, each denoising step, decoding.

The tracer puts marks around ``encode_prompt``, the transformer's calls and ``vae.decode`` of a diffusers
Flux pipeline. It wraps instances from outside, so compiled blocks and cache hooks run as they would
without it, and removes itself completely.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pytest_fluxperf.measure.clock import Clock


@dataclass(frozen=True)
class Phases:
    """Seconds of one generation; ``steps_s`` sums to ``denoise_s`` (scheduler steps included)."""

    text_encode_s: float | None = None
    denoise_s: float | None = None
    decode_s: float | None = None
    steps_s: tuple[float, ...] = ()


class PhaseTracer:
    """Marks the phases of every generation of one pipeline while attached."""

    def __init__(self, pipe: Any, clock: Clock) -> None:
        self._pipe = pipe
        self._clock = clock
        self._undo: list[Callable[[], None]] = []
        self.decoded: Any = None
        """What ``vae.decode`` last returned: kept so that NaN is seen before it is cast to black pixels."""
        self.begin()

    def begin(self) -> None:
        """Forget the marks of the previous generation."""
        self._encode: list[tuple[Any, Any]] = []
        self._steps: list[tuple[Any, Any]] = []
        self._decode: list[tuple[Any, Any]] = []
        self._entered: Any = None
        self._decoding: Any = None
        """When decoding began after the last step; None as long as it has not."""
        self.decoded = None

    def __enter__(self) -> PhaseTracer:
        pipe = self._pipe
        transformer = getattr(pipe, "transformer", None)
        if callable(getattr(pipe, "encode_prompt", None)):
            self._wrap(pipe, "encode_prompt", lambda start, end, _: self._encode.append((start, end)))
        if transformer is not None and hasattr(transformer, "register_forward_pre_hook"):
            before = transformer.register_forward_pre_hook(self._enter_step)
            after = transformer.register_forward_hook(self._leave_step)
            self._undo += [before.remove, after.remove]
        if callable(getattr(getattr(pipe, "vae", None), "decode", None)):
            self._wrap(pipe.vae, "decode", self._keep_decoded)
        return self

    def __exit__(self, *_: object) -> None:
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()
        self.begin()

    def read(self) -> Phases:
        """Phases of the last generation; the clock must have been synchronized."""
        span = self._clock.seconds
        starts = [start for start, _ in self._steps]
        if starts:
            end = self._steps[-1][1] if self._decoding is None else self._decoding
            borders = [*starts, end]
            steps = tuple(span(a, b) for a, b in itertools.pairwise(borders))
            denoise = span(starts[0], end)
        else:
            steps, denoise = (), None
        return Phases(
            text_encode_s=sum(span(a, b) for a, b in self._encode) if self._encode else None,
            denoise_s=denoise,
            decode_s=sum(span(a, b) for a, b in self._decode) if self._decode else None,
            steps_s=steps,
        )

    def _enter_step(self, *_: Any) -> None:
        self._entered = self._clock.mark()

    def _leave_step(self, *_: Any) -> None:
        self._steps.append((self._entered, self._clock.mark()))
        self._decoding = None  # what was decoded before, to look at for one, was not the end

    def _keep_decoded(self, start: Any, end: Any, result: Any) -> None:
        self._decode.append((start, end))
        if self._decoding is None:
            self._decoding = start
        self.decoded = result

    def _wrap(self, owner: Any, name: str, record: Callable[[Any, Any, Any], None]) -> None:
        original = getattr(owner, name)
        own = name in vars(owner)

        def traced(*args: Any, **kwargs: Any) -> Any:
            start = self._clock.mark()
            result = original(*args, **kwargs)
            record(start, self._clock.mark(), result)
            return result

        setattr(owner, name, traced)
        # an attribute that was the class's must vanish again, not stay as a bound copy
        self._undo.append(lambda: setattr(owner, name, original) if own else delattr(owner, name))
