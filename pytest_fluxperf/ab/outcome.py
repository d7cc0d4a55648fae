"""Results made of what a comparison brought back: the old environment's half is the new one's baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

import msgspec

from pytest_fluxperf.ab.protocol import Described
from pytest_fluxperf.ab.stage import trace_folder
from pytest_fluxperf.ab.trial import Trial, Trouble
from pytest_fluxperf.baseline.run import baseline_of
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.attribution import attribute, attribute_broken
from pytest_fluxperf.gate.case import Case
from pytest_fluxperf.gate.latency import Grounds
from pytest_fluxperf.gate.verdict import judge
from pytest_fluxperf.machine.software import diff
from pytest_fluxperf.measure.rounds import join
from pytest_fluxperf.quality.metrics import Metrics
from pytest_fluxperf.quality.reference import compare
from pytest_fluxperf.results import (
    BASELINE,
    TRACES,
    Baseline,
    Comparison,
    Finding,
    Hardware,
    Judgement,
    Measurement,
    Picture,
    PictureScores,
    Quality,
    Result,
    Run,
    Skipped,
)


def comparison_of(trial: Trial, place: str = "") -> Comparison | None:
    """The record of a comparison; None when not a single block was measured.

    ``place`` is the comparison's folder relative to that of the report.
    """
    if trial.interleaved is None:
        return None
    finding = trial.interleaved.finding
    assert finding.change is not None
    assert finding.low is not None
    assert finding.high is not None
    old, new = trial.environments["old"], trial.environments["new"]
    return Comparison(
        mode="alternating" if trial.alternating else "interleaved",
        reason=trial.reason,
        blocks=tuple(trial.blocks),
        change=finding.change,
        low=finding.low,
        high=finding.high,
        decided=not trial.interleaved.another_block and trial.interleaved.warning is None,
        generations=sum(len(block.old_s) + len(block.new_s) for block in trial.blocks),
        warmups=sum(len(result.measurement.warmup_s) for result in (*trial.old, *trial.new)),
        old=old.digest,
        new=new.digest,
        packages={name: (before, after) for name, before, after in diff(old, new)},
        traces=tuple(str(PurePath(place, trace)) for r in (*trial.old, *trial.new) for trace in _traces(r)),
    )


def result_of(
    trial: Trial, hardware: Hardware, folder: Path, metrics: Sequence[str], *, strict: bool = False
) -> Result | Skipped:
    """The result of a trial of ``fluxperf ab``, judged by everything the gate judges, the latency by rule 2.

    ``folder`` holds the pictures; where those of old and new differ they are compared by ``metrics``. Pictures that
    cannot be compared are broken. With ``strict`` what was not compared is no skip but a result that fails.
    """
    known = [*trial.new, *trial.old]
    trouble = trial.trouble or (_left_out(trial) if strict else None)
    if trouble and trial.described and not known:
        return _unmeasured(trial, trial.described, trouble)
    if trial.skipped or not known:
        reason = trial.skipped or (trouble.message if trouble else UNREACHED)
        return Skipped(test=trial.test, recipe=None, reason=reason)
    first = known[0]
    baseline = _baseline(trial, hardware)
    result = msgspec.structs.replace(
        first,
        measurement=_joined(trial.new),
        quality=first.scores.reference if trial.new else None,
        drift=None,
        baseline=baseline,
        comparison=comparison_of(trial),
        duration_s=round(sum(r.duration_s for r in known), 3),
    )
    if trouble:
        return msgspec.structs.replace(result, judgement=_troubled(trial, trouble, result.measurement, baseline))
    if trial.interleaved is None or baseline is None:
        return Skipped(test=trial.test, recipe=first.recipe, reason=UNREACHED)
    measurement, drift = result.measurement, None
    try:
        drift = _drift(trial, folder, metrics)
    except FluxPerfError as error:
        measurement = msgspec.structs.replace(measurement, problems=(*measurement.problems, str(error)))
    case = Case.of(result, hardware=hardware, environment=trial.environments["new"], policy=trial.policy)
    own = result.reference == BASELINE
    scores = PictureScores(reference=result.quality, stored=drift if own else None, drift=None if own else drift)
    judgement = judge(case, measurement, scores, baseline, times=trial.interleaved.judgement())
    return msgspec.structs.replace(result, measurement=measurement, drift=drift, judgement=with_notes(judgement, trial))


def _unmeasured(trial: Trial, described: Described, trouble: Trouble) -> Result:
    """Of a test that ended before a measurement did."""
    measurement = Measurement(generations=(), problems=(trouble.message,))
    return Result(
        test=trial.test,
        recipe=described.recipe,
        reference=described.reference,
        workload=described.workload,
        measurement=measurement,
        judgement=_troubled(trial, trouble, measurement, None),
    )


UNREACHED = "the comparison ended before it"


def _left_out(trial: Trial) -> Trouble | None:
    """What is wrong with a trial that was not compared, where nothing may be left out."""
    if trial.skipped:
        return Trouble("broken", f"{trial.skipped} (--fluxperf-strict fails what cannot run)")
    return Trouble("inconclusive", UNREACHED) if trial.interleaved is None else None


def grounds_of(trial: Trial, hardware: Hardware) -> Grounds | None:
    """What was measured of the new environment, and of the old one in the form of a baseline."""
    baseline = _baseline(trial, hardware)
    return None if baseline is None else Grounds(_joined(trial.new), baseline)


def with_notes(judgement: Judgement, trial: Trial) -> Judgement:
    """``judgement`` with a warning where a profile was wanted and could not be had."""
    return msgspec.structs.replace(judgement, warnings=(*judgement.warnings, *trial.notes))


NOT_THE_PACKAGES = "not the packages: this repository's code, or the machine"
"""Why a test is slower than its baseline where old and new environment are equally fast."""


def with_stage_one(compared: Judgement, result: Result) -> Judgement:
    """``compared``, or that stage one's ``result`` stands where it convicts the time and the comparison sees nothing.

    Both environments run this repository's code on this machine: what a stored baseline shows and they do not is
    neither noise nor the doing of a package, so it fails, with both figures.
    """
    convicted = _slower_by(result.judgement.findings)
    beside = next((f for f in compared.findings if f.metric == "latency"), None)
    if convicted is None or beside is None or beside.verdict == "regressed" or compared.verdict == "broken":
        return compared
    reasons: tuple[str, ...] = ()
    if result.baseline is not None and (before := result.baseline.newest_environment) is not None:
        relative = convicted.metric == "speed-up"
        reasons = attribute(result.measurement, result.baseline, before, relative=relative)  # of no package's doing
    others = [f.metric for f in compared.findings if f.verdict == "regressed"]
    also = [f"also {', '.join(others)}"] if others else []
    return msgspec.structs.replace(
        compared,
        verdict="regressed",
        message="; ".join([convicted.message, NOT_THE_PACKAGES, f"old and new environment: {beside.message}", *also]),
        findings=(convicted, *compared.findings),
        attribution=reasons,
        packages_cleared=True,
    )


def _slower_by(findings: Sequence[Finding]) -> Finding | None:
    """The finding that the time regressed, if it did."""
    return next((f for f in findings if f.metric in ("latency", "speed-up") and f.verdict == "regressed"), None)


def _baseline(trial: Trial, hardware: Hardware) -> Baseline | None:
    """The old environment's measurements in the form of a baseline."""
    runs = _runs(trial.old)
    if not runs:
        return None
    policy = trial.policy
    environment = trial.environments["old"]
    return baseline_of(trial.old[0], runs, hardware=hardware, environment=environment, tau0=policy.tau0, nu0=policy.nu0)


def _runs(results: Sequence[Result]) -> tuple[Run, ...]:
    """One run a process; scores, which the first process alone has, hold for all (the same seed is bit-identical)."""
    runs = [result.run for result in results if result.run is not None]
    return tuple(
        msgspec.structs.replace(
            run,
            samples=tuple(
                msgspec.structs.replace(
                    sample, score=known.score, picture=known.picture, reference_picture=known.reference_picture
                )
                for sample, known in zip(run.samples, runs[0].samples, strict=True)
            ),
        )
        for run in runs
    )


def _joined(results: Sequence[Result]) -> Measurement:
    """The blocks' measurements as one."""
    joined = join([result.measurement for result in results], fresh=True)
    if joined.kernels is None:
        return joined
    # traces of both sides are the comparison's
    return msgspec.structs.replace(joined, kernels=msgspec.structs.replace(joined.kernels, traces=()))


def _traces(result: Result) -> list[str]:
    """Where the conductor keeps a result's traces, relative to its folder."""
    table = result.measurement.kernels
    if table is None or result.run is None:
        return []
    return [str(trace_folder(result.run.session) / PurePath(trace).relative_to(TRACES)) for trace in table.traces]


def _troubled(trial: Trial, trouble: Trouble, measurement: Measurement, baseline: Baseline | None) -> Judgement:
    """The verdict on what could not be compared; what is broken says what differs from the old environment."""
    differs: tuple[str, ...] = ()
    environment = trial.environments.get("new")
    if trouble.verdict == "broken" and trial.new and baseline is not None and environment is not None:
        differs = attribute_broken(measurement, baseline, environment)
    return Judgement(
        verdict=trouble.verdict,
        message=trouble.message,
        attribution=differs,
        gated=trouble.verdict not in ("no baseline", "inconclusive"),
    )


def _drift(trial: Trial, folder: Path, metrics: Sequence[str]) -> Quality | None:
    """The new environment's reference pictures (a body without our pipeline: its own) against the old one's."""
    old, new = trial.old[0], trial.new[0]
    before, after = _pictures(old), _pictures(new)
    if not before or len(before) != len(after):
        return None
    by_floors = old.reference == BASELINE and trial.policy.floored
    if [p.sha256 for p in before] == [p.sha256 for p in after] and not by_floors:
        return None
    return compare(after, before, BASELINE, Metrics(metrics, "cpu"), folder)


def _pictures(result: Result) -> tuple[Picture, ...]:
    if (compared := result.scores.reference) is not None:
        return compared.references
    if result.reference != BASELINE:
        return ()
    made = result.measurement.generations[: len(result.workload.prompts)]
    return tuple(g.picture for g in made if g.picture is not None)
