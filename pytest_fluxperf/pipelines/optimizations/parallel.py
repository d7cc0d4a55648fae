# ruff: noqa: ARG001, ARG005
# (callbacks take what the protocol hands them)
"""``ulysses:N``, ``ring:N``: one picture on several GPUs, by splitting the sequence of tokens.

diffusers does it (``transformer.enable_parallelism``) in N processes that torchrun starts, and cannot undo it. A
session of this plugin is one process with one device, so these tokens are written and compared, but not run.
"""

from __future__ import annotations

from pytest_fluxperf.pipelines.optimizations.base import Applied, Optimization, Stage, register
from pytest_fluxperf.recipe import Field, Recipe, Token, TokenSpec, integer


def _needs(token: Token, recipe: Recipe, device: str) -> str | None:
    return (
        f"needs {token.value} processes with a GPU each, started by torchrun; a session measures one process "
        "on one device"
    )


for _name, _summary in (
    ("ulysses", "attention heads spread over N GPUs (all-to-all)"),
    ("ring", "keys and values passed around N GPUs"),
):
    register(
        Optimization(
            TokenSpec(
                _name,
                "parallel",
                _summary,
                value=Field("N", integer(2), "number of GPUs", required=True),
                lossless=True,
            ),
            Stage.BASE,
            lambda host, token: Applied(),
            _needs,
        )
    )
