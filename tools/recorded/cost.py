"""The cost of a generation, split: text encoding, each computed step, each cached step, decoding, the rest.

From the recorded steps of a *dense* recipe (no step cache) and of schedules of a cache on top of it follow the latency
and the speed-up of that cache at any hit rate::

    latency = text encoding + decoding + rest + sum of the steps' prices

Three effects that recordings show are in the prices:

- Text encoding, decoding and the rest do not depend on what is done to the transformer, so they are pooled over all
  recipes of a dtype.
- A computed step costs what a step of the dense recipe costs that begins as long after the denoising began: a device
  at its power limit is slower than one that has just begun.
- A cached step is cheaper right after a computed one, while the device still works and the host runs ahead, than after
  another cached one, when the device waits for the host.

Every schedule is predicted from all the *other* recipes and compared with what was measured (leave-one-out).
"""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
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
    measured_s: float
    """Median latency."""
    text_encode_s: float
    decode_s: float
    rest_s: float
    """Preparing latents and schedule, post-processing, launching."""
    steps_s: tuple[float, ...]
    """Each denoising step in turn, median over the generations."""
    n: int
    sessions: int

    @property
    def fixed_s(self) -> float:
        """What does not depend on the steps."""
        return self.text_encode_s + self.decode_s + self.rest_s

    @property
    def latency_s(self) -> float:
        """The sum of the parts."""
        return self.fixed_s + sum(self.steps_s)

    @property
    def computed_step_s(self) -> float:
        """Mean of the steps."""
        return statistics.fmean(self.steps_s)


class Check(Record, frozen=True, kw_only=True):
    """A schedule that was measured, and predicted from the other recipes."""

    recipe: str
    computed: float
    """Mean number of computed steps."""
    predicted_s: float
    measured_s: float
    spread: float
    """Largest less smallest of the measured latencies, as a fraction of their median."""
    text_encode_s: float
    """As measured with this schedule, which does not touch it: far from the dense recipe's, the host was disturbed."""
    n: int

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted_s / self.measured_s - 1


class CacheCost(Record, frozen=True, kw_only=True):
    """A step cache on a dense recipe: what its cached steps cost, and how well it predicts its schedules."""

    dense: DenseCost
    cache: str
    """Token and engine: what makes caches with different thresholds the same."""
    first_cached_step_s: float
    """A cached step after a computed one."""
    further_cached_step_s: float
    """A cached step after a cached one (after a computed one, where no schedule has two cached steps in a row)."""
    n: int
    checks: tuple[Check, ...] = ()

    def latency_of(self, decisions: str) -> float:
        """Predicted latency in seconds of a generation with these decisions (``1`` computed, ``0`` cached)."""
        begins = list(itertools.accumulate(self.dense.steps_s, initial=0.0))
        elapsed, before = 0.0, "0"
        for decision in decisions:
            if decision == "1":
                position = bisect.bisect_right(begins, elapsed) - 1
                elapsed += self.dense.steps_s[min(position, len(self.dense.steps_s) - 1)]
            else:
                elapsed += self.first_cached_step_s if before == "1" else self.further_cached_step_s
            before = decision
        return self.dense.fixed_s + elapsed

    def speedup(self, hit_rate: float) -> float:
        """Predicted speed-up over the dense recipe when that share of the steps, evenly spread, is cached.

        Between two whole numbers of computed steps latency is interpolated.
        """
        steps = len(self.dense.steps_s)
        computed = steps * (1 - hit_rate)
        low = min(math.floor(computed + 1e-9), steps)
        high = min(low + 1, steps)
        few, many = (self.latency_of(evenly_spread(count, steps)) for count in (low, high))
        return self.dense.latency_s / (few + (computed - low) * (many - few))


class _Timing(Record, frozen=True, kw_only=True):
    """A recipe's generations of all sessions."""

    recipe: Recipe
    generations: tuple[Generation, ...]
    sessions: int

    @property
    def dense(self) -> bool:
        return self.recipe.token("cache") is None and all("0" not in (g.decisions or "") for g in self.generations)

    @property
    def untouched(self) -> tuple[Any, ...]:
        """What text encoding and decoding depend on."""
        return self.recipe.dtype, *sorted(str(token) for token in self.recipe.tokens if token.family == "switch")

    @property
    def family(self) -> tuple[str, str] | None:
        """Dense recipe and cache, None without a cache or where cached steps are not one price."""
        token = self.recipe.token("cache")
        if token is None or token.name in _INSIDE_BLOCKS:
            return None
        engine = token.option("engine")
        base = Recipe(tuple(other for other in self.recipe.tokens if other is not token))
        return str(base), token.name + (f" ({engine})" if engine else "")


_INSIDE_BLOCKS = ("pab", "fastercache", "taylorseer")


def evenly_spread(computed: int, steps: int) -> str:
    """Decisions of a schedule that computes so many of the steps, as ``computed=`` spreads them; the first always."""
    return "".join("01"[i * computed // steps != (i - 1) * computed // steps] for i in range(steps))


def cost_model(sessions: Sequence[Iterable[Result]]) -> tuple[tuple[DenseCost, ...], tuple[CacheCost, ...]]:
    """Costs of every dense recipe, and of every cache on one, among the results of several sessions.

    Results of one machine and workload belong together: the caller sees to that. Tests without recorded phases and
    steps are left out, and so are caches that work inside of blocks.
    """
    measured = _gather(sessions)
    dense, caches = _fit(measured)
    checked = []
    for key, cost in caches.items():
        checks = []
        for text, held_out in measured.items():
            if held_out.family == key:
                _, without = _fit({other: value for other, value in measured.items() if other != text})
                if key in without:
                    checks.append(_check(text, held_out.generations, without[key]))
        checks.sort(key=lambda check: check.computed)
        checked.append(msgspec.structs.replace(cost, checks=tuple(checks)))
    return tuple(dense.values()), tuple(checked)


def describe(cache: CacheCost) -> dict[str, Any]:
    """A cache's cost with the derived figures, JSON-able."""
    return {
        **msgspec.to_builtins(cache),
        "checks": [{**msgspec.to_builtins(check), "error": check.error} for check in cache.checks],
        "speedup_at_hit_rate": {f"{rate:.4f}": cache.speedup(rate) for rate in HIT_RATES},
    }


def _gather(sessions: Sequence[Iterable[Result]]) -> dict[str, _Timing]:
    """Recipe (what a whole recipe stands for) → its complete generations."""
    found: dict[str, _Timing] = {}
    for results in sessions:
        here: dict[str, list[Generation]] = {}
        for result in results:
            if result.ran and not result.measurement.problems:
                here.setdefault(result.ran, []).extend(filter(_complete, result.measurement.generations))
        for text, generations in here.items():
            if generations:
                before = found.get(text)
                found[text] = _Timing(
                    recipe=parse(text),
                    generations=(before.generations if before else ()) + tuple(generations),
                    sessions=(before.sessions if before else 0) + 1,
                )
    return found


def _fit(measured: Mapping[str, _Timing]) -> tuple[dict[str, DenseCost], dict[tuple[str, str], CacheCost]]:
    pooled: dict[tuple[Any, ...], list[Generation]] = {}
    families: dict[tuple[str, str], list[Generation]] = {}
    for one in measured.values():
        pooled.setdefault(one.untouched, []).extend(one.generations)
        if one.family:
            families.setdefault(one.family, []).extend(one.generations)
    dense = {text: _dense(text, one, pooled[one.untouched]) for text, one in measured.items() if one.dense}
    caches = {}
    for (base, cache), generations in families.items():
        first, further = _cached_step(generations, "10"), _cached_step(generations, "00")
        if base in dense and first is not None:
            caches[base, cache] = CacheCost(
                dense=dense[base],
                cache=cache,
                first_cached_step_s=first,
                further_cached_step_s=first if further is None else further,
                n=len(generations),
            )
    return dense, caches


def _dense(text: str, one: _Timing, pooled: Sequence[Generation]) -> DenseCost:
    return DenseCost(
        recipe=text,
        measured_s=statistics.median(g.latency_s for g in one.generations),
        text_encode_s=statistics.median(g.text_encode_s or 0.0 for g in pooled),
        decode_s=statistics.median(g.decode_s or 0.0 for g in pooled),
        rest_s=statistics.median(_rest(g) for g in pooled),
        steps_s=tuple(statistics.median(step) for step in zip(*(g.steps_s for g in one.generations), strict=True)),
        n=len(one.generations),
        sessions=one.sessions,
    )


def _rest(one: Generation) -> float:
    return one.latency_s - (one.text_encode_s or 0.0) - sum(one.steps_s) - (one.decode_s or 0.0)


def _cached_step(generations: Iterable[Generation], pair: str) -> float | None:
    """Seconds of the second of two steps so decided: mean in a generation, median over them; None where none is."""
    means = []
    for one in generations:
        decided = itertools.pairwise(one.decisions or "")
        steps = [s for s, two in zip(one.steps_s[1:], decided, strict=True) if "".join(two) == pair]
        if steps:
            means.append(statistics.fmean(steps))
    return statistics.median(means) if means else None


def _check(text: str, generations: Sequence[Generation], cost: CacheCost) -> Check:
    latencies = [g.latency_s for g in generations]
    measured = statistics.median(latencies)
    return Check(
        recipe=text,
        computed=statistics.fmean(g.computed_steps or 0 for g in generations),
        predicted_s=statistics.median(cost.latency_of(g.decisions or "") for g in generations),
        measured_s=measured,
        spread=(max(latencies) - min(latencies)) / measured,
        text_encode_s=statistics.median(g.text_encode_s or 0.0 for g in generations),
        n=len(generations),
    )


def _complete(generation: Generation) -> bool:
    return bool(
        generation.steps_s
        and generation.text_encode_s is not None
        and generation.decode_s is not None
        and len(generation.decisions or "") == len(generation.steps_s)
    )
