"""Where a generation spends its time: text encoding, each denoising step, decoding.

:class:`PhaseHooks` tells where ``encode_prompt``, the transformer's calls and ``vae.decode`` of a diffusers
Flux pipeline begin and end. It wraps instances from outside, so compiled blocks and cache hooks run as they would
without it, and removes itself completely. :class:`PhaseTracer` marks those points on a clock.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pytest_fluxperf.measure.clock import Clock

Part = Literal["text", "step", "decoding"]
"""What can be told apart from outside; a step is one call of the transformer."""


@dataclass(frozen=True)
class Phases:
    """Seconds of one generation; ``steps_s`` sums to ``denoise_s`` (scheduler steps included)."""

    text_encode_s: float | None = None
    denoise_s: float | None = None
    decode_s: float | None = None
    steps_s: tuple[float, ...] = ()


class PhaseHooks:
    """Calls ``enter(part)`` and ``leave(part, result)`` around the parts of a pipeline's generations while attached.

    ``result`` is what ``encode_prompt`` or ``vae.decode`` returned, None for a step. A part that raises is not left.
    """

    def __init__(self, pipe: Any, enter: Callable[[Part], None], leave: Callable[[Part, Any], None]) -> None:
        self._pipe = pipe
        self._enter = enter
        self._leave = leave
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> PhaseHooks:
        pipe = self._pipe
        transformer = getattr(pipe, "transformer", None)
        if callable(getattr(pipe, "encode_prompt", None)):
            self._wrap(pipe, "encode_prompt", "text")
        if transformer is not None and hasattr(transformer, "register_forward_pre_hook"):
            before = transformer.register_forward_pre_hook(lambda *_: self._enter("step"))
            after = transformer.register_forward_hook(lambda *_: self._leave("step", None))
            self._undo += [before.remove, after.remove]
        if callable(getattr(getattr(pipe, "vae", None), "decode", None)):
            self._wrap(pipe.vae, "decode", "decoding")
        return self

    def __exit__(self, *_: object) -> None:
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()

    def _wrap(self, owner: Any, name: str, part: Part) -> None:
        original = getattr(owner, name)
        own = name in vars(owner)

        def traced(*args: Any, **kwargs: Any) -> Any:
            self._enter(part)
            result = original(*args, **kwargs)
            self._leave(part, result)
            return result

        setattr(owner, name, traced)
        # an attribute that was the class's must vanish again, not stay as a bound copy
        self._undo.append(lambda: setattr(owner, name, original) if own else delattr(owner, name))


class PhaseTracer:
    """Marks the phases of every generation of one pipeline while attached."""

    def __init__(self, pipe: Any, clock: Clock) -> None:
        self._clock = clock
        self._hooks = PhaseHooks(pipe, self._enter, self._leave)
        self.decoded: Any = None
        """What ``vae.decode`` last returned: kept so that NaN is seen before it is cast to black pixels."""
        self.begin()

    def begin(self) -> None:
        """Forget the marks of the previous generation."""
        self._spans: dict[Part, list[tuple[Any, Any]]] = {"text": [], "step": [], "decoding": []}
        self._entered: dict[Part, Any] = {}
        self._decoding: Any = None
        """When decoding began after the last step; None as long as it has not."""
        self.decoded = None

    def __enter__(self) -> PhaseTracer:
        self._hooks.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.__exit__()
        self.begin()

    def read(self) -> Phases:
        """Phases of the last generation; the clock must have been synchronized."""
        span = self._clock.seconds
        encoded, called, decoded = self._spans["text"], self._spans["step"], self._spans["decoding"]
        steps: tuple[float, ...] = ()
        denoise = None
        if called:
            starts = [start for start, _ in called]
            end = called[-1][1] if self._decoding is None else self._decoding
            steps = tuple(span(a, b) for a, b in itertools.pairwise([*starts, end]))
            denoise = span(starts[0], end)
        return Phases(
            text_encode_s=sum(span(a, b) for a, b in encoded) if encoded else None,
            denoise_s=denoise,
            decode_s=sum(span(a, b) for a, b in decoded) if decoded else None,
            steps_s=steps,
        )

    def _enter(self, part: Part) -> None:
        self._entered[part] = self._clock.mark()

    def _leave(self, part: Part, result: Any) -> None:
        start = self._entered[part]
        self._spans[part].append((start, self._clock.mark()))
        if part == "step":
            self._decoding = None  # what was decoded before, to look at for one, was not the end
        elif part == "decoding":
            if self._decoding is None:
                self._decoding = start
            self.decoded = result
