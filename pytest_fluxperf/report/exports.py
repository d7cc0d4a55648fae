"""The run for spreadsheets and for dashboards that keep long histories."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.report import exports
from pytest_fluxperf.report.ci import render_annotations, render_junit
from pytest_fluxperf.report.row import Row
from pytest_fluxperf.report.text import shorten, visible
from pytest_fluxperf.report.view import overview
from pytest_fluxperf.results import RunDocument, Similarity

Documents = RunDocument | Sequence[RunDocument]

_SCORES: tuple[str, ...] = Similarity.__struct_fields__


def render_csv(documents: Documents) -> str:
    """One line a test, worst first (RFC 4180, a heading line, seconds and MiB; empty where not known)."""
    target = io.StringIO(newline="")
    writer = None
    for row in overview(documents).rows:
        line = _line(row)
        if writer is None:
            writer = csv.DictWriter(target, line)
            writer.writeheader()
        writer.writerow(line)
    return target.getvalue()


def _line(row: Row) -> dict[str, Any]:
    result, speed = row.result, row.speed
    values: dict[str, Any] = {
        "machine": row.document.gpu,
        "hardware": row.document.hardware.name,
        "session": row.document.session,
        "time_utc": row.document.time_utc,
        "test": result.test,
        "recipe": result.recipe,
        "model": result.workload.model,
        "width": result.workload.width,
        "height": result.workload.height,
        "steps": result.workload.steps,
        "verdict": row.verdict,
        "n": row.n,
        "p50_s": row.p50_s,
        "p90_s": row.p90_s,
        "p99_s": row.p99_s,
        "baseline_p50_s": row.baseline_p50_s,
        "judged": speed.metric if speed else None,
        "change": speed.change if speed else None,
        "change_low": speed.low if speed else None,
        "change_high": speed.high if speed else None,
        "tolerance": speed.tolerance if speed else None,
        "speedup_over_reference": row.speedup,
        "computed_steps": row.computed,
        "cached_steps": row.cached,
        "peak_memory_mib": row.memory_mib,
        **{name: getattr(row.quality, name) for name in _SCORES},
        "message": result.judgement.message,
    }
    return {name: _cell(value) for name, value in values.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        text = visible(shorten(value, 4000))
        # a spreadsheet runs a text that starts like a formula
        return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
    return value


def render_bencher(documents: Documents) -> str:
    """Bencher Metric Format: per test the median latency in nanoseconds (Bencher's own unit) between its quartiles,
    peak memory in MiB, mean computed steps, and the median of every image metric.

    https://bencher.dev/docs/reference/bencher-metric-format
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, row in _named(documents):
        metrics: dict[str, dict[str, float]] = {}
        if row.latencies:
            low, middle, high = _quartiles(row.latencies)
            metrics["latency"] = {"value": 1e9 * middle, "lower_value": 1e9 * low, "upper_value": 1e9 * high}
        for measure, value in (
            ("peak-memory", row.memory_mib),
            ("computed-steps", row.computed),
            *((score.replace("_", "-"), getattr(row.quality, score)) for score in _SCORES),
        ):
            if value is not None:
                metrics[measure] = {"value": value}
        if metrics:
            found[name] = metrics
    return _json(found)


def render_github_action_benchmark(documents: Documents) -> str:
    """What github-action-benchmark reads as ``customSmallerIsBetter``: latency, memory, steps and picture error.

    https://github.com/benchmark-action/github-action-benchmark
    """
    found: list[dict[str, Any]] = []
    for name, row in _named(documents):
        extra = f"verdict: {row.verdict}\nrecipe: {visible(shorten(row.recipe, 300))}\nn: {row.n}"
        if row.latencies:
            low, middle, high = _quartiles(row.latencies)
            spread = f"± {(high - low) / 2:.3g}"
            found.append({"name": f"{name} p50", "unit": "s", "value": middle, "range": spread, "extra": extra})
        loss = None if row.quality.ssim is None else 1 - row.quality.ssim
        for title, unit, value in (
            ("peak memory", "MiB", row.memory_mib),
            ("computed steps", "steps", row.computed),
            ("1 - SSIM", "", loss),
            ("FLIP", "", row.quality.flip),
            ("LPIPS", "", row.quality.lpips),
        ):
            if value is not None:
                found.append({"name": f"{name} {title}", "unit": unit, "value": value, "extra": extra})
    return _json(found)


def render_pytest_benchmark(documents: Documents) -> str:
    """pytest-benchmark's JSON, for ``pytest-benchmark compare`` and what else reads it; tests without latency are left
    out. Its statistics (quartiles, Tukey's fences) are over all generations, whatever their prompt.
    """
    view = overview(documents)
    first = view.documents[0]
    return _json(
        {
            "machine_info": {
                "node": first.gpu,
                "machine": first.hardware.name,
                "processor": first.hardware.host_cpu,
                "system": first.environment.platform,
                "python_version": first.environment.python,
            },
            "commit_info": {},
            "benchmarks": [_benchmark(name, row) for name, row in _named(documents) if row.latencies],
            "datetime": first.time_utc,
            "version": first.plugin,
        }
    )


def _benchmark(name: str, row: Row) -> dict[str, Any]:
    path, _, test = name.partition("::")
    scores = {score: getattr(row.quality, score) for score in _SCORES}
    return {
        "group": None,
        "name": test or path,
        "fullname": name,
        "params": {"recipe": row.result.recipe} if row.result.recipe else None,
        "param": row.result.recipe,
        "extra_info": {
            "verdict": row.verdict,
            "peak_memory_mib": row.memory_mib,
            "computed_steps": row.computed,
            **{score: value for score, value in scores.items() if value is not None},
        },
        "options": {"warmup": True, "timer": "device clock"},
        "stats": _statistics(row.latencies),
    }


def _statistics(latencies: Sequence[float]) -> dict[str, Any]:
    data = sorted(latencies)
    mean = statistics.fmean(data)
    deviation = statistics.stdev(data) if len(data) > 1 else 0.0
    q1, median, q3 = _quartiles(data)
    reach = 1.5 * (q3 - q1)
    inside = [value for value in data if q1 - reach <= value <= q3 + reach]
    beyond = sum(abs(value - mean) > deviation for value in data)
    outliers = len(data) - len(inside)
    return {
        "min": data[0],
        "max": data[-1],
        "mean": mean,
        "stddev": deviation,
        "rounds": len(data),
        "iterations": 1,
        "median": median,
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": outliers,
        "stddev_outliers": beyond,
        "outliers": f"{beyond};{outliers}",
        "ld15iqr": inside[0],
        "hd15iqr": inside[-1],
        "ops": 1 / mean if mean > 1e-9 else None,
        "total": sum(data),
        "data": list(latencies),
    }


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _named(documents: Documents) -> Iterator[tuple[str, Row]]:
    """Every test under a name that is the same in every run, with its machine where there are several."""
    for row in sorted(overview(documents).rows, key=lambda row: (row.machine, row.result.test)):
        test = visible(shorten(row.result.test, 4000))
        yield (f"{row.machine}/{test}" if row.machine else test), row


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


HTML, MARKDOWN = "html", "md"


TEXTS: dict[str, Callable[[Sequence[RunDocument]], str]] = {
    "junit": render_junit,
    "csv": exports.render_csv,
    "bencher": exports.render_bencher,
    "github-action-benchmark": exports.render_github_action_benchmark,
    "pytest-benchmark": exports.render_pytest_benchmark,
    "annotations": render_annotations,
}
"""Forms that need nothing but the documents."""


FORMATS: tuple[str, ...] = (HTML, MARKDOWN, *TEXTS)


_SUFFIXES = {".html": HTML, ".md": MARKDOWN, ".xml": "junit", ".csv": "csv"}


def format_of(form: str | None, output: Path | None) -> str:
    """The form asked for by name, else by the name of the output file, else Markdown.

    Raises:
        FluxPerfError: there is no such form, or the file's name does not say which (several are JSON).
    """
    known = ", ".join(FORMATS)
    if form is not None:
        if form not in FORMATS:
            raise FluxPerfError(f"there is no format {form!r}; choose one of {known}")
        return form
    if output is None:
        return MARKDOWN
    if output.suffix not in _SUFFIXES:
        raise FluxPerfError(
            f"{output} must end in {', '.join(_SUFFIXES)}, or its format must be named by --format: {known}"
        )
    return _SUFFIXES[output.suffix]
