# ruff: noqa: D102 (overriding methods inherit their documentation)
"""``lora:PATH[,scale=S]``: LoRA weights fused into the transformer, as served.

Fusing writes into the weights, and unfusing subtracts with rounding; so the originals of all weights that the
adapter touches are kept aside and put back by reference.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.pipelines.optimizations.base import (
    Applied,
    Host,
    Optimization,
    Stage,
    needs_package,
    register,
)
from pytest_fluxperf.pipelines.optimizations.foreign import Isolated
from pytest_fluxperf.pipelines.quiet import quiet
from pytest_fluxperf.recipe import Field, Recipe, Token, TokenSpec, nonempty, number

_ADAPTER = "fluxperf"


class FusedLora(Applied):
    """A LoRA file fused into a transformer."""

    def __init__(self, host: Host, token: Token) -> None:
        self._pipe = host.pipe
        self._transformer = host.transformer
        self._token = token
        self._path = Path(str(token.value)).expanduser()
        self._scale = float(token.option("scale") or 1.0)
        self._originals: list[tuple[Any, Any]] = []
        self._isolated = Isolated(host.pipe)
        self._children = [(module, dict(module._modules)) for module in host.transformer.modules()]
        if not self._path.is_file():
            raise FluxPerfError(f"{token}: there is no file {str(self._path)!r}")

    def apply(self) -> None:
        import torch

        try:
            with quiet(logging.CRITICAL):  # errors are raised as well
                self._pipe.load_lora_weights(
                    str(self._path.parent), weight_name=self._path.name, adapter_name=_ADAPTER, local_files_only=True
                )
                for layer in self._adapted_layers():
                    self._originals.append((layer, layer.weight))
                    layer.weight = torch.nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
                if not self._originals:
                    raise FluxPerfError(f"{self._token}: no weight in the file belongs to this transformer")
                self._pipe.fuse_lora(components=["transformer"], lora_scale=self._scale, adapter_names=[_ADAPTER])
                # The adapter's own matrices would run beside the fused weights and be quantized with them.
                self._pipe.unload_lora_weights()
        except FluxPerfError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            raise FluxPerfError(f"{self._token}: it does not match this transformer ({reason})") from error

    def _adapted_layers(self) -> list[Any]:
        """The linear layers that peft wrapped."""
        return [module.base_layer for module in self._transformer.modules() if hasattr(module, "base_layer")]

    def undo(self) -> None:
        for module, children in self._children:
            module._modules.clear()
            module._modules.update(children)
        for layer, weight in self._originals:
            layer.weight = weight
        self._originals.clear()
        self._isolated.restore()

    def kept(self) -> list[Any]:
        return [weight for _, weight in self._originals]

    def facts(self) -> dict[str, Any]:
        return {"lora": str(self._path), "lora_scale": self._scale, "lora_layers": len(self._originals)}

    def problems(self) -> tuple[str, ...]:
        import torch

        kept = sum(torch.equal(layer.weight, weight) for layer, weight in self._unquantized())
        return (f"{self._token} left {kept} of its {len(self._originals)} weights unchanged",) if kept else ()

    def _unquantized(self) -> list[tuple[Any, Any]]:
        import torch

        return [(layer, weight) for layer, weight in self._originals if type(layer.weight) is torch.nn.Parameter]


def _needs(token: Token, recipe: Recipe, device: str) -> str | None:  # noqa: ARG001
    return needs_package("peft", "peft")


register(
    Optimization(
        TokenSpec(
            "lora",
            "switch",
            "LoRA weights from a safetensors file, fused into the transformer",
            value=Field("PATH", nonempty, "file of LoRA weights", required=True),
            options=(Field("scale", number(), "strength of the adapter", 1.0),),
            lossless=False,
        ),
        Stage.WEIGHTS,
        FusedLora,
        _needs,
    )
)
