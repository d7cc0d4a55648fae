"""Keeping caches of other libraries to the one pipeline they are asked for, and undoing them whole."""

from __future__ import annotations

from typing import Any


class Isolated:
    """Undo for a library that patches the pipeline's class, its instance, its transformer, and ``others``.

    The pipeline gets a class of its own, so that a patched ``__call__`` reaches no other pipeline and vanishes with
    that class. :meth:`restore` puts back every attribute, and the order of the transformer's children: para-attn
    swaps the block lists during a call, which moves them to the end, the single blocks first, and diffusers finds a
    model's first block by that order.
    """

    def __init__(self, pipe: Any, *others: Any) -> None:
        self._pipe = pipe
        self._class = type(pipe)
        self._objects = [
            (thing, dict(vars(thing)), dict(vars(thing).get("_modules", {})))
            for thing in dict.fromkeys((pipe, pipe.transformer, *others))
        ]

    def isolate(self) -> None:
        """Give the pipeline its own class, of the same name: the libraries choose their adapter by it."""
        self._pipe.__class__ = type(self._class.__name__, (self._class,), {"__module__": self._class.__module__})

    def restore(self) -> None:
        """Put the class, the attributes and the children back."""
        self._pipe.__class__ = self._class
        for thing, attributes, children in self._objects:
            vars(thing).clear()
            vars(thing).update(attributes)
            if children:
                thing._modules.clear()
                thing._modules.update(children)
