# ruff: noqa: ARG002, D102
# (overriding methods inherit their documentation, and callbacks take what the protocol hands them)
"""Switches: ``fuseqkv``, ``channels_last``, ``vae_tiling``, ``vae_slicing``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_fluxperf.pipelines.optimizations.base import Applied, Host, Optimization, Stage, register
from pytest_fluxperf.recipe import Token, TokenSpec


class FusedProjections(Applied):
    """Query, key and value by one matrix product in every attention layer."""

    def __init__(self, host: Host, token: Token) -> None:
        self._transformer = host.transformer

    def apply(self) -> None:
        self._transformer.fuse_qkv_projections()

    def undo(self) -> None:
        self._transformer.unfuse_qkv_projections()

    def _layers(self) -> list[Any]:
        return [module for module in self._transformer.modules() if hasattr(module, "fused_projections")]

    def facts(self) -> dict[str, Any]:
        return {"fused_projections": sum(layer.fused_projections for layer in self._layers())}

    def problems(self) -> tuple[str, ...]:
        fused, layers = self.facts()["fused_projections"], len(self._layers())
        return () if fused == layers else (f"{fused} of {layers} attention layers have fused projections",)


class ChannelsLast(Applied):
    """The VAE's convolution weights in channels-last memory order."""

    def __init__(self, host: Host, token: Token) -> None:
        self._vae = host.pipe.vae
        self._before = [(parameter, parameter.data) for parameter in host.pipe.vae.parameters()]

    def apply(self) -> None:
        import torch

        self._vae.to(memory_format=torch.channels_last)

    def undo(self) -> None:
        for parameter, data in self._before:
            parameter.data = data
        self._before.clear()

    def kept(self) -> list[Any]:
        return [data for parameter, data in self._before if parameter.data_ptr() != data.data_ptr()]

    def _weights(self) -> list[Any]:
        return [parameter for parameter in self._vae.parameters() if parameter.dim() == 4]

    def facts(self) -> dict[str, Any]:
        import torch

        active = sum(weight.is_contiguous(memory_format=torch.channels_last) for weight in self._weights())
        return {"channels_last_weights": active}

    def problems(self) -> tuple[str, ...]:
        active, weights = self.facts()["channels_last_weights"], len(self._weights())
        return () if active == weights else (f"{active} of {weights} convolution weights are channels-last",)


class VaeOption(Applied):
    """Decoding in tiles (of one picture) or slices (of a batch), which saves memory."""

    def __init__(self, host: Host, token: Token) -> None:
        self._vae = host.pipe.vae
        self._name = token.name.removeprefix("vae_")
        self._flag = f"use_{self._name}"
        self._was = bool(getattr(host.pipe.vae, self._flag))

    def apply(self) -> None:
        getattr(self._vae, f"enable_{self._name}")()

    def undo(self) -> None:
        setattr(self._vae, self._flag, self._was)

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {f"vae_{self._name}": bool(getattr(self._vae, self._flag))}
        if self._name == "tiling":
            facts["vae_tile_pixels"] = int(self._vae.tile_sample_min_size)
        return facts

    def problems(self) -> tuple[str, ...]:
        return () if getattr(self._vae, self._flag) else (f"the VAE's {self._name} was asked for, but is off",)


def _register(
    name: str, summary: str, stage: Stage, make: Callable[[Host, Token], Applied], lossless: bool = True
) -> None:
    register(Optimization(TokenSpec(name, "switch", summary, lossless=lossless), stage, make))


_register("fuseqkv", "query, key and value by one matrix product", Stage.FUSION, FusedProjections)
_register("channels_last", "the VAE's convolutions in channels-last order", Stage.DECODING, ChannelsLast)
_register("vae_tiling", "decode a picture in tiles, blended: less memory", Stage.DECODING, VaeOption, lossless=False)
_register("vae_slicing", "decode the pictures of a batch one by one: less memory", Stage.DECODING, VaeOption)
