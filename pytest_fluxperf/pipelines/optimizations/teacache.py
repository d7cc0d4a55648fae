"""``teacache:T``: TeaCache (Liu et al., arXiv 2411.19108) for FLUX, as diffusers hooks.

The signal of a step is the first block's modulated input. Its relative L1 change from the step before, mapped by a
polynomial fitted to the model, estimates how much the blocks' output changes. The estimates add up over reused
steps; a step is computed, and the sum starts anew, when it reaches ``T``. The first and the last step are always
computed. A reused step adds the residual of all blocks from the last computed step.
"""

# ruff: noqa: D102
# (overriding methods inherit their documentation, and callbacks take what the protocol hands them)
from __future__ import annotations

from typing import Any

from pytest_fluxperf.pipelines.models import FLUX_DEV_TEACACHE_COEFFICIENTS
from pytest_fluxperf.pipelines.optimizations.base import Host, Optimization, Stage, register
from pytest_fluxperf.pipelines.optimizations.stepcache import COMPUTED, CacheState, HookedCache, needs_eager_transformer
from pytest_fluxperf.recipe import Field, Token, TokenSpec, number


def polynomial(coefficients: tuple[float, ...], x: float) -> float:
    """Value at ``x`` of a polynomial, highest power first (Horner's rule)."""
    value = 0.0
    for coefficient in coefficients:
        value = value * x + coefficient
    return value


def signal(block: Any, hidden: Any, temb: Any) -> Any:
    """The first block's modulated input, shaped as ``hidden`` (batch, tokens, width)."""
    return block.norm1(hidden, emb=temb)[0]


def relative_l1(now: Any, before: Any) -> float:
    """Mean absolute change over the mean magnitude before."""
    return float(((now - before).abs().mean() / before.abs().mean()).cpu().item())


class TeaCache(HookedCache):
    """TeaCache on one pipeline."""

    def __init__(self, host: Host, token: Token) -> None:
        self.threshold = float(token.value or 0.0)
        fitted = host.info.teacache_coefficients
        self.coefficients = FLUX_DEV_TEACACHE_COEFFICIENTS if fitted is None else fitted
        self.fitted = fitted is not None
        super().__init__(host, token)

    def should_compute(self, state: CacheState, block: Any, hidden: Any, temb: Any) -> bool:
        before, state.signal = state.signal, signal(block, hidden, temb)
        if state.index % self.host.num_steps in (0, self.host.num_steps - 1):
            state.change = 0.0
            return True
        state.change += polynomial(self.coefficients, relative_l1(state.signal, before))
        if state.change < self.threshold:
            return False
        state.change = 0.0
        return True

    def keep(self, entry: Any, output: Any) -> Any:
        return output - entry

    def answer(self, entry: Any, stored: Any) -> Any:
        return entry + stored

    def facts(self) -> dict[str, Any]:
        return super().facts() | {
            "teacache_coefficients": list(self.coefficients),
            "teacache_fitted_for_model": self.fitted,
        }


register(
    Optimization(
        TokenSpec(
            "teacache",
            "cache",
            "TeaCache: reuse while the estimated change of the output stays under T",
            value=Field("T", number(), "threshold of the accumulated relative change", required=True),
            options=(COMPUTED,),
            lossless=False,
            conflict=needs_eager_transformer,
        ),
        Stage.CACHE,
        TeaCache,
        per_steps=True,
    )
)
