"""Attention back ends, through diffusers' dispatcher.

``sdpa`` is what diffusers does anyway: torch's scaled dot product attention, which chooses its kernel itself.
"""

# ruff: noqa: ARG001, D102
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


def seen_backends(transformer: Any) -> list[str]:
    """Back ends that the transformer's attention layers will use, sorted, each once."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    active = _AttentionBackendRegistry.get_active_backend()[0]
    found = {getattr(processor, "_attention_backend", None) or active for processor in processors(transformer)}
    return sorted(str(getattr(backend, "value", backend)) for backend in found)


def processors(transformer: Any) -> list[Any]:
    """The attention processors of a transformer's blocks."""
    return list(transformer.attn_processors.values())


class AttentionBackend(Applied):
    """One back end for all attention layers of a transformer."""

    def __init__(self, host: Host, backend: str) -> None:
        from diffusers.models.attention_dispatch import _AttentionBackendRegistry

        self._transformer = host.transformer
        self._backend = backend
        self._registry = _AttentionBackendRegistry
        self._active = _AttentionBackendRegistry.get_active_backend()[0]
        self._before = [(processor, processor._attention_backend) for processor in processors(host.transformer)]

    def apply(self) -> None:
        self._transformer.set_attention_backend(self._backend)
        # Setting it on a model also makes it the process's default, which would reach other pipelines.
        self._registry.set_active_backend(self._active)

    def undo(self) -> None:
        for processor, backend in self._before:
            processor._attention_backend = backend
        self._registry.set_active_backend(self._active)

    def facts(self) -> dict[str, Any]:
        return {"attention_asked": self._backend}

    def problems(self) -> tuple[str, ...]:
        seen = seen_backends(self._transformer)
        if seen == [self._backend]:
            return ()
        return (f"attention back end {self._backend} was asked for, but {', '.join(seen)} is set",)


Needs = Callable[[str], str | None]
"""Device → what is missing there, or None."""


def _token(name: str, summary: str, backends: dict[str, str], needs: dict[str, Needs], half_only: bool = False) -> None:
    """Register a back end; several ``backends`` are the choices of the token's value, the first the default."""
    variants = list(backends)
    value = Field("kernel", choice(*variants), "whose kernel", variants[0]) if len(variants) > 1 else None

    def variant(token: Token) -> str:
        return variants[0] if token.value is None else str(token.value)

    def conflict(token: Token, recipe: Recipe) -> str | None:
        if half_only and recipe.dtype == "fp32":
            return f"{name!r} computes in fp16 or bf16 only; write bf16 in place of fp32"
        return None

    def missing(token: Token, recipe: Recipe, device: str) -> str | None:
        check = needs.get(variant(token))
        return None if check is None else check(device)

    def apply(host: Host, token: Token) -> Applied:
        return AttentionBackend(host, backends[variant(token)])

    register(
        Optimization(
            TokenSpec(name, "attention", summary, value=value, default=name == "sdpa", conflict=conflict),
            Stage.ATTENTION,
            apply,
            missing,
        )
    )


def _packaged(package: str, install: str, capability: tuple[int, int] | None = None) -> Needs:
    return lambda device: needs_cuda(device, capability) or needs_package(package, install)


_token("sdpa", "torch's scaled dot product attention, kernel chosen by torch (the default)", {"": "native"}, {})
