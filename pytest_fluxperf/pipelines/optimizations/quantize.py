"""Quantization of the blocks' linear layers by torchao.

Only linears inside the transformer's blocks: embedders and the output projection are small and sensitive. The
original weights are kept by reference, so that undoing reassigns them and copies nothing.
"""

# ruff: noqa: ARG001, ARG005, D102
# (overriding methods inherit their documentation, and callbacks take what the protocol hands them)
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_fluxperf.pipelines.optimizations.base import (
    Applied,
    Host,
    Optimization,
    Stage,
    needs_package,
    register,
)
from pytest_fluxperf.recipe import Recipe, Token, TokenSpec

_UNFUSED = frozenset({"to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj"})


def block_linears(transformer: Any) -> dict[str, Any]:
    """Linear layers of the transformer's blocks by qualified name, without projections that fusing replaced."""
    import torch

    found = {}
    for name, module in transformer.named_modules():
        if not name.startswith(("transformer_blocks.", "single_transformer_blocks.")):
            continue
        parent, _, leaf = name.rpartition(".")
        if leaf in _UNFUSED and getattr(transformer.get_submodule(parent), "fused_projections", False):
            continue
        if isinstance(module, torch.nn.Linear):
            found[name] = module
    return found


class Quantized(Applied):
    """Blocks' linears under one torchao configuration."""

    def __init__(self, host: Host, config: Any, skip: Callable[[str], bool] = lambda name: False) -> None:
        self._transformer = host.transformer
        self._config = config
        self._linears = {name: linear for name, linear in block_linears(host.transformer).items() if not skip(name)}
        self._weights = {name: linear.weight for name, linear in self._linears.items()}
        self._attributes = {name: set(vars(linear)) for name, linear in self._linears.items()}

    def apply(self) -> None:
        from torchao.quantization import quantize_

        quantize_(self._transformer, self._config, filter_fn=lambda module, name: name in self._linears)

    def undo(self) -> None:
        for name, linear in self._linears.items():
            linear.weight = self._weights[name]
            for attribute in set(vars(linear)) - self._attributes[name]:
                delattr(linear, attribute)
        self._weights.clear()
        self._linears.clear()

    def _active(self) -> int:
        import torch

        return sum(type(linear.weight) is not torch.nn.Parameter for linear in self._linears.values())

    def facts(self) -> dict[str, Any]:
        return {
            "quantization": type(self._config).__name__,
            "quantized_layers": self._active(),
            "quantized_weight": sorted({type(linear.weight).__name__ for linear in self._linears.values()}),
        }

    def problems(self) -> tuple[str, ...]:
        active = self._active()
        if self._linears and active == len(self._linears):
            return ()
        return (f"{active} of {len(self._linears)} linear layers of the blocks are quantized",)


def _torchao(token: Token, recipe: Recipe, device: str) -> str | None:
    return needs_package("torchao", "torchao")


def _int8wo(host: Host, token: Token) -> Applied:
    from torchao.quantization import Int8WeightOnlyConfig

    return Quantized(host, Int8WeightOnlyConfig(set_inductor_config=False))


register(
    Optimization(
        TokenSpec("int8wo", "quantization", "INT8 weights, activations as they are", lossless=False),
        Stage.QUANTIZATION,
        _int8wo,
        _torchao,
    )
)
