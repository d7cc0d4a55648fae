"""Attention packages that are not there: diffusers takes what stands in for their kernels."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

NO_OPERATOR = (
    "No operator found for `memory_efficient_attention_forward` with inputs:\n"
    "     query       : shape=(1, 128, 2, 16) (torch.bfloat16)\n"
    "`fa2F@v2.8.3` is not supported because:\n"
    "    xFormers wasn't build with CUDA support"
)
"""What an xformers says whose extension was built for another torch."""


def attend(query: Any, key: Any, value: Any) -> Any:
    """Attention over (batch, tokens, heads, width), by matrix products."""
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    weights = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(-1)
    return (weights @ value).transpose(1, 2).contiguous()


def cannot(error: Exception) -> Callable[..., Any]:
    """A kernel that raises."""

    def kernel(*_: Any) -> Any:
        raise error

    return kernel


def install(patch: pytest.MonkeyPatch, token: str, compute: Callable[..., Any]) -> None:
    """As if the token's package were installed, the device were a GPU, and the kernel were ``compute(q, k, v)``."""
    from diffusers.models import attention_dispatch

    from pytest_fluxperf.pipelines.optimizations import attention, base

    def kernel(*inputs: Any, **named: Any) -> Any:
        return compute(*[*inputs, *named.values()][:3])

    patch.setattr(base, "cuda_capability", lambda device: (9, 0))
    patch.setattr(attention, "needs_package", lambda module, install: None)
    if token == "fa4":
        package = ModuleType("flash_attn.cute")
        package.flash_attn_func = kernel
        patch.setitem(sys.modules, "flash_attn.cute", package)
        return
    there, name, value = {
        "fa2:package": ("_CAN_USE_FLASH_ATTN", "flash_attn_func", kernel),
        "fa3": ("_CAN_USE_FLASH_ATTN_3", "_wrapped_flash_attn_3", lambda **named: (kernel(**named), None)),
        "sage": ("_CAN_USE_SAGE_ATTN", "sageattn", kernel),
        "xformers": ("_CAN_USE_XFORMERS_ATTN", "xops", SimpleNamespace(memory_efficient_attention=kernel)),
    }[token]
    patch.setattr(attention_dispatch, there, True)
    patch.setattr(attention_dispatch, name, value)
