"""``fbcache:T``: First-Block Cache, from diffusers, or from para-attn or cache-dit with ``engine=``.

When the first block's residual differs from that of the last computed step by less than ``T`` (relative mean
absolute difference), the residual of the other blocks is reused.
"""

# ruff: noqa: ARG001, D102
# (overriding methods inherit their documentation, and callbacks take what the protocol hands them)
from __future__ import annotations

from typing import Any

from pytest_fluxperf.pipelines.optimizations.base import (
    Applied,
    Forwards,
    Host,
    Optimization,
    Stage,
    needs_package,
    register,
)
from pytest_fluxperf.pipelines.optimizations.stepcache import COMPUTED, StepCache, needs_eager_transformer
from pytest_fluxperf.recipe import Field, Recipe, Token, TokenSpec, choice, number


class DiffusersFirstBlockCache(StepCache):
    """diffusers' own first-block cache."""

    def __init__(self, host: Host, token: Token) -> None:
        super().__init__(host, token)
        self._forwards = Forwards(host.blocks())
        self._steps: dict[str, int] = {}

    def apply(self) -> None:
        from diffusers import FirstBlockCacheConfig
        from diffusers.hooks.first_block_cache import _FBC_LEADER_BLOCK_HOOK

        self.host.transformer.enable_cache(FirstBlockCacheConfig(threshold=float(self.token.value or 0.0)))
        hook = self.host.blocks()[0]._diffusers_hook.get_hook(_FBC_LEADER_BLOCK_HOOK)
        decide = hook._should_compute_remaining_blocks

        def should_compute(residual: Any) -> bool:
            context = hook.state_manager.context.name
            index = self._steps[context] = self._steps.get(context, -1) + 1
            return self.decide(bool(decide(residual)), index)

        hook._should_compute_remaining_blocks = should_compute

    def begin(self) -> None:
        super().begin()
        self._steps.clear()
        self.host.transformer._reset_stateful_cache()

    def undo(self) -> None:
        if self.host.transformer.is_cache_enabled:
            self.host.transformer.disable_cache()
        self._forwards.restore()


def _apply(host: Host, token: Token) -> Applied:
    engine = token.option("engine")
    if engine == "para-attn":
        from pytest_fluxperf.pipelines.optimizations.paraattn import ParaAttentionCache

        return ParaAttentionCache(host, token)
    if engine == "cache-dit":
        from pytest_fluxperf.pipelines.optimizations.cachedit import CacheDitCache

        return CacheDitCache(host, token)
    return DiffusersFirstBlockCache(host, token)


def _needs(token: Token, recipe: Recipe, device: str) -> str | None:
    package = str(token.option("engine"))
    return None if package == "diffusers" else needs_package(package.replace("-", "_"), package)


register(
    Optimization(
        TokenSpec(
            "fbcache",
            "cache",
            "First-Block Cache: reuse while the first block's residual changes by less than T",
            value=Field("T", number(), "threshold of the residual's relative change", required=True),
            options=(
                Field("engine", choice("diffusers", "para-attn", "cache-dit"), "who implements it", "diffusers"),
                COMPUTED,
            ),
            lossless=False,
            conflict=needs_eager_transformer,
        ),
        Stage.CACHE,
        _apply,
        _needs,
        per_steps=True,
    )
)
