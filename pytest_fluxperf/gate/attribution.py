"""Why it moved: readable clauses from what a measurement and its baseline know, the strongest reason first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from pytest_fluxperf.baseline.run import busy_share
from pytest_fluxperf.gate.findings import baseline_computed_steps
from pytest_fluxperf.gate.kernel_diff import diff as diff_kernels
from pytest_fluxperf.gate.kernel_diff import headline
from pytest_fluxperf.gate.statistics import Array
from pytest_fluxperf.machine.software import INSTRUMENT, STACK, diff, stack_differences
from pytest_fluxperf.results import (
    Baseline,
    Environment,
    Generation,
    KernelDiff,
    Measurement,
    Sample,
    flat_facts,
    median_latency_s,
)

Phase = Literal["text_encode_s", "denoise_s", "decode_s"]

_PHASES: tuple[tuple[Phase, str], ...] = (
    ("text_encode_s", "text encoding"),
    ("denoise_s", "denoising"),
    ("decode_s", "decoding"),
)

LEAST_SHARE = 0.10
"""A phase or a family of kernels with less than this share of the change is not named."""

LEADING_SHARE = 1 / 3
"""Waiting, or a family of kernels, that explains this much of the change is named before the phases."""

LEAST_CHANGE = 0.005
"""Below this relative change of the latency its parts are noise."""

MOST_PACKAGES = 5
LONGEST_FACT = 60

_LABELS = {
    "recipe": "the recipe stands for",
    "ran_attention": "attention kernels that ran",
    "attention": "attention",
    "attention_asked": "attention asked for",
    "compile": "compile",
    "ran_compiled_regions": "compiled regions a step",
    "compiled_graphs": "compiled graphs",
    "graph_breaks": "graph breaks",
    "quantization": "quantization",
    "quantized_layers": "quantized layers",
    "dtype": "dtype",
    "weight_dtypes": "dtypes of the blocks' weights",
    "ran_matmul_dtypes": "dtypes of matrix products",
    "ran_casts": "casts between dtypes a step",
}
"""Facts in the order of how much they explain: a whole recipe (``fastest``) that stands for another one, an attention
back end that changed, or a compile that is gone, changes what is below it too. Facts that are not listed come last."""

_NOT_CAUSES = frozenset({"model", "device"})
"""Facts that are part of the key."""

_CIRCUMSTANCES = frozenset({"inductor_cache_hits", "inductor_cache_misses"})
"""Facts that are a circumstance more often than a cause: a compile cache was cold."""

_OBSERVED = frozenset({"ran_attention", "ran_compiled_regions", "ran_matmul_dtypes", "ran_casts", "weight_dtypes"})
"""Facts of a watched step; a run with other warm-ups may have none, which says nothing."""

_DTYPES = frozenset({"weight_dtypes", "ran_matmul_dtypes"})
"""Observed facts that the recipe's dtype asks for, where no quantization asks for another."""

_BUSY_ENOUGH = 0.90
_LESS_BUSY = 0.03
_SLOWER_CLOCK = 0.03
_SLOWER_TEXT = 1.25
"""Text encoding that takes so many times as long, where the device waits, points to a slow host."""


def attribute(
    measurement: Measurement,
    baseline: Baseline,
    environment: Environment | None,
    *,
    relative: bool = False,
    kernels: KernelDiff | None = None,
    proved: Sequence[str] = (),
) -> tuple[str, ...]:
    """Reasons for a change against a comparable baseline, the strongest first.

    A cache that answers nothing any more and what was really used (facts) lead, as they name a cause; then what work
    and device time have ``proved``, the kernels that explain the change, or that the device waited for the host; the
    phases by the seconds they moved, the state of the machine, and the packages that differ. In ``relative`` mode the
    baseline's seconds are scaled by how much faster this machine runs the reference recipe. Packages are compared
    where the environment is known.
    """
    moved = list(_moved_facts(measurement, baseline))
    causes = [fact.clause for fact in moved if fact.name not in _CIRCUMSTANCES]
    circumstances = [fact.clause for fact in moved if fact.name in _CIRCUMSTANCES]
    on_gpu = measurement.kernels is not None and measurement.kernels.device == "cuda"
    wait = _wait(measurement, baseline)
    # A profile is of one generation, the driver's samples are of all.
    waits = [(wait.share, True, wait.clause)] if wait else []
    parts = sorted([*_kernels(kernels, on_gpu), *waits], reverse=True)
    leading = [clause for share, sure, clause in parts if sure and share >= LEADING_SHARE]  # more than its phase says
    minor = [clause for share, sure, clause in parts if share >= LEAST_SHARE and clause not in leading]
    phases = [clause for _, clause in sorted(_phases(measurement, baseline, relative), reverse=True)]
    machine = [*_machine(measurement, baseline), *circumstances]
    return (
        *_cache(measurement, baseline),
        *causes,
        *proved,
        *leading,
        *phases,
        *minor,
        *machine,
        *_packages(baseline, environment),
    )


def attribute_broken(measurement: Measurement, baseline: Baseline, environment: Environment | None) -> tuple[str, ...]:
    """What differs from a baseline with a result whose times mean nothing."""
    facts = [fact.clause for fact in _moved_facts(measurement, baseline) if fact.name not in _CIRCUMSTANCES]
    return (*_cache(measurement, baseline), *facts, *_packages(baseline, environment))


def kernel_difference(
    measurement: Measurement, baseline: Baseline, *, relative: bool = False, least: float = LEAST_CHANGE
) -> KernelDiff | None:
    """The change of the latency by kernels; None where not both sides were profiled, or under ``least`` of it."""
    stored = [run.kernels for run in baseline.by_time if run.kernels is not None]
    if measurement.kernels is None or not stored:
        return None
    made = measurement.generations
    runs = [run.samples for run in baseline.runs]
    scale = _scale(made, runs) if relative else 1.0
    total = _moved(made, runs, "latency_s", scale)
    if total is None or abs(total) < least * median_latency_s(made):
        return None
    return diff_kernels(stored[-1], measurement.kernels, total, scale=scale)


def packages_that_differ(baseline: Baseline, environment: Environment | None) -> str | None:
    """``diffusers 0.42.1 → 0.43.0, ...`` for the newest run of the baseline, None when nothing differs."""
    return next(_packages(baseline, environment), None)


def _cache(measurement: Measurement, baseline: Baseline) -> Iterator[str]:
    """A step cache that answered steps in the baseline and answers none now."""
    base = baseline_computed_steps(baseline)
    made = [g for g in measurement.generations if g.decisions]
    if base is None or not made or base.mean() >= baseline.workload.steps:
        return
    if not any(g.cached_steps for g in made):
        steps = float(np.mean([g.computed_steps for g in made]))
        yield f"the step cache answers nothing: computed steps {base.mean():.4g} → {steps:.4g} an image, all of them"


@dataclass(frozen=True)
class _MovedFact:
    """Something that was really used and is not what the baseline used."""

    name: str
    clause: str


def _moved_facts(measurement: Measurement, baseline: Baseline) -> Iterator[_MovedFact]:
    old, new = flat_facts(baseline.newest.facts), flat_facts(measurement.facts)
    if not old or not new:
        return
    order = list(_LABELS)
    for key in sorted(old.keys() | new.keys(), key=lambda k: (order.index(k) if k in _LABELS else len(order), k)):
        before, after = old.get(key), new.get(key)
        if key.split(" ")[0] in _NOT_CAUSES or _alike(before, after):
            continue
        if key in _OBSERVED and (before is None or after is None):
            continue
        if key == "graph_breaks" and (after or 0) <= (before or 0):
            continue
        clause = f"{_LABELS.get(key, key.replace('_', ' '))} {_shown(before)} → {_shown(after)}"
        if key == "ran_attention":
            clause += f" (asked for: {new.get('attention_asked', 'nothing, torch chooses')})"
        elif key in _DTYPES and "dtype" in new and "quantization" not in new:
            clause += f" (asked for: {new['dtype']})"
        elif key == "ran_compiled_regions" and not after:
            clause = f"nothing runs compiled any more: {clause}"
        yield _MovedFact(key, clause)


def _kernels(found: KernelDiff | None, on_gpu: bool) -> Iterator[tuple[float, bool, str]]:
    """``(share of the change, whether it may lead, clause)`` of the kernels that explain most of it, and of a device
    that waited.

    A CPU's operators share it with whatever else runs, and the time between them is Python's: that an operator took
    longer, or none ran, in one generation is no proof there; that other ones ran is.
    """
    if found is None:
        return
    sure = headline(found, other_calls=not on_gpu)
    if sure:
        yield sure[1], True, sure[2]
    if (top := headline(found)) and top != sure:
        yield top[1], False, top[2]
    if found.idle_s is not None and found.difference_s:
        text = f"time outside of kernels {found.idle_s:+.3g} s of {found.difference_s:+.3g} s an image"
        yield found.idle_s / found.difference_s, on_gpu, text


def _alike(before: Any, after: Any) -> bool:
    """Equal, or for floats and lists of them within 2 %."""
    if isinstance(before, float) and isinstance(after, float):
        return math.isclose(before, after, rel_tol=0.02)
    if isinstance(before, list | tuple) and isinstance(after, list | tuple):
        return len(before) == len(after) and all(map(_alike, before, after))
    return bool(before == after)


def _shown(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, list | tuple):
        value = "+".join(map(str, value)) or "none"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST_FACT else text[: LONGEST_FACT - 1] + "…"


def _phases(measurement: Measurement, baseline: Baseline, relative: bool) -> Iterator[tuple[float, str]]:
    """``(share of the change, clause)`` of each part of the latency that moved with it."""
    made = measurement.generations
    runs = [run.samples for run in baseline.runs]
    scale = _scale(made, runs) if relative else 1.0
    total = _moved(made, runs, "latency_s", scale)
    if total is None or abs(total) < LEAST_CHANGE * median_latency_s(made):
        return
    parts: list[tuple[float, str]] = []
    explained = 0.0
    for field, name in _PHASES:
        moved = _moved(made, runs, field, scale)
        if moved is None:
            continue
        explained += moved
        if field == "denoise_s":
            parts += _denoising(made, baseline, runs, moved, scale)
        else:
            parts.append((moved, name))
    if parts:
        parts.append((total - explained, "outside the phases"))
    for moved, name in parts:
        share = moved / total
        if share >= LEAST_SHARE:
            yield share, f"{name} {moved:+.3g} s of {total:+.3g} s an image"


def _denoising(
    made: Sequence[Generation], baseline: Baseline, runs: Sequence[Sequence[Sample]], moved: float, scale: float
) -> list[tuple[float, str]]:
    """Denoising's change, split into more computed steps and dearer ones."""
    base = baseline_computed_steps(baseline)
    now = [g.computed_steps for g in made if g.computed_steps is not None]
    centre = _centre(runs, "denoise_s")
    assert centre is not None
    before = scale * float(np.median(centre))
    relative = f"{moved / before:+.1%}" if before else "none before"
    if base is None or len(now) < len(made):
        return [(moved, f"denoising ({relative})")]
    more = float(np.mean(now) - base.mean())
    if not more:
        each = f"{relative} each" if before else relative
        return [(moved, f"denoising, {np.mean(now):.4g} computed steps as before ({each}),")]
    counted = more * _cost_of_computing(made)
    return [
        (counted, f"computed steps {base.mean():.4g} → {np.mean(now):.4g} an image:"),
        (moved - counted, "denoising beyond the number of steps"),
    ]


def _cost_of_computing(made: Sequence[Generation]) -> float:
    """Seconds that one computed step takes over a cached one."""
    computed = [s for g in made for s, d in zip(g.steps_s, g.decisions or "", strict=False) if d == "1"]
    cached = [s for g in made for s, d in zip(g.steps_s, g.decisions or "", strict=False) if d == "0"]
    if computed:
        return float(np.median(computed)) - (float(np.median(cached)) if cached else 0.0)
    steps = sum(g.computed_steps or 0 for g in made)
    return sum(g.denoise_s or 0.0 for g in made) / steps if steps else 0.0


def _centre(runs: Sequence[Sequence[Sample]], field: str) -> Array | None:
    rows = [[getattr(sample, field) for sample in run] for run in runs]
    known = [row for row in rows if all(value is not None for value in row)]
    return np.median(np.array(known, dtype=float), axis=0) if known else None


def _moved(made: Sequence[Generation], runs: Sequence[Sequence[Sample]], field: str, scale: float) -> float | None:
    """Median over prompts of the seconds that ``field`` moved; None where it is not known for all."""
    before = _centre(runs, field)
    now = None if before is None else _now(made, field, before.size)
    return None if before is None or now is None else float(np.median(now - scale * before))


def _now(made: Sequence[Generation], field: str, prompts: int) -> Array | None:
    """Of each prompt the median over all times it was generated; None where ``field`` is not known for all."""
    values = [getattr(g, field) for g in made]
    if not values or None in values or len(values) % prompts:
        return None
    medians: Array = np.median(np.array(values, dtype=float).reshape(-1, prompts), axis=0)
    return medians


def _scale(made: Sequence[Generation], runs: Sequence[Sequence[Sample]]) -> float:
    before = _centre(runs, "reference_latency_s")
    now = None if before is None else _now(made, "reference_latency_s", before.size)
    return 1.0 if before is None or now is None else float(np.median(now / before))


@dataclass(frozen=True)
class _Wait:
    """That the device waited for the host longer than in the baseline, by the driver's samples."""

    share: float
    """Of the change of the latency; 0 where it is no slower."""
    text: float | None
    """How many times as long text encoding took."""
    clause: str

    @property
    def leads(self) -> bool:
        return self.share >= LEADING_SHARE

    @property
    def slow_host(self) -> bool:
        return self.text is not None and self.text >= _SLOWER_TEXT


def slow_host(measurement: Measurement, baseline: Baseline) -> bool:
    """Whether a slow host explains much of a slower latency.

    That the device waited is not enough, since a package that does more per call makes it wait as well. Text encoding
    is the witness: no recipe touches it, and it is short kernels, started one by one.
    """
    found = _wait(measurement, baseline)
    return found is not None and found.leads and found.slow_host


def _wait(measurement: Measurement, baseline: Baseline) -> _Wait | None:
    stored = [(run.device_busy, median_latency_s(run.samples)) for run in baseline.runs if run.device_busy is not None]
    busy = busy_share(measurement)
    if busy is None or not stored:
        return None
    now = median_latency_s(measurement.generations)
    before, latency, waited = (
        float(np.median(values)) for values in zip(*((b, s, (1 - b) * s) for b, s in stored), strict=True)
    )
    if busy >= before - _LESS_BUSY:
        return None
    total, more = now - latency, (1 - busy) * now - waited
    clause = f"the device waited for the host {more:+.3g} s of {total:+.3g} s an image"
    clause += f" (busy {before:.0%} → {busy:.0%})"
    runs = [run.samples for run in baseline.runs]
    old, slower = _centre(runs, "text_encode_s"), _moved(measurement.generations, runs, "text_encode_s", 1.0)
    text = None if old is None or slower is None or not np.median(old) else 1 + slower / float(np.median(old))
    found = _Wait(more / total if total > 0 else 0.0, text, clause)
    if found.slow_host:
        return replace(
            found, clause=f"{clause}; text encoding took {text:.1f} times as long, so look at the host first"
        )
    return found


def _machine(measurement: Measurement, baseline: Baseline) -> Iterator[str]:
    old = baseline.newest
    busy = busy_share(measurement)
    if busy is not None and old.device_busy is None and busy < _BUSY_ENOUGH:
        yield f"the device was busy {busy:.0%} of the time: the host holds it back"
    telemetry = measurement.telemetry
    if telemetry is None:
        return
    clock = telemetry.sm_clock_mhz
    if telemetry.throttle_reasons:
        at = "" if clock is None else f" at {clock} MHz"
        yield f"clocks were held down{at}: {', '.join(telemetry.throttle_reasons)}"
    elif clock and old.sm_clock_mhz and clock < (1 - _SLOWER_CLOCK) * old.sm_clock_mhz:
        yield f"SM clock {old.sm_clock_mhz} → {clock} MHz"


def _packages(baseline: Baseline, environment: Environment | None) -> Iterator[str]:
    old = baseline.newest_environment
    if environment is None or old is None:
        return
    stack = stack_differences(old, environment)
    shown = [f"{name} {before} → {after}" for name, before, after in stack[:MOST_PACKAGES]]
    differing = [entry for entry in diff(old, environment) if entry[0] != INSTRUMENT]
    others = len(differing) - len(shown)
    if shown:
        yield ", ".join(shown) + (f" and {others} more" if others else "")
    elif others:
        name, before, after = differing[0]
        more = f" and {others - 1} more, none of the {len(STACK)} that a generation runs through" if others > 1 else ""
        yield f"{name} {before} → {after}{more}"
