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
    needs_cuda,
    needs_package,
    register,
)
from pytest_fluxperf.recipe import Field, Recipe, Token, TokenSpec, choice

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

    def originals(self) -> list[Any]:
        return list(self._weights.values())

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


_ADAPTIVE_NORM = ".norm"
# The modulation layers see one row per picture, too few for cuBLAS's INT8 product (over 16 rows).


def _register(
    name: str,
    summary: str,
    make: Callable[[Any, Token], Any],
    *,
    value: Field | None = None,
    capability: tuple[int, int] | None = None,
    bf16_only: Callable[[Token], bool] = lambda token: False,
    skip: Callable[[str], bool] = lambda name: False,
) -> None:
    """Register a quantization whose torchao configuration is ``make(torchao.quantization, token)``."""

    def apply(host: Host, token: Token) -> Applied:
        from torchao import quantization

        return Quantized(host, make(quantization, token), skip)

    def conflict(token: Token, recipe: Recipe) -> str | None:
        if bf16_only(token) and recipe.dtype != "bf16":
            return f"{str(token)!r} quantizes bf16 weights only; write bf16 in place of {recipe.dtype}"
        return None

    def needs(token: Token, recipe: Recipe, device: str) -> str | None:
        missing = None if capability is None else needs_cuda(device, capability)
        return missing or needs_package("torchao", "torchao")

    register(
        Optimization(
            TokenSpec(name, "quantization", summary, value=value, lossless=False, conflict=conflict),
            Stage.QUANTIZATION,
            apply,
            needs,
        )
    )


def _fp8(torchao: Any, token: Token) -> Any:
    granularity = torchao.PerTensor() if token.value == "tensor" else torchao.PerRow()
    return torchao.Float8DynamicActivationFloat8WeightConfig(granularity=granularity, set_inductor_config=False)


def _int4wo(torchao: Any, token: Token) -> Any:
    from torchao.quantization.quantize_.workflows import Int4PackingFormat

    # The packing of torch's own kernel; the others need packages of their own.
    packing = Int4PackingFormat.TILE_PACKED_TO_4D
    return torchao.Int4WeightOnlyConfig(group_size=128, int4_packing_format=packing, set_inductor_config=False)


_register(
    "fp8",
    "FP8 weights and activations, scaled as it runs: per row, or one scale per tensor",
    _fp8,
    value=Field("scale", choice("row", "tensor"), "what shares a scale", "row"),
    capability=(8, 9),
    bf16_only=lambda token: token.value == "row",
)
_register(
    "fp8wo",
    "FP8 weights, activations as they are: saves memory, buys no time",
    lambda torchao, token: torchao.Float8WeightOnlyConfig(set_inductor_config=False),
)
_register(
    "int8wo",
    "INT8 weights, activations as they are: saves memory, buys no time",
    lambda torchao, token: torchao.Int8WeightOnlyConfig(set_inductor_config=False),
)
_register(
    "int8",
    "INT8 weights and activations, scaled as it runs; modulation layers excepted",
    lambda torchao, token: torchao.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False),
    skip=lambda name: _ADAPTIVE_NORM in name,
)
_register(
    "int4wo",
    "INT4 weights in groups of 128, activations as they are",
    _int4wo,
    capability=(8, 0),
    bf16_only=lambda token: True,
)
