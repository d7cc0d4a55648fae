"""Judged quality of pictures: against the reference recipe, and the reference's drift against stored pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pytest_fluxperf.gate.policy import PSNR_CEILING_DB, Policy
from pytest_fluxperf.gate.statistics import Array, Decision, noise_tolerance
from pytest_fluxperf.results import (
    Baseline,
    Finding,
    OwnMetric,
    PictureScores,
    Quality,
    Run,
    Similarity,
)

DRIFT = "drift"
"""Metric of the reference recipe's pictures (a body without our pipeline: its own) against the stored ones."""

_METRICS = (
    # Name, field of Similarity, unit, format, +1 where more is better.
    ("SSIM", "ssim", "", ".4f", 1),
    ("PSNR", "psnr_db", "dB", ".2f", 1),
    ("MS-SSIM", "ms_ssim", "", ".4f", 1),
    ("FLIP", "flip", "", ".4f", -1),
    ("LPIPS", "lpips", "", ".4f", -1),
)


def quality_changes(quality: Quality | None, baseline: Baseline, policy: Policy) -> Iterator[Finding]:
    """Each metric's median over prompts against the baseline's own.

    A metric that varies between the stored sessions by more than its tolerance allows for is given its own noise.
    """
    tolerances = {
        "ssim": policy.max_ssim_loss,
        "psnr_db": policy.max_psnr_loss_db,
        "ms_ssim": policy.max_ms_ssim_loss,
        "flip": policy.max_flip_rise,
        "lpips": policy.max_lpips_rise,
    }
    for metric, field, unit, form, sign in _METRICS:
        stored = _baseline_scores(baseline.runs, field)
        if stored is None:
            continue
        now = _scores(quality, field)
        before = float(np.median(stored))
        if now is None:
            message = f"{metric} was not measured for every prompt, the baseline has {before:{form}}"
            yield Finding(metric=metric, verdict="inconclusive", unit=unit, baseline=before, message=message)
            continue
        after = float(np.median(now))
        # Above the ceiling pictures differ by less than one 8-bit level: 60 dB is as good as 90.
        ceiling = PSNR_CEILING_DB if field == "psnr_db" else math.inf
        columns = ((run.session, _column([s.score for s in run.samples], field)) for run in baseline.runs)
        sessions = _session_medians(columns)
        tolerance = noise_tolerance(tolerances[field] * policy.quality_tolerance, np.minimum(sessions, ceiling))
        loss = sign * (min(before, ceiling) - min(after, ceiling))
        verdict: Decision = "regressed" if loss > tolerance else "improved" if loss < -tolerance else "passed"
        yield Finding(
            metric=metric,
            verdict=verdict,
            unit=unit,
            baseline=before,
            now=after,
            change=after - before,
            tolerance=tolerance,
            n=int(now.size),
            message=f"{metric} {before:{form}} → {after:{form}}{' ' + unit if unit else ''} "
            f"(median of {now.size}: {after - before:+{form}}, tolerance {tolerance:.3g})",
        )


def prompt_collapse(quality: Quality | None, baseline: Baseline, policy: Policy) -> Iterator[Finding]:
    """The SSIM of a single prompt that fell further than any may, whatever the median says."""
    stored, now = _baseline_scores(baseline.runs, "ssim"), _scores(quality, "ssim")
    if stored is None or now is None:
        return
    falls = stored - now
    worst = int(np.argmax(falls))
    tolerance = policy.max_ssim_collapse * policy.quality_tolerance
    if falls[worst] <= tolerance:
        return
    before, after = float(stored[worst]), float(now[worst])
    yield Finding(
        metric="SSIM of one prompt",
        verdict="regressed",
        baseline=before,
        now=after,
        change=after - before,
        tolerance=tolerance,
        n=1,
        message=f"SSIM of prompt {worst + 1} collapsed {before:.4f} → {after:.4f} (tolerance {tolerance:.3g} for one "
        f"prompt; median of {now.size} {np.median(stored):.4f} → {np.median(now):.4f})",
    )


def own_quality(quality: Quality | None, baseline: Baseline, policy: Policy) -> Iterator[Finding]:
    """The project's own metrics: each median over prompts against the baseline's own, by the metric's tolerance."""
    for name in sorted({name for run in baseline.runs for sample in run.samples for name in sample.own}):
        rows = [(run.session, [sample.own.get(name) for sample in run.samples]) for run in baseline.runs]
        complete = [(session, np.array(row, dtype=float)) for session, row in rows if row and None not in row]
        if not complete:
            continue
        before = float(np.median(np.median(np.array([row for _, row in complete]), axis=0)))
        metric = None if quality is None else quality.own.get(name)
        if metric is None:
            message = f"{name} was not measured, the baseline has {before:.4g}"
            yield Finding(metric=name, verdict="inconclusive", baseline=before, message=message)
            continue
        yield _own(name, metric, before, policy, stored=_session_medians(complete))


def own_drift(quality: Quality | None, policy: Policy) -> Iterator[Finding]:
    """The project's own metrics of pictures that are compared with the stored ones, against those with themselves."""
    for name, metric in sorted(quality.own.items()) if quality else ():
        if metric.same:
            yield _own(name, metric, float(np.median(metric.same)), policy)


def without_start(stored: Quality | None) -> tuple[str, ...]:
    """Own metrics of pictures that were compared with the stored ones, which say nothing of these with themselves."""
    return () if stored is None else tuple(name for name, metric in stored.own.items() if not metric.same)


def _own(
    name: str, metric: OwnMetric, before: float, policy: Policy, *, stored: Sequence[float] | None = None
) -> Finding:
    """``stored`` are the metric's medians in the stored sessions, whose noise it is given."""
    after = float(np.median(metric.values))
    tolerance = metric.tolerance * policy.quality_tolerance
    if stored is not None:
        tolerance = noise_tolerance(tolerance, stored)
    loss = (before - after) * (1 if metric.higher_is_better else -1)
    n = len(metric.values)
    return Finding(
        metric=name,
        verdict="regressed" if loss > tolerance else "improved" if loss < -tolerance else "passed",
        baseline=before,
        now=after,
        change=after - before,
        tolerance=tolerance,
        n=n,
        message=f"{name} {before:.4g} → {after:.4g} (median of {n}: {after - before:+.4g}, tolerance {tolerance:.3g})",
    )


def quality_floors(quality: Quality | None, policy: Policy) -> Iterator[Finding]:
    """The floors that every prompt must keep, whether or not there is a baseline."""
    floors = (
        ("SSIM", "ssim", "", policy.min_ssim, 1),
        ("PSNR", "psnr_db", "dB", policy.min_psnr, 1),
        ("LPIPS", "lpips", "", policy.max_lpips, -1),
    )
    for metric, field, unit, floor, sign in floors:
        if floor is None:
            continue
        word = "floor" if sign > 0 else "ceiling"
        now = _scores(quality, field)
        if now is None:
            message = f"{metric} has a {word} of {floor:g} but was not measured for every prompt"
            yield Finding(
                metric=f"{metric} {word}",
                verdict="inconclusive",
                unit=unit,
                tolerance=floor,
                message=message,
                bound=True,
            )
            continue
        crossed = sign * now < sign * floor
        worst = float(now.min() if sign > 0 else now.max())
        message = (
            f"{metric} of {int(crossed.sum())} of {now.size} prompts beyond the {word} {floor:g}, worst {worst:.4g}"
        )
        yield Finding(
            metric=f"{metric} {word}",
            verdict="regressed" if crossed.any() else "passed",
            unit=unit,
            now=worst,
            tolerance=floor,
            n=int(now.size),
            message=message,
            bound=True,
        )


def drift(scores: PictureScores, policy: Policy) -> Iterator[Finding]:
    """Pictures against the stored ones: the test's own where there are no others, else the reference recipe's.

    Pictures of another environment differ without being worse: this fails only past its own floor.
    """
    compared, whose = (scores.drift, "the reference recipe's") if scores.stored is None else (scores.stored, "its")
    if compared is None:
        return
    now = _scores(compared, "ssim")
    if now is None:
        message = "drift from the stored pictures unknown: SSIM, which tells it, was not measured for every prompt"
        yield Finding(metric=DRIFT, verdict="inconclusive", message=f"{message}; add ssim to --fluxperf-metrics")
        return
    median = float(np.median(now))
    failed = median < policy.drift_min_ssim
    yield Finding(
        metric=DRIFT,
        verdict="regressed" if failed else "passed",
        now=median,
        tolerance=policy.drift_min_ssim,
        n=int(now.size),
        message=f"{whose} pictures drifted from the stored ones: "
        f"SSIM {median:.3f} (median of {now.size}), floor {policy.drift_min_ssim:g}",
    )


def broken_scores(scores: PictureScores, prompts: int) -> str | None:
    """What makes the scores unusable, None when nothing does: NaN compares with nothing and would pass."""
    for quality in (scores.reference, scores.stored, scores.drift):
        if quality is not None and (problem := _broken(quality, prompts)):
            return problem
    return None


def _broken(quality: Quality, prompts: int) -> str | None:
    if len(quality.scores) != prompts:
        return f"quality has {len(quality.scores)} scores for {prompts} prompts"
    for i, score in enumerate(quality.scores):
        for metric, field, *_ in _METRICS:
            value = getattr(score, field)
            if value is not None and not math.isfinite(value):
                return f"{metric} of prompt {i + 1} is {value}"
    return None


def unguarded_metrics(quality: Quality | None, baseline: Baseline) -> tuple[str, ...]:
    """Metrics measured now that the baseline does not hold."""
    known = [
        metric
        for metric, field, *_ in _METRICS
        if _scores(quality, field) is not None and _baseline_scores(baseline.runs, field) is None
    ]
    stored = {name for run in baseline.runs for sample in run.samples for name in sample.own}
    return (*known, *(name for name in (quality.own if quality else ()) if name not in stored))


def _scores(quality: Quality | None, field: str) -> Array | None:
    return None if quality is None else _column(quality.scores, field)


def _baseline_scores(runs: Sequence[Run], field: str) -> Array | None:
    """Scores of each prompt (n,), the median over the runs that have them all."""
    columns = [_column([sample.score for sample in run.samples], field) for run in runs]
    known = [column for column in columns if column is not None]
    return np.median(np.array(known), axis=0) if known else None


def _session_medians(columns: Iterable[tuple[str, Array | None]]) -> list[float]:
    """Of each session the median over its runs of a score's median over prompts; what is not known is left out."""
    found: dict[str, list[float]] = {}
    for session, column in columns:
        if column is not None:
            found.setdefault(session, []).append(float(np.median(column)))
    return [float(np.median(values)) for values in found.values()]


def _column(scores: Sequence[Similarity], field: str) -> Array | None:
    values = [getattr(score, field) for score in scores]
    known = [value for value in values if value is not None]
    return np.array(known, dtype=float) if known and len(known) == len(values) else None
