"""``compile`` and ``tensorrt``: torch.compile of every block, one graph for each kind of block.

The blocks' ``forward`` is compiled, not the modules, and before caches are hooked in: hooks stay outside of the
graphs, no graph breaks, and caches come and go without compiling again.
"""

# ruff: noqa: ARG001, D102
# (overriding methods inherit their documentation, and callbacks take what the protocol hands them)
from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from pytest_fluxperf.errors import Unavailable
from pytest_fluxperf.pipelines import compile_counters
from pytest_fluxperf.pipelines.optimizations.base import (
    Applied,
    Forwards,
    Host,
    Optimization,
    Stage,
    needs_cuda,
    needs_package,
    register,
    unavailable_on,
)
from pytest_fluxperf.recipe import Field, Recipe, Token, TokenSpec, choice

_active = 0
# Pipelines compiled now; dynamo's state is cleared when the last is undone, not under another's feet.


class Compiled(Applied):
    """Compiled blocks (or, for ``whole``, one compiled transformer)."""

    def __init__(self, host: Host, token: Token) -> None:
        self._token = token
        self._host = host
        self._modules = [host.transformer] if token.value == "whole" else host.blocks()
        self._forwards = Forwards(self._modules)
        self._before = compile_counters.CompileCounts()

    def apply(self) -> None:
        global _active
        import torch

        _active += 1
        self._before = compile_counters.snapshot()
        arguments = self._arguments()
        for module in self._modules:
            module.forward = torch.compile(module.forward, fullgraph=True, **arguments)

    def _arguments(self) -> dict[str, Any]:
        """What torch.compile is told."""
        if self._token.value != "tuned":
            return {}
        try:
            from pytest_fluxperf.pipelines.optimizations import tuning
        except ImportError as error:  # of what inductor does not promise to keep
            raise Unavailable(f"{self._token} needs parts of inductor that this torch lacks ({error})") from error
        return {"backend": tuning.backend}

    def undo(self) -> None:
        global _active
        self._forwards.restore()
        _active -= 1
        if _active == 0:
            import torch

            torch._dynamo.reset()

    def _counts(self) -> compile_counters.CompileCounts:
        return compile_counters.snapshot() - self._before

    def facts(self) -> dict[str, Any]:
        counts = self._counts()
        return {
            "compile": str(self._token),
            "compiled_graphs": counts.graphs,
            "graph_breaks": counts.graph_breaks,
            "inductor_cache_hits": counts.cache_hits,
            "inductor_cache_misses": counts.cache_misses,
        }

    def problems(self) -> tuple[str, ...]:
        if self._host.steps.index and self._counts().graphs == 0:
            return (f"{self._token} was asked for, but no graph was compiled",)
        return ()

    def contradictions(self, ran: Mapping[str, Any]) -> tuple[str, ...]:
        # a compiler that has met its limit of recompilations runs what it compiled last, or nothing, and says no word
        regions = ran.get("ran_compiled_regions")
        if regions is None or regions >= len(self._modules):
            return ()
        what = "whole transformer" if len(self._modules) == 1 else f"{len(self._modules)} blocks"
        return (f"{self._token} was asked for, but in a step {regions} of the {what} ran compiled",)


class TensorRT(Compiled):
    """Blocks compiled into TensorRT engines."""

    def _arguments(self) -> dict[str, Any]:
        with unavailable_on("torch-tensorrt cannot compile here", "torch-tensorrt"):
            importlib.import_module("torch_tensorrt")  # registers the back end
        # Engines compute in the dtypes of the weights; one that cannot be built is an error, not a block left eager.
        options = {"use_explicit_typing": True, "pass_through_build_failures": True}
        return {"backend": "tensorrt", "dynamic": False, "options": options}


def _needs_tensorrt(token: Token, recipe: Recipe, device: str) -> str | None:
    return needs_package("torch_tensorrt", "torch-tensorrt") or needs_cuda(device)


register(
    Optimization(
        TokenSpec(
            "compile",
            "compile",
            "torch.compile: blocks, tuned blocks, or the whole transformer as one graph",
            value=Field("what", choice("blocks", "tuned", "whole"), "what is compiled, and how hard", "blocks"),
        ),
        Stage.COMPILATION,
        Compiled,
    )
)

register(
    Optimization(
        TokenSpec(
            "tensorrt", "compile", "blocks compiled into TensorRT engines by torch-tensorrt (never run on a GPU yet)"
        ),
        Stage.COMPILATION,
        TensorRT,
        _needs_tensorrt,
    )
)
