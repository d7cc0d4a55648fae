"""Which denoising steps ran the whole transformer, and which a cache answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class StepLog:
    """The decisions of the current generation, one for every call of the transformer.

    A call in which no cache spoke up is a computed step. A cache calls :meth:`record` from its own decision
    function, at most once a call; a cache that works inside the blocks (attention only) reports a step in which it
    answered any of the work as reused. With true classifier-free guidance the transformer is called twice a step,
    and both calls are listed.
    """

    def __init__(self) -> None:
        self._decisions: list[bool] = []
        self._pending: bool | None = None

    def begin(self) -> None:
        """Forget the previous generation."""
        self._decisions.clear()
        self._pending = None

    def record(self, computed: bool) -> None:
        """Say how the current call of the transformer is answered; a reuse outweighs an earlier ``True``."""
        self._pending = computed and self._pending is not False

    @property
    def index(self) -> int:
        """Index of the current call of the transformer, from 0."""
        return len(self._decisions)

    @property
    def decisions(self) -> str:
        """One character a finished call: ``1`` computed, ``0`` reused."""
        return "".join("1" if computed else "0" for computed in self._decisions)

    def attach(self, transformer: Any) -> Callable[[], None]:
        """Watch a transformer module; returns the function that stops it.

        The hooks sit on the module's call, outside of any patched or compiled ``forward``.
        """

        def before(*_: Any) -> None:
            self._pending = None

        def after(*_: Any) -> None:
            self._decisions.append(self._pending is not False)
            self._pending = None

        handles = [transformer.register_forward_pre_hook(before), transformer.register_forward_hook(after)]

        def detach() -> None:
            for handle in handles:
                handle.remove()

        return detach
