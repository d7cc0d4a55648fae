"""The cost model as Markdown, n beside every figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tools.recorded.cost import HIT_RATES, TOLERANCE, CacheCost, DenseCost


def cost_tables(dense: Sequence[DenseCost], caches: Sequence[CacheCost]) -> str:
    """Tables of the dense recipes, of the caches on them, and of the schedules that check the model."""
    return "\n".join(_lines(dense, caches)) + "\n"


def _lines(dense: Sequence[DenseCost], caches: Sequence[CacheCost]) -> Iterable[str]:
    yield "| dense recipe | p50 s | model s | text ms | computed step ms | decoding ms | rest ms | n (sessions) |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for one in sorted(dense, key=lambda one: -one.measured_s):
        yield (
            f"| `{one.recipe}` | {one.measured_s:.3f} | {one.latency_s:.3f} | {_ms(one.text_encode_s)} | "
            f"{_ms(one.computed_step_s)} | {_ms(one.decode_s)} | {_ms(one.rest_s)} | {one.n} ({one.sessions}) |"
        )
    if not caches:
        return
    rates = " | ".join(f"at {rate:.0%} hits" for rate in HIT_RATES)
    yield ""
    yield f"| dense recipe | step cache | cached step after a computed one ms | after a cached one ms | {rates} | n |"
    yield "|---|---|---:|---:|" + "---:|" * len(HIT_RATES) + "---:|"
    for cache in sorted(caches, key=lambda cache: (-cache.dense.measured_s, cache.cache)):
        speedups = " | ".join(f"{cache.speedup(rate):.2f}×" for rate in HIT_RATES)
        yield (
            f"| `{cache.dense.recipe}` | {cache.cache} | {_ms(cache.first_cached_step_s)} | "
            f"{_ms(cache.further_cached_step_s)} | {speedups} | {cache.n} |"
        )
    checks = [check for cache in caches for check in cache.checks]
    if not checks:
        return
    yield ""
    yield "| schedule | computed steps | predicted s | measured s | error | spread of the measured | text ms | n |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for check in sorted(checks, key=lambda check: abs(check.error)):
        yield (
            f"| `{check.recipe}` | {check.computed:g} | {check.predicted_s:.3f} | {check.measured_s:.3f} | "
            f"{check.error:+.1%} | {check.spread:.1%} | {_ms(check.text_encode_s)} | {check.n} |"
        )
    good = sum(abs(check.error) <= TOLERANCE for check in checks)
    yield ""
    yield (
        f"{good} of {len(checks)} schedules are predicted within {TOLERANCE:.0%}, each from the other recipes alone. "
        "Spread: largest less smallest of the latencies measured, as a share of their median; a prediction cannot be "
        "better than that. Text: its encoding as measured there; no schedule touches it, so where it is far from the "
        "dense recipe's, the host was slower than elsewhere."
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"
