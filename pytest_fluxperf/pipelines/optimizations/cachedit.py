# ruff: noqa: D102 (overriding methods inherit their documentation)
"""cache-dit: ``fbcache:T,engine=cache-dit`` (one block decides) and ``dbcache`` with its own parameters."""

from __future__ import annotations

import logging
from typing import Any

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.pipelines.optimizations.base import Host, Optimization, Stage, needs_package, register
from pytest_fluxperf.pipelines.optimizations.isolation import Isolated
from pytest_fluxperf.pipelines.optimizations.stepcache import COMPUTED, StepCache, needs_eager_transformer
from pytest_fluxperf.recipe import Field, Recipe, Token, TokenSpec, integer, number


class CacheDitCache(StepCache):
    """cache-dit's DBCache; without options of its own (``fbcache``) it is First-Block Cache."""

    engine = "cache-dit"

    def __init__(self, host: Host, token: Token) -> None:
        super().__init__(host, token)
        self._isolated = Isolated(host.pipe)

    def apply(self) -> None:
        import cache_dit

        token = self.token
        front, back = int(token.option("front") or 1), int(token.option("back") or 0)
        if front + back >= (blocks := len(self.host.blocks())):
            raise FluxPerfError(
                f"{token}: front={front} and back={back} leave none of the {blocks} blocks to be reused"
            )
        for name in list(logging.root.manager.loggerDict):
            if name.startswith("cache_dit"):
                logging.getLogger(name).setLevel(logging.ERROR)
        self._isolated.isolate()
        order = int(token.option("taylor") or 0)
        cache_dit.enable_cache(
            self.host.pipe,
            cache_config=cache_dit.DBCacheConfig(
                Fn_compute_blocks=front,
                Bn_compute_blocks=back,
                residual_diff_threshold=float(token.value or 0.0),
                max_warmup_steps=int(token.option("warmup") or 0),
                num_inference_steps=self.host.num_steps,
            ),
            calibrator_config=cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=order) if order else None,
        )
        manager = self.host.pipe._context_manager
        ask = manager.can_cache
        manager.can_cache = lambda *args, **kwargs: not self.decide(not ask(*args, **kwargs))

    def undo(self) -> None:
        import cache_dit

        cache_dit.disable_cache(self.host.pipe)
        self._isolated.restore()

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"cache_dit_steps": self.host.num_steps}


def _needs(token: Token, recipe: Recipe, device: str) -> str | None:  # noqa: ARG001
    return needs_package("cache_dit", "cache-dit")


register(
    Optimization(
        TokenSpec(
            "dbcache",
            "cache",
            "cache-dit's DBCache: the first blocks decide, the last refine",
            value=Field("T", number(), "threshold of the residual's relative change", default=0.08),
            options=(
                Field("front", integer(1), "blocks at the front that are always computed", default=8),
                Field("back", integer(0), "blocks at the back that are always computed", default=0),
                Field("warmup", integer(0), "first steps that are always computed", default=8),
                Field("taylor", integer(0), "order of the Taylor extrapolation of residuals; 0 is none", default=0),
                COMPUTED,
            ),
            lossless=False,
            conflict=needs_eager_transformer,
        ),
        Stage.CACHE,
        CacheDitCache,
        _needs,
        per_steps=True,
    )
)
