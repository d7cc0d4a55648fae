# ruff: noqa: D102 (overriding methods inherit their documentation)
"""``lora:PATH[,scale=S]``: LoRA weights fused into the transformer and the text encoder, as served.

Fusing writes into the weights, and unfusing subtracts with rounding; so the originals of all weights that the
adapter touches are kept aside and put back by reference.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.files import is_there
from pytest_fluxperf.pipelines.optimizations import lorafile
from pytest_fluxperf.pipelines.optimizations.base import (
    Applied,
    Host,
    Optimization,
    Stage,
    needs_package,
    register,
)
from pytest_fluxperf.pipelines.optimizations.isolation import Isolated
from pytest_fluxperf.pipelines.out_of_memory import shortage
from pytest_fluxperf.pipelines.quiet import quiet
from pytest_fluxperf.recipe import Field, Recipe, Token, TokenSpec, nonempty, number

_ADAPTER = "fluxperf"


class FusedLora(Applied):
    """A LoRA file fused into a pipeline."""

    def __init__(self, host: Host, token: Token) -> None:
        self._pipe = host.pipe
        self._token = token
        self._path = Path(str(token.value)).expanduser()
        self._scale = float(token.option("scale") or 1.0)
        self._originals: list[tuple[Any, str, Any]] = []
        """Layer, name of its parameter, the parameter."""
        models = [model for name in lorafile.MODELS if (model := getattr(host.pipe, name, None)) is not None]
        self._isolated = Isolated(host.pipe, *models)
        self._children = [(module, dict(module._modules)) for model in models for module in model.modules()]
        if not is_there(self._path) or not self._path.is_file():
            raise FluxPerfError(f"{token}: there is no file {str(self._path)!r}")

    def apply(self) -> None:
        try:
            with quiet(logging.CRITICAL):  # errors are raised as well
                adapter = lorafile.read(self._pipe, self._path)
                self._keep(adapter)
                self._fuse(adapter)
        except Exception as error:
            if shortage(error) is not None:
                raise
            reason = " ".join(str(error).split())[:300]
            raise FluxPerfError(f"{self._token}: it does not match this pipeline ({reason})") from error

    def _keep(self, adapter: lorafile.Adapter) -> None:
        """Let the adapter write into copies."""
        import torch

        for layers in adapter.layers.values():
            for layer in layers.values():
                for name in ("weight", "bias") if adapter.biased else ("weight",):
                    if (original := getattr(layer, name)) is not None:
                        self._originals.append((layer, name, original))
                        setattr(layer, name, torch.nn.Parameter(original.detach().clone(), requires_grad=False))

    def _fuse(self, adapter: lorafile.Adapter) -> None:
        pipe = self._pipe
        load = {
            "transformer": lambda **given: pipe.load_lora_into_transformer(transformer=pipe.transformer, **given),
            "text_encoder": lambda **given: pipe.load_lora_into_text_encoder(
                text_encoder=pipe.text_encoder, prefix="text_encoder", **given
            ),
        }
        for component in adapter.layers:
            load[component](
                state_dict=dict(adapter.state),
                network_alphas=adapter.alphas,
                metadata=adapter.metadata,
                adapter_name=_ADAPTER,
                _pipeline=pipe,
                low_cpu_mem_usage=True,  # Or peft draws random matrices first.
            )
        pipe.fuse_lora(components=list(adapter.layers), lora_scale=self._scale, adapter_names=[_ADAPTER])
        # The adapter's own matrices would run beside the fused weights and be quantized with them.
        pipe.unload_lora_weights()

    def undo(self) -> None:
        for module, children in self._children:
            module._modules.clear()
            module._modules.update(children)
        for layer, name, original in self._originals:
            setattr(layer, name, original)
        self._originals.clear()
        self._isolated.restore()

    def originals(self) -> list[Any]:
        return [original for _, _, original in self._originals]

    def facts(self) -> dict[str, Any]:
        layers = {id(layer) for layer, _, _ in self._originals}
        return {"lora": str(self._path), "lora_scale": self._scale, "lora_layers": len(layers)}

    def problems(self) -> tuple[str, ...]:
        import torch

        unquantized = [(layer, weight) for layer, name, weight in self._originals if name == "weight"]
        unquantized = [(layer, weight) for layer, weight in unquantized if type(layer.weight) is torch.nn.Parameter]
        kept = sum(torch.equal(layer.weight, weight) for layer, weight in unquantized)
        total = self.facts()["lora_layers"]
        return (f"{self._token} left {kept} of its {total} weights unchanged",) if kept else ()


def _needs(token: Token, recipe: Recipe, device: str) -> str | None:  # noqa: ARG001
    return needs_package("peft", "peft")


register(
    Optimization(
        TokenSpec(
            "lora",
            "switch",
            "LoRA weights from a safetensors file, fused into the transformer and the text encoder",
            value=Field("PATH", nonempty, "file of LoRA weights", required=True),
            options=(Field("scale", number(), "strength of the adapter", 1.0),),
            lossless=False,
        ),
        Stage.WEIGHTS,
        FusedLora,
        _needs,
    )
)
