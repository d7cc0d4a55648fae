"""The cost of a generation, split: text encoding, a computed step, a cached step, decoding.

From the recorded steps of a *dense* recipe (no step cache) and of one schedule of a cache on top of it follow the
latency and the speed-up of that cache at any hit rate::

    latency = overhead + text encoding + computed · computed step + cached · cached step + decoding

where ``overhead`` is what is left of the dense recipe's latency. Other recorded schedules of the same cache check the
prediction. Parts are medians over the steps or generations of all sessions, in seconds.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from pytest_fluxperf.recipe import Recipe, parse
from pytest_fluxperf.results import Generation, Record, Result

HIT_RATES = (0.25, 0.5, 20 / 28)
"""Shares of cached steps for which speed-ups are told; 20 of 28 is 8 computed steps."""

TOLERANCE = 0.02
"""Largest relative error of a prediction that the model may have."""


class DenseCost(Record, frozen=True, kw_only=True):
    """Parts of a recipe without a step cache; ``n`` generations in ``sessions`` sessions."""

    recipe: str
    latency_s: float
    text_encode_s: float
    computed_step_s: float
    decode_s: float
    overhead_s: float
    """Latency less all other parts: preparing latents, the first step's extra, launching."""
    steps: int
    n: int
    sessions: int


class Check(Record, frozen=True, kw_only=True):
    """A schedule that was predicted and measured; ``error`` is predicted over measured, less 1."""

    recipe: str
    computed: float
    predicted_s: float
    measured_s: float
    n: int

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return self.predicted_s / self.measured_s - 1


class CacheCost(Record, frozen=True, kw_only=True):
    """A step cache on a dense recipe: the cost of its cached steps, from one schedule, checked against the others."""

    dense: DenseCost
    cache: str
    """Token and engine: what makes caches with different thresholds the same."""
    cached_step_s: float
    calibrated_on: str
    """The recipe with the most cached steps, from which ``cached_step_s`` was taken."""
    checks: tuple[Check, ...]

    def latency_s(self, computed: float) -> float:
        """Predicted latency with that many computed steps (a mean over prompts need not be whole)."""
        dense = self.dense
        fixed = dense.overhead_s + dense.text_encode_s + dense.decode_s
        return fixed + computed * dense.computed_step_s + (dense.steps - computed) * self.cached_step_s

    def speedup(self, hit_rate: float) -> float:
        """Predicted speed-up over the dense recipe when that share of the steps is answered from the cache."""
        return self.dense.latency_s / self.latency_s(self.dense.steps * (1 - hit_rate))


def cost_model(sessions: Sequence[Iterable[Result]]) -> tuple[tuple[DenseCost, ...], tuple[CacheCost, ...]]:
    """Costs of every dense recipe, and of every cache on one, among the results of several sessions.

    Results of one machine and workload belong together: the caller sees to that. Tests without recorded phases and
    steps are left out, and so are caches that work inside of blocks (their cached steps are not one price).
    """
    seen: dict[str, tuple[list[Generation], int]] = {}
    for results in sessions:
        here: dict[str, list[Generation]] = {}
        for result in results:
            if result.recipe and not result.measurement.problems:
                recipe = str(result.measurement.facts.get("recipe", result.recipe))
                here.setdefault(recipe, []).extend(filter(_complete, result.measurement.generations))
        for name, made in here.items():
            if made:
                before, count = seen.get(name, ([], 0))
                seen[name] = (before + made, count + 1)
    dense = {
        text: _dense(text, made, count)
        for text, (made, count) in seen.items()
        if parse(text).token("cache") is None and all("0" not in (g.decisions or "") for g in made)
    }
    groups: dict[tuple[str, str], list[str]] = {}
    for text in seen:
        parsed = parse(text)
        token = parsed.token("cache")
        base = _without_cache(parsed)
        if token is not None and base in dense and not _inside_blocks(token.name):
            engine = token.option("engine")
            groups.setdefault((base, token.name + (f" ({engine})" if engine else "")), []).append(text)
    costs = []
    for (base, cache), recipes in groups.items():
        by_hits = sorted(recipes, key=lambda text: statistics.mean(_computed(seen[text][0])))
        most = by_hits[0]
        cached = [s for g in seen[most][0] for s, d in _decided(g) if d == "0"]
        if not cached:
            continue
        cost = CacheCost(
            dense=dense[base],
            cache=cache,
            cached_step_s=statistics.median(cached),
            calibrated_on=most,
            checks=(),
        )
        checks = []
        for text in by_hits[1:]:
            made = seen[text][0]
            computed = statistics.mean(_computed(made))
            measured = statistics.median(g.latency_s for g in made)
            checks.append(
                Check(
                    recipe=text,
                    computed=computed,
                    predicted_s=cost.latency_s(computed),
                    measured_s=measured,
                    n=len(made),
                )
            )
        costs.append(msgspec.structs.replace(cost, checks=tuple(checks)))
    return tuple(dense.values()), tuple(costs)


def lines(dense: Sequence[DenseCost], caches: Sequence[CacheCost]) -> list[str]:
    """The model as text, n beside every figure."""
    found = []
    for cost in dense:
        found.append(
            f"{cost.recipe}: {cost.latency_s:.3f} s = text {cost.text_encode_s * 1e3:.1f} ms + {cost.steps} steps of "
            f"{cost.computed_step_s * 1e3:.2f} ms + decode {cost.decode_s * 1e3:.1f} ms + rest "
            f"{cost.overhead_s * 1e3:.1f} ms (n={cost.n} in {cost.sessions} sessions)"
        )
    for cache in caches:
        found.append(
            f"{cache.dense.recipe} with {cache.cache}: a cached step {cache.cached_step_s * 1e3:.2f} ms (from "
            f"{cache.calibrated_on}); speed-up "
            + ", ".join(f"{cache.speedup(h):.2f}× at {h:.0%} hits" for h in HIT_RATES)
        )
        found += [
            f"  {check.recipe}: {check.computed:g} computed, predicted {check.predicted_s:.3f} s, measured "
            f"{check.measured_s:.3f} s ({check.error:+.1%}, n={check.n})"
            for check in cache.checks
        ]
    return found


def described(cache: CacheCost) -> dict[str, Any]:
    """A cache's cost with the derived figures, JSON-able."""
    return {
        **msgspec.to_builtins(cache),
        "checks": [{**msgspec.to_builtins(check), "error": check.error} for check in cache.checks],
        "speedup_at_hit_rate": {f"{rate:.4f}": cache.speedup(rate) for rate in HIT_RATES},
    }


def _dense(text: str, made: Sequence[Generation], sessions: int) -> DenseCost:
    latency = statistics.median(g.latency_s for g in made)
    encode = statistics.median(g.text_encode_s or 0.0 for g in made)
    decode = statistics.median(g.decode_s or 0.0 for g in made)
    step = statistics.median(s for g in made for s in g.steps_s)
    steps = len(made[0].steps_s)
    return DenseCost(
        recipe=text,
        latency_s=latency,
        text_encode_s=encode,
        computed_step_s=step,
        decode_s=decode,
        overhead_s=latency - encode - decode - steps * step,
        steps=steps,
        n=len(made),
        sessions=sessions,
    )


def _complete(generation: Generation) -> bool:
    return bool(
        generation.steps_s
        and generation.text_encode_s is not None
        and generation.decode_s is not None
        and len(generation.decisions or "") == len(generation.steps_s)
    )


def _decided(generation: Generation) -> Iterable[tuple[float, str]]:
    return zip(generation.steps_s, generation.decisions or "", strict=True)


def _computed(made: Sequence[Generation]) -> list[int]:
    return [g.computed_steps or 0 for g in made]


def _without_cache(recipe: Recipe) -> str:
    return str(Recipe(tuple(token for token in recipe.tokens if token.family != "cache")))


def _inside_blocks(cache: str) -> bool:
    return cache in ("pab", "fastercache", "taylorseer")
