"""What one measured run of a test leaves for a baseline."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence

import msgspec

from pytest_fluxperf.baseline.codec import BASELINE_FORMAT
from pytest_fluxperf.results import (
    Baseline,
    Environment,
    Generation,
    Hardware,
    Measurement,
    PictureScores,
    Quality,
    Result,
    Run,
    Sample,
    Similarity,
)


def record(
    measurement: Measurement,
    scores: PictureScores,
    *,
    session: str,
    environment: Environment,
    time_utc: str,
    gpu_uuid: str | None = None,
    prompts: int | None = None,
) -> Run | None:
    """The measurement in the form a baseline keeps, or None when it may not become one (broken or invalid).

    The reference recipe's pictures are kept, for drift; the test's own where it made none.
    Where the measurement went through its ``prompts`` several times, each prompt keeps its median generation.
    """
    if measurement.problems or measurement.unfit or measurement.recompiles or not measurement.generations:
        return None
    return Run(
        session=session,
        process=os.getpid(),
        time_utc=time_utc,
        environment=environment.digest,
        gpu_uuid=gpu_uuid,
        samples=_samples(measurement, scores.reference, prompts),
        peak_memory_mib=measurement.peak_memory_mib,
        facts={"graph_breaks": measurement.graph_breaks, **measurement.facts},
        sm_clock_mhz=None if measurement.telemetry is None else measurement.telemetry.sm_clock_mhz,
        device_busy=busy_share(measurement),
        # traces stay with the report of their run
        kernels=None if measurement.kernels is None else msgspec.structs.replace(measurement.kernels, traces=()),
        ledger=measurement.ledger,
        fidelity=measurement.fidelity,
        host_s=host_pace(measurement),
    )


def _samples(measurement: Measurement, quality: Quality | None, prompts: int | None) -> tuple[Sample, ...]:
    return tuple(
        Sample(
            latency_s=made.latency_s,
            wall_s=made.wall_s,
            reference_latency_s=made.reference_latency_s,
            text_encode_s=made.text_encode_s,
            denoise_s=made.denoise_s,
            decode_s=made.decode_s,
            decisions=made.decisions,
            score=quality.scores[i] if quality and i < len(quality.scores) else Similarity(),
            own={name: metric.values[i] for name, metric in quality.own.items()} if quality else {},
            picture=made.picture.sha256 if quality is None and made.picture is not None else None,
            reference_picture=quality.references[i].sha256 if quality and i < len(quality.references) else None,
        )
        for i, made in enumerate(_median_round(measurement.generations, prompts))
    )


def host_pace(measurement: Measurement) -> float | None:
    """Median seconds of the fixed piece of work beside the generations; None where it was not timed."""
    seconds = [made.host_s for made in measurement.generations if made.host_s is not None]
    return statistics.median(seconds) if seconds else None


def baseline_of(
    result: Result, runs: Sequence[Run], *, hardware: Hardware, environment: Environment, tau0: float, nu0: float
) -> Baseline:
    """A baseline of the test of ``result`` that holds ``runs``, all measured in one environment."""
    return Baseline(
        format=BASELINE_FORMAT,
        test=result.test,
        recipe=result.recipe,
        reference=result.reference,
        hardware=hardware,
        workload=result.workload,
        environments={run.environment: environment for run in runs},
        runs=tuple(runs),
        tau0=tau0,
        nu0=nu0,
    )


def busy_share(measurement: Measurement) -> float | None:
    """Share of a generation in which the GPU computed: the driver's samples, else the profile; None if unknown."""
    shares = [g.device_busy_s / g.wall_s for g in measurement.generations if g.device_busy_s is not None]
    if shares:
        return statistics.median(shares)
    table = measurement.kernels
    if table is None or table.device != "cuda" or not table.latency_s:
        return None
    return min(1.0, table.busy_s / table.latency_s)


def _median_round(made: tuple[Generation, ...], prompts: int | None) -> tuple[Generation, ...]:
    """Of each prompt the generation whose time (over the reference's, where known) is the lower median."""
    if prompts is None or len(made) <= prompts:
        return made
    chosen = []
    for i in range(prompts):
        repeats = sorted(made[i::prompts], key=lambda g: g.latency_s / (g.reference_latency_s or 1.0))
        chosen.append(repeats[(len(repeats) - 1) // 2])
    return tuple(chosen)
