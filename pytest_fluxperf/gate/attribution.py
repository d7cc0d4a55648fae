"""Why it moved: readable clauses from what a measurement and its baseline know, the strongest reason first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from pytest_fluxperf.baseline.environment import STACK, diff, stack_differences
from pytest_fluxperf.gate.findings import baseline_computed_steps
from pytest_fluxperf.gate.statistics import Array
from pytest_fluxperf.results import Baseline, Environment, Generation, Measurement, Sample

Phase = Literal["text_encode_s", "denoise_s", "decode_s"]

_PHASES: tuple[tuple[Phase, str], ...] = (
    ("text_encode_s", "text encoding"),
    ("denoise_s", "denoising"),
    ("decode_s", "decoding"),
)

LEAST_SHARE = 0.10
"""A phase with less than this share of the change is not named."""

LEAST_CHANGE = 0.005
"""Below this relative change of the latency its parts are noise."""

MOST_PACKAGES = 5
LONGEST_FACT = 60

_NOT_CAUSES = frozenset({"recipe", "model", "device", "graph_breaks"})
"""Facts that are part of the key, or judged by themselves."""
_BUSY_ENOUGH = 0.90


def attribute(
    measurement: Measurement, baseline: Baseline, environment: Environment, *, relative: bool = False
) -> tuple[str, ...]:
    """Reasons for a change against a comparable baseline, the strongest first.

    What was really used (facts) leads, as it names a cause; then the phases by the seconds they moved, the state
    of the machine, and the packages that differ. In ``relative`` mode the baseline's seconds are scaled by how
    much faster this machine runs the reference recipe.
    """
    facts = list(_facts(measurement, baseline))
    # A compile cache that was cold is a circumstance more often than a cause.
    causes = [clause for clause in facts if not clause.startswith("inductor")]
    circumstances = [clause for clause in facts if clause.startswith("inductor")]
    phases = [clause for _, clause in sorted(_phases(measurement, baseline, relative), reverse=True)]
    machine = [*_machine(measurement), *circumstances]
    return (*causes, *phases, *machine, *_packages(baseline, environment))


def packages_that_differ(baseline: Baseline, environment: Environment) -> str | None:
    """``diffusers 0.42.1 → 0.43.0, ...`` for the newest run of the baseline, None when nothing differs."""
    return next(_packages(baseline, environment), None)


def _facts(measurement: Measurement, baseline: Baseline) -> Iterator[str]:
    old = _flat(baseline.runs[-1].facts)
    new = _flat(measurement.facts)
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if key.split(" ")[0] in _NOT_CAUSES or before == after or not old or not new:
            continue
        if isinstance(before, float) and isinstance(after, float) and math.isclose(before, after, rel_tol=0.02):
            continue
        yield f"{key.replace('_', ' ')} {_shown(before)} → {_shown(after)}"


def _flat(facts: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in facts.items():
        name = f"{prefix}{key}"
        found |= _flat(value, f"{name} ") if isinstance(value, dict) else {name: value}
    return found


def _shown(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, list | tuple):
        value = "+".join(map(str, value)) or "none"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST_FACT else text[: LONGEST_FACT - 1] + "…"


def _phases(measurement: Measurement, baseline: Baseline, relative: bool) -> Iterator[tuple[float, str]]:
    """``(share of the change, clause)`` of each part of the latency that moved with it."""
    n = len(baseline.workload.prompts)
    made = measurement.generations[:n]
    runs = [run.samples for run in baseline.runs]
    scale = _scale(made, runs) if relative else 1.0
    total = _moved(made, runs, "latency_s", scale)
    latency = float(np.median([g.latency_s for g in made])) if made else 0.0
    if total is None or abs(total) < LEAST_CHANGE * latency:
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
    before = _centre(runs, "denoise_s")
    assert before is not None
    relative = moved / (scale * float(np.median(before)))
    if base is None or len(now) < len(made):
        return [(moved, f"denoising ({relative:+.1%})")]
    more = float(np.mean(now) - base.mean())
    if not more:
        return [(moved, f"denoising, {np.mean(now):.4g} computed steps as before ({relative:+.1%} each),")]
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
    now = [value for g in made if (value := getattr(g, field)) is not None]
    if before is None or not now or len(now) != before.size:
        return None
    return float(np.median(np.array(now) - scale * before))


def _scale(made: Sequence[Generation], runs: Sequence[Sequence[Sample]]) -> float:
    before = _centre(runs, "reference_latency_s")
    now = [g.reference_latency_s for g in made if g.reference_latency_s is not None]
    if before is None or len(now) != before.size:
        return 1.0
    return float(np.median(np.array(now) / before))


def _machine(measurement: Measurement) -> Iterator[str]:
    shares = [g.device_busy_s / g.wall_s for g in measurement.generations if g.device_busy_s is not None]
    if shares and (busy := float(np.median(shares))) < _BUSY_ENOUGH:
        yield f"the device was busy {busy:.0%} of the time: the host holds it back"
    telemetry = measurement.telemetry
    if telemetry is not None and telemetry.throttle_reasons:
        clock = "" if telemetry.sm_clock_mhz is None else f" at {telemetry.sm_clock_mhz} MHz"
        yield f"clocks were held down{clock}: {', '.join(telemetry.throttle_reasons)}"


def _packages(baseline: Baseline, environment: Environment) -> Iterator[str]:
    old = baseline.environments[baseline.runs[-1].environment]
    stack = stack_differences(old, environment)
    shown = [f"{name} {before} → {after}" for name, before, after in stack[:MOST_PACKAGES]]
    others = len(diff(old, environment)) - len(shown)
    if shown:
        yield ", ".join(shown) + (f" and {others} more" if others else "")
    elif others:
        name, before, after = diff(old, environment)[0]
        more = f" and {others - 1} more, none of the {len(STACK)} that a generation runs through" if others > 1 else ""
        yield f"{name} {before} → {after}{more}"
