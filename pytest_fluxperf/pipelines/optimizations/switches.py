# ruff: noqa: ARG002, D102
# (overriding methods inherit their documentation, and callbacks take what the protocol hands them)
"""Switches: ``fuseqkv``, ``channels_last``, ``vae_tiling``, ``vae_slicing``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_fluxperf.pipelines.optimizations.base import Applied, Host, Optimization, Stage, register
from pytest_fluxperf.recipe import Field, Token, TokenSpec, integer


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

    def originals(self) -> list[Any]:
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
    """Decoding in tiles (of one picture) or slices (of a batch), which saves memory.

    Neither does anything to a picture no larger than a tile, or to one picture at a time: then it is a problem.
    """

    def __init__(self, host: Host, token: Token) -> None:
        self._vae = host.pipe.vae
        self._token = token
        self._name = token.name.removeprefix("vae_")
        self._flag = f"use_{self._name}"
        sizes = ("tile_sample_min_size", "tile_latent_min_size")
        self._before = {name: getattr(self._vae, name) for name in (self._flag, *sizes)}
        self._decode = vars(self._vae).get("decode")
        self._decoded = self._divided = 0

    def apply(self) -> None:
        vae, decode = self._vae, self._vae.decode

        def counted(latents: Any, *args: Any, **kwargs: Any) -> Any:
            self._decoded += 1
            self._divided += self._divides(latents.shape)
            return decode(latents, *args, **kwargs)

        getattr(vae, f"enable_{self._name}")()
        if self._token.value is not None:
            vae.tile_sample_min_size = self._token.value
            vae.tile_latent_min_size = int(self._token.value) // 2 ** (len(vae.config.block_out_channels) - 1)
        vae.decode = counted

    def _divides(self, shape: Any) -> bool:
        """Whether diffusers decodes such latents in parts."""
        if self._name == "slicing":
            return bool(shape[0] > 1)
        return bool(max(shape[-2:]) > self._vae.tile_latent_min_size)

    def undo(self) -> None:
        for name, value in self._before.items():
            setattr(self._vae, name, value)
        del self._vae.decode
        if self._decode is not None:
            self._vae.decode = self._decode

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {f"vae_{self._name}": bool(getattr(self._vae, self._flag))}
        if self._name == "tiling":
            facts["vae_tile_pixels"] = int(self._vae.tile_sample_min_size)
        return facts

    def problems(self) -> tuple[str, ...]:
        if not getattr(self._vae, self._flag):
            return (f"the VAE's {self._name} was asked for, but is off",)
        if self._divided or not self._decoded:
            return ()
        if self._name == "slicing":
            return (
                f"{self._token} did nothing: every picture was decoded alone (num_images_per_prompt makes several)",
            )
        tile = int(self._vae.tile_sample_min_size)
        return (
            f"{self._token} did nothing: no picture was larger than a tile of {tile} pixels, write a smaller one as "
            f"vae_tiling:{tile // 2}",
        )


def _tile(text: str) -> int:
    """Reader of the side of a tile, of whole latents."""
    side = integer(16)(text)
    if side % 8:
        raise ValueError("must be a multiple of 8")
    return side


def _register(
    name: str,
    summary: str,
    stage: Stage,
    make: Callable[[Host, Token], Applied],
    lossless: bool = True,
    value: Field | None = None,
) -> None:
    register(Optimization(TokenSpec(name, "switch", summary, value=value, lossless=lossless), stage, make))


_register("fuseqkv", "query, key and value by one matrix product", Stage.FUSION, FusedProjections)
_register("channels_last", "the VAE's convolutions in channels-last order", Stage.DECODING, ChannelsLast)
_register(
    "vae_tiling",
    "decode a picture in tiles, blended: less memory",
    Stage.DECODING,
    VaeOption,
    lossless=False,
    value=Field("PIXELS", _tile, "side of a tile (default: the VAE's own, 1024 for FLUX.1)"),
)
_register("vae_slicing", "decode the pictures of a batch one by one: less memory", Stage.DECODING, VaeOption)
