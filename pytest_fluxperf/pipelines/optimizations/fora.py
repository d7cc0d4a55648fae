"""``fora:start=S,interval=N``: FORA (Selvaraju et al., arXiv 2407.01425) on the whole stack of blocks.

Steps before ``start`` and every ``interval``-th from there are computed; the others reuse the last block's output
as it was. Pruna ships the same rule as ``flux_caching``.
"""

# ruff: noqa: ARG002, D102
# (overriding methods inherit their documentation, and callbacks take what the protocol hands them)
from __future__ import annotations

from typing import Any

from pytest_fluxperf.pipelines.optimizations.base import Host, Optimization, Stage, register
from pytest_fluxperf.pipelines.optimizations.stepcache import CacheState, HookedCache, needs_eager_transformer
from pytest_fluxperf.recipe import Field, Token, TokenSpec, integer


class Fora(HookedCache):
    """FORA on one pipeline."""

    def __init__(self, host: Host, token: Token) -> None:
        self.start = int(token.option("start") or 0)
        self.interval = int(token.option("interval") or 1)
        super().__init__(host, token)

    def should_compute(self, state: CacheState, block: Any, hidden: Any, temb: Any) -> bool:
        index = state.index % self.host.num_steps
        return index < self.start or (index - self.start) % self.interval == 0

    def keep(self, entry: Any, output: Any) -> Any:
        return output

    def answer(self, entry: Any, stored: Any) -> Any:
        return stored


register(
    Optimization(
        TokenSpec(
            "fora",
            "cache",
            "FORA: compute every N-th step, reuse the last block's output between",
            options=(
                Field("start", integer(0), "steps at the beginning that are always computed", default=2),
                Field("interval", integer(1), "distance of computed steps from there on", default=2),
            ),
            lossless=False,
            conflict=needs_eager_transformer,
        ),
        Stage.CACHE,
        Fora,
        per_steps=True,
    )
)
