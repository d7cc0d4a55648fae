"""Measurements that answered a question once, as tables: the figures are kept, the programs that took them are not.

How long compiling takes, what one loaded base saves, and what inductor's options bring.
"""

from __future__ import annotations

import statistics
from typing import Any


def compile_times(result: dict[str, Any]) -> str:
    """Seconds to compile, with an empty cache of compiled kernels and in a fresh process that finds it filled."""
    first = result["cold"]
    lines = [f"{first['model']} on {first['device']}, torch {first['torch']}; seconds to compile"]
    for cold, warm in zip(first["rows"], result["warm"]["rows"], strict=True):
        lines.append(
            f"{cold['recipe']:<36} cold {cold['compile_s']:6.1f} s, warm {warm['compile_s']:6.1f} s "
            f"({cold['graphs']} graphs, {cold['graph_breaks']} breaks; cache hits {warm['cache_hits']} of "
            f"{warm['cache_hits'] + warm['cache_misses']} when warm)"
        )
    return "\n".join(lines)


def one_base(result: dict[str, Any]) -> str:
    """One loaded base for all recipes against a pipeline built anew for each, and how long switching takes."""
    shared, anew = result["shared"], result["anew"]
    lines = [f"{shared['model']} on {shared['device']}, {shared['steps']} steps; seconds to prepare + first picture"]
    for one, new in zip(shared["rows"], anew["rows"], strict=True):
        lines.append(
            f"  {one['recipe']:<36} one base {one['prepare_s']:7.3f} + {one['first_picture_s']:7.3f}   "
            f"anew {new['prepare_s']:7.3f} + {new['first_picture_s']:7.3f}"
        )
    lines.append(
        f"all: one base {shared['total_s']:.1f} s, anew {anew['total_s']:.1f} s: {result['ratio']:.2f} times\n"
        f"preparing alone: {_preparing(shared):.2f} s, {_preparing(anew):.2f} s: {result['preparing_ratio']:.1f} times"
    )
    for kind, seconds in result["switches_s"].items():
        if seconds:
            lines.append(f"switching, {kind}: median {statistics.median(seconds):.3f} s, most {max(seconds):.3f} s")
    return "\n".join(lines)


def _preparing(way: dict[str, Any]) -> float:
    return float(sum(row["prepare_s"] for row in way["rows"]))


def inductor_options(result: dict[str, Any]) -> str:
    """What sets of inductor's options do to one recipe's compiled blocks, with each set's longest fused kernels."""
    where = f"{result['device']}, torch {result['torch']}, {result['size']} pixels, {result['steps']} steps"
    return "\n".join([f"{result['model']} {result['recipe']}: {where}", *map(_options, result["rows"])])


def _options(row: dict[str, Any]) -> str:
    latencies = row["latencies_s"]
    figures = (
        f"{row['set']:<10} p50 {statistics.median(latencies):.3f} s (least {min(latencies):.3f}, n={len(latencies)}), "
        f"compile {row['compile_s']:.1f} s, fused kernels {1e3 * row['fused_s']:.0f} of {1e3 * row['busy_s']:.0f} ms, "
        f"difference {row['difference']:.1e}"
    )
    return "\n".join([figures, *(f"    {k['ms']:7.1f} ms {k['calls']:6d}  {k['family']}" for k in row["longest"][:3])])
