"""What torch.compile did: a snapshot of its counters, and the difference of two.

Take one :func:`snapshot` before a region and one after; ``after - before`` says what was compiled in between.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class CompileCounts:
    """Counts since the process began, or of a region after a subtraction."""

    graphs: int = 0
    """Graphs compiled, for the first time or again; none may be in a measured region."""
    graph_breaks: int = 0
    cache_hits: int = 0
    """Graphs whose kernels came from inductor's cache on disk."""
    cache_misses: int = 0
    recompiled: dict[int, str] = field(default_factory=dict)
    """Why frames were compiled again, by start time in µs (torch remembers the last 64 compilations)."""

    limits: Counter[str] = field(default_factory=Counter)
    """How often dynamo gave up on a function, by the limit that it met: ``recompile_limit (8)``."""

    @property
    def gave_up(self) -> tuple[str, ...]:
        """What to call that: such a function runs what it compiled before, or eager."""
        return tuple(f"torch.compile gave up: dynamo's {limit} was met, so code runs eager" for limit in self.limits)

    @property
    def recompiles(self) -> int:
        """How often a frame was compiled again."""
        return len(self.recompiled)

    @property
    def recompile_reasons(self) -> tuple[str, ...]:
        """Why, oldest first."""
        return tuple(reason for _, reason in sorted(self.recompiled.items()))

    def __sub__(self, earlier: CompileCounts) -> CompileCounts:
        return CompileCounts(
            graphs=self.graphs - earlier.graphs,
            graph_breaks=self.graph_breaks - earlier.graph_breaks,
            cache_hits=self.cache_hits - earlier.cache_hits,
            cache_misses=self.cache_misses - earlier.cache_misses,
            recompiled={k: v for k, v in self.recompiled.items() if k not in earlier.recompiled},
            limits=self.limits - earlier.limits,
        )


def snapshot() -> CompileCounts:
    """Read the counters; all zero, and nothing imported, while dynamo has not been loaded."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    if dynamo is None:
        return CompileCounts()
    counters = dynamo.counters
    return CompileCounts(
        graphs=counters["stats"]["unique_graphs"],
        graph_breaks=sum(counters["graph_break"].values()),
        cache_hits=counters["inductor"]["fxgraph_cache_hit"],
        cache_misses=counters["inductor"]["fxgraph_cache_miss"],
        recompiled={
            metrics.start_time_us: metrics.recompile_reason
            for metrics in dynamo.get_compilation_metrics()
            if metrics.recompile_reason and metrics.start_time_us
        },
        limits=_limits(counters["unimplemented"]),
    )


def reached_limit(error: BaseException | None) -> str | None:
    """The limit for which dynamo raised ``error`` (it does with ``fullgraph``), or None."""
    while error is not None:
        if limit := _limit(str(error)):
            return limit
        error = error.__cause__
    return None


_LIMIT = re.compile(r"exceeding the (\w+) cache size limit \(currently set to (\d+)\)")


def _limits(unimplemented: Mapping[str, int]) -> Counter[str]:
    found: Counter[str] = Counter()
    for reason, times in unimplemented.items():
        if limit := _limit(reason):
            found[limit] += times
    return found


def _limit(reason: str) -> str | None:
    if found := _LIMIT.search(reason):
        return f"{found[1]} ({found[2]})"
    if "recompile limit exceeded" in reason or "cache_size_limit" in reason:
        return "limit of recompilations"
    return None
