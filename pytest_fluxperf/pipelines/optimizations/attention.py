"""Attention back ends, through diffusers' dispatcher.

``sdpa`` is what diffusers does anyway: torch's scaled dot product attention, which chooses its kernel itself.
"""

# ruff: noqa: ARG005, D102
# (overriding methods inherit their documentation, and callbacks take what the protocol hands them)
from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from pytest_fluxperf.pipelines.optimizations.base import (
    Applied,
    Host,
    Optimization,
    Stage,
    needs_cuda,
    needs_package,
    register,
    unavailable_on,
)
from pytest_fluxperf.recipe import Field, Recipe, Token, TokenSpec, choice

FLASH_ATTENTION_4 = "flash_4_hub"

TRIED_TOKENS = 128
"""Tokens of the query, key and value that a package's kernel is tried with."""


def seen_backends(transformer: Any) -> list[str]:
    """Back ends that the transformer's attention layers will use, sorted, each once."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    active = _AttentionBackendRegistry.get_active_backend()[0]
    found = {getattr(processor, "_attention_backend", None) or active for processor in processors(transformer)}
    return sorted(str(getattr(backend, "value", backend)) for backend in found)


def processors(transformer: Any) -> list[Any]:
    """The attention processors of a transformer's blocks."""
    return list(transformer.attn_processors.values())


_RUNS = {
    "_native_flash": "flash",
    "_native_cudnn": "cudnn",
    "_native_efficient": "efficient",
    "_native_math": "math",
    "flash": "flash_attn",
    "_flash_3": "flash_attn_3",
    FLASH_ATTENTION_4: "flash_attn_4",
    "sage": "sage",
    "xformers": "xformers",
}
"""Back ends that name one kernel, and that kernel as :mod:`pytest_fluxperf.measure.observe` reports it."""


def contradiction(asked: str | None, ran: Sequence[str]) -> str | None:
    """What is wrong when other kernels ran than the back end that was asked for; None when nothing is known.

    A compiler may take attention as plain matrix products apart, and a package may launch kernels that are no
    operators of torch (flash-attn-4 does): that leaves none to be seen.
    """
    kernel = _RUNS.get(asked or "")
    if kernel is None or not ran or kernel in ran:
        return None
    return f"attention back end {asked} was asked for and is set, but {', '.join(ran)} ran"


class AttentionBackend(Applied):
    """One back end for all attention layers of a transformer.

    That of a ``package`` (its distribution's name) is tried once when it is applied, since one that is installed may
    have been built for another torch; :meth:`apply` raises :class:`Unavailable` when it cannot compute.
    """

    def __init__(self, host: Host, backend: str, package: str | None = None) -> None:
        from diffusers.models.attention_dispatch import _AttentionBackendRegistry

        self._transformer = host.transformer
        self._backend = backend
        self._package = package
        self._registry = _AttentionBackendRegistry
        self._active = _AttentionBackendRegistry.get_active_backend()[0]
        self._before = [(processor, processor._attention_backend) for processor in processors(host.transformer)]
        self._hub_kernel: tuple[Any, Any] | None = None

    def apply(self) -> None:
        if self._backend == FLASH_ATTENTION_4:
            self._use_local_flash_attention_4()
        else:
            with self._unavailable_on(RuntimeError):  # A package that is too old, or does not import.
                self._transformer.set_attention_backend(self._backend)
        # Setting it on a model also makes it the process's default, which would reach other pipelines.
        self._registry.set_active_backend(self._active)
        if self._package is not None:
            self._try()

    def _use_local_flash_attention_4(self) -> None:
        """diffusers knows FlashAttention 4 only as a kernel from the hub; give it the installed package's."""
        from diffusers.models import attention_dispatch

        with self._unavailable_on(Exception):
            kernel = importlib.import_module("flash_attn.cute").flash_attn_func
        backend = attention_dispatch.AttentionBackendName(FLASH_ATTENTION_4)
        known = attention_dispatch._HUB_KERNELS_REGISTRY[backend]
        self._hub_kernel = (known, known.kernel_fn)
        known.kernel_fn = kernel
        for processor in processors(self._transformer):
            processor._attention_backend = backend

    def _try(self) -> None:
        """Attend once, as the transformer's blocks do but over few tokens."""
        import torch
        from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

        transformer = self._transformer
        shape = (1, TRIED_TOKENS, transformer.config.num_attention_heads, transformer.config.attention_head_dim)
        with self._unavailable_on(Exception):
            # Of ones, which leave the generators of random numbers alone.
            inputs = torch.ones(3, *shape, dtype=transformer.dtype, device=transformer.device)
            found = dispatch_attention_fn(*inputs, backend=AttentionBackendName(self._backend))
            found.cpu()  # A kernel that fails on the device tells when its result is waited for.

    def _unavailable_on(self, error_type: type[Exception]) -> AbstractContextManager[None]:
        return unavailable_on(f"attention back end {self._backend} cannot compute here", self._package, error_type)

    def undo(self) -> None:
        if self._hub_kernel is not None:
            known, kernel = self._hub_kernel
            known.kernel_fn = kernel
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

    def contradictions(self, ran: Mapping[str, Any]) -> tuple[str, ...]:
        found = contradiction(self._backend, ran.get("ran_attention", ()))
        return () if found is None else (found,)


Needs = Callable[[str], str | None]
"""Device → what is missing there, or None."""


@dataclass(frozen=True)
class Kernel:
    """One implementation: diffusers' name for it, what it needs, and the dtypes that it computes in on a GPU.

    ``package`` is the distribution that it comes from, None for torch's own.
    """

    backend: str
    needs: Needs = lambda device: None
    half_only: bool = True
    package: str | None = None


def _register(name: str, summary: str, kernel: Kernel, package: Kernel | None = None, lossless: bool = True) -> None:
    """Register a token; with ``package``, its value ``package`` chooses that implementation instead."""

    def chosen(token: Token) -> Kernel:
        return package if package is not None and token.value == "package" else kernel

    def conflict(token: Token, recipe: Recipe) -> str | None:
        # Known without a device only where the kernel needs a GPU anyway.
        if recipe.dtype == "fp32" and chosen(token).half_only and chosen(token).needs("cpu"):
            return f"{str(token)!r} computes in fp16 and bf16 only; write bf16 in place of fp32"
        return None

    def needs(token: Token, recipe: Recipe, device: str) -> str | None:
        if recipe.dtype == "fp32" and chosen(token).half_only and device.startswith("cuda"):
            return "computes in fp16 and bf16 only on a GPU"
        return chosen(token).needs(device)

    value = None if package is None else Field("kernel", choice("torch", "package"), "whose kernel", "torch")
    register(
        Optimization(
            TokenSpec(name, "attention", summary, value, (), lossless, default=name == "sdpa", conflict=conflict),
            Stage.ATTENTION,
            lambda host, token: AttentionBackend(host, chosen(token).backend, chosen(token).package),
            needs,
        )
    )


def _cuda(capability: tuple[int, int]) -> Needs:
    return lambda device: needs_cuda(device, capability)


def _packaged(
    backend: str, module: str, install: str, capability: tuple[int, int] = (8, 0), *, on_pypi: bool = True
) -> Kernel:
    def needs(device: str) -> str | None:
        lacking = needs_package(module, install)
        if lacking and not on_pypi:
            lacking += " (PyPI has no such version: build it from its sources)"
        return "; it ".join(reason for reason in (lacking, needs_cuda(device, capability)) if reason) or None

    return Kernel(backend, needs, package=install.partition(">=")[0])


_register(
    "sdpa",
    "torch's scaled dot product attention, kernel chosen by torch (what holds anyway)",
    Kernel("native", half_only=False),
)
_register(
    "fa2",
    "FlashAttention 2: torch's own, or the flash-attn package's",
    Kernel("_native_flash"),
    _packaged("flash", "flash_attn", "flash-attn>=2.6.3"),
)
_register("cudnn", "cuDNN's attention", Kernel("_native_cudnn", _cuda((8, 0))))
_register("efficient", "memory-efficient attention", Kernel("_native_efficient", _cuda((5, 0)), half_only=False))
_register("math", "attention as plain matrix products, the slow reference", Kernel("_native_math", half_only=False))
_register("flex", "FlexAttention", Kernel("flex", half_only=False))
_register(
    "fa3",
    "FlashAttention 3",
    _packaged("_flash_3", "flash_attn_interface", "flash-attn-3", (9, 0), on_pypi=False),
)
_register("fa4", "FlashAttention 4", _packaged(FLASH_ATTENTION_4, "flash_attn.cute", "flash-attn-4", (9, 0)))
_register(
    "sage",
    "SageAttention: query and key quantized to INT8",
    _packaged("sage", "sageattention", "sageattention>=2.1.1", on_pypi=False),
    lossless=False,
)
_register("xformers", "xFormers' attention", _packaged("xformers", "xformers", "xformers>=0.0.29"))
