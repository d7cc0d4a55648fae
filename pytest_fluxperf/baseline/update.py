"""What an update makes of one baseline: a pure decision; :mod:`~pytest_fluxperf.baseline.store` carries it out."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from pytest_fluxperf.baseline.codec import BASELINE_FORMAT, rounded
from pytest_fluxperf.baseline.run import baseline_of
from pytest_fluxperf.machine.hardware import hardware_differences
from pytest_fluxperf.machine.software import stack_differences
from pytest_fluxperf.results import (
    FAILING,
    Baseline,
    BaselineAction,
    BaselineChange,
    Environment,
    Hardware,
    Result,
    Workload,
    median_latency_s,
)

UpdateMode = Literal["new", "failed", "all", "append"]


@dataclass(frozen=True)
class Change:
    """What an update did to the baseline of one test, or why it did not."""

    test: str
    action: BaselineAction
    text: str
    """What became of it, old → new: a clause that begins with the action."""
    baseline: Baseline | None = None
    """The content to write; None where the file stays as it is."""

    @property
    def record(self) -> BaselineChange:
        """What a report says of it."""
        return BaselineChange(test=self.test, action=self.action, text=self.text)


def plan_update(
    result: Result,
    old: Baseline | None,
    mode: UpdateMode,
    *,
    hardware: Hardware,
    environments: Mapping[str, Environment],
    tau0: float,
    nu0: float,
) -> Change:
    """Decide what ``result`` does to the baseline ``old`` of its test.

    ``new`` records where nothing comparable is stored, ``failed`` also replaces what regressed, ``all``
    replaces everything, ``append`` adds a run of an unchanged environment and recipe to teach the gate its noise. A
    broken or invalid result never becomes a baseline, and what regressed or improved is no noise. ``environments``
    holds that of the result by its digest.
    """
    verdict = result.judgement.verdict
    if result.run is None or verdict in ("broken", "invalid"):
        return Change(result.test, "refused", f"refused, {verdict}: {result.judgement.message}")
    if floor := crossed_floor(result):
        reason = f"{floor}: it holds whatever is recorded; change the test's bound"
        return Change(result.test, "refused", f"refused, {reason}")
    run = rounded(result.run)
    if (environment := environments.get(run.environment)) is None:
        text = f"refused, the environment {run.environment} that it was measured in is not known"
        return Change(result.test, "refused", text)
    fresh = baseline_of(result, (run,), hardware=hardware, environment=environment, tau0=tau0, nu0=nu0)
    if old is None:
        return Change(result.test, "recorded", f"recorded, {_numbers(fresh)}", fresh)
    if mode == "append":
        if _is_change(result, old):
            replace = "all" if verdict == "improved" else "failed"
            reason = f"{result.judgement.message}; accept the change with --fluxperf-update={replace}"
            return Change(result.test, "refused", f"refused, {verdict}: {reason}")
        return _append(old, fresh)
    elsewhere = other_hardware(old, result, hardware)
    comparable = not elsewhere and not differences(old, fresh)
    if mode == "new" and elsewhere:
        reason = f"stored for other hardware ({elsewhere[0]}); replace it with --fluxperf-update=all"
        return Change(result.test, "refused", f"refused, {reason}")
    if comparable and (mode == "new" or (mode == "failed" and verdict not in ("regressed", "no baseline"))):
        return Change(result.test, "kept", f"kept, {_numbers(old)}")
    if _content(old) == _content(fresh):
        return Change(result.test, "unchanged", f"unchanged, {_numbers(old)}")
    text = f"replaced, {_numbers(old)} → {_numbers(fresh)}{_percent(old, fresh)}"
    return Change(result.test, "replaced", text, fresh)


def crossed_floor(result: Result) -> str | None:
    """What says that a floor or ceiling of the test itself was crossed, which no baseline moves."""
    for finding in result.judgement.findings:
        if finding.verdict == "regressed" and finding.bound:
            return finding.message
    return None


def _is_change(result: Result, old: Baseline) -> bool:
    """Whether more changed than the time on a card that the baseline does not know yet; cards of one kind differ.

    What improved is no noise either: stored beside the runs before it, it would widen the noise that the gate
    tolerates and hide what later falls back.
    """
    verdict = result.judgement.verdict
    if verdict not in ("regressed", "improved") or result.run is None:
        return False
    known = result.run.gpu_uuid in {run.gpu_uuid for run in old.runs}
    changed = [finding.metric for finding in result.judgement.findings if finding.verdict == verdict]
    return known or any(metric not in ("latency", "speed-up") for metric in changed)


def differences(old: Baseline, new: Baseline, *, cpu_model: bool = False) -> list[str]:
    """Why two baselines of a test cannot be compared, as clauses; empty when they can."""
    return [
        *hardware_differences(old.hardware, new.hardware, cpu_model=cpu_model),
        *workload_differences(old, new.recipe, new.reference, new.workload),
    ]


def other_hardware(old: Baseline, result: Result, hardware: Hardware) -> list[str]:
    """Why a baseline is of other hardware than a result, as clauses."""
    found = hardware_differences(old.hardware, hardware)
    if found or result.judgement.verdict != "no baseline":
        return found
    if workload_differences(old, result.recipe, result.reference, result.workload):
        return []
    # What the gate could not compare is the CPU's model, then, which counts where seconds are gated.
    return hardware_differences(old.hardware, hardware, cpu_model=True)


def workload_differences(old: Baseline, recipe: str | None, reference: str, workload: Workload) -> list[str]:
    """How what was generated differs from what a baseline holds, as clauses."""
    pairs = [("recipe", old.recipe, recipe), ("reference", old.reference, reference)]
    for name in ("model", "height", "width", "steps", "guidance"):
        pairs.append((name, getattr(old.workload, name), getattr(workload, name)))
    found = [f"{name} {before} → {after}" for name, before, after in pairs if before != after]
    before, after = old.workload.prompts, workload.prompts
    if len(before) != len(after):
        found.append(f"{len(before)} → {len(after)} prompts")
    elif before != after:
        changed = sum(a != b for a, b in zip(before, after, strict=True))
        found.append(f"{changed} of {len(before)} prompts or seeds")
    return found


def _append(old: Baseline, fresh: Baseline) -> Change:
    (run,) = fresh.runs
    if reasons := differences(old, fresh, cpu_model=True):
        text = f"refused, a run of another workload or machine cannot be appended: {reasons[0]}"
        return Change(old.test, "refused", text)
    pinned = old.environments[old.newest.environment]
    (environment,) = fresh.environments.values()
    if moved := stack_differences(pinned, environment):
        name, before, after = moved[0]
        text = (
            f"refused, only an unchanged environment may be appended: {name} {before} → {after}; "
            "accept the change with --fluxperf-update=all"
        )
        return Change(old.test, "refused", text)
    before, after = (str(one.facts.get("recipe", old.recipe)) for one in (old.newest, run))
    if before != after:  # another release: a whole recipe stands for other tokens now
        text = (
            f"refused, only runs of one recipe can be appended: {old.recipe} stood for {before} and now "
            f"for {after}; accept the change with --fluxperf-update=all"
        )
        return Change(old.test, "refused", text)
    if any(stored.session == run.session for stored in old.runs):
        return Change(old.test, "unchanged", f"unchanged, session {run.session} is stored already")
    environments = {**old.environments, **fresh.environments}
    grown = replace(old, format=BASELINE_FORMAT, environments=environments, runs=(*old.runs, run))
    return Change(old.test, "appended", f"appended run {len(grown.runs)}, {_numbers(fresh)}", grown)


def _content(baseline: Baseline) -> tuple[object, ...]:
    """All that was measured; not when, nor by which process."""
    runs = [(run.environment, run.gpu_uuid, run.samples, run.peak_memory_mib, run.facts) for run in baseline.runs]
    return (baseline.hardware, baseline.workload, baseline.recipe, baseline.reference, runs)


def _p50(baseline: Baseline) -> float:
    return median_latency_s(baseline.samples)


def _numbers(baseline: Baseline) -> str:
    parts = [f"p50 {_p50(baseline):.4g} s"]
    ssim = _median(sample.score.ssim for run in baseline.runs for sample in run.samples)
    if ssim is not None:
        parts.append(f"SSIM {ssim:.4f}")
    memory = _median(run.peak_memory_mib for run in baseline.runs)
    if memory is not None:
        parts.append(f"{memory:.0f} MiB")
    return ", ".join(parts)


def _percent(old: Baseline, new: Baseline) -> str:
    return "" if old.workload != new.workload else f" ({_p50(new) / _p50(old) - 1:+.1%} time)"


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def accepted(result: Result, update: str | None, hardware: Hardware) -> bool:
    """True when ``--fluxperf-update`` takes a result as the new baseline, so that the test passes."""
    verdict, stored = result.judgement.verdict, result.baseline
    if update is None or verdict in ("broken", "invalid") or crossed_floor(result):
        return False
    if update == "all":
        return True
    if update == "failed":
        return verdict in ("regressed", "no baseline")
    if verdict != "no baseline":
        return False
    # What is stored and cannot be compared is replaced by "new" alone, and on the same hardware.
    return stored is None or (update == "new" and not other_hardware(stored, result, hardware))


def fails(result: Result, *, strict: bool, update: str | None, hardware: Hardware) -> bool:
    """Whether the test fails."""
    if accepted(result, update, hardware):
        return False
    verdict = result.judgement.verdict
    return verdict in FAILING or (strict and verdict == "inconclusive")
