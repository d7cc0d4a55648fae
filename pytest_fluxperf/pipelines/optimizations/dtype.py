"""``fp32``, ``bf16``, ``fp16``: the dtype that the base is loaded in."""

from __future__ import annotations

from typing import Any

from pytest_fluxperf.pipelines.optimizations.base import Applied, Host, Optimization, Stage, register
from pytest_fluxperf.recipe import Token, TokenSpec

TORCH_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Token → name of the torch dtype."""


class _Dtype(Applied):
    def __init__(self, host: Host, token: Token) -> None:
        self._transformer = host.transformer
        self._asked = TORCH_NAMES[token.name]

    def _seen(self) -> str:
        return str(self._transformer.dtype).removeprefix("torch.")

    def facts(self) -> dict[str, Any]:
        return {"dtype": self._seen()}

    def problems(self) -> tuple[str, ...]:
        if self._seen() == self._asked:
            return ()
        return (f"asked for {self._asked}, but the transformer computes in {self._seen()}",)


for _name, _torch_name in TORCH_NAMES.items():
    register(Optimization(TokenSpec(_name, "dtype", f"weights and activations in {_torch_name}"), Stage.BASE, _Dtype))
