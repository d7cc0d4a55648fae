"""A test's case, made of what was asked for and where it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_fluxperf.bench.session import Session
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.case import Case
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.gate.statistics import PASS_CONFIDENCE_AB
from pytest_fluxperf.measure.inputs import GenerationInputs
from pytest_fluxperf.results import BASELINE, NONE, Workload
from pytest_fluxperf.settings import ItemSettings

_METRICS = {"min_ssim": "ssim", "min_psnr": "psnr", "max_lpips": "lpips"}
"""Tolerances that are bounds of single pictures, and the metric that each is one of."""

_RECORDED = (*_METRICS, "quality_tolerance", "max_memory_growth")
"""What a later comparison of sessions has to know of a test's settings, beside the tolerance of its latency."""

Progress = Callable[[str, int, int, float | None], None]
"""Told of a stage how much of how many is done, and the median latency so far in seconds where there is one."""


def silent(stage: str, done: int, total: int, p50_s: float | None) -> None:
    """Progress that nobody sees."""


def case_of(session: Session, test: str, settings: ItemSettings, recipe: str | None) -> Case:
    """The case of a test under a canonical recipe; raises :class:`FluxPerfError` for what cannot be."""
    return Case(
        test=test,
        recipe=recipe,
        reference=_reference(session, settings, recipe),
        workload=session.workload(settings),
        hardware=session.hardware,
        card=session.gpu.uuid,
        policy=_policy(session, settings),
        settings=settings,
    )


def check_bounds(case: Case, metrics: tuple[str, ...]) -> None:
    """Raise :class:`FluxPerfError` for a bound of what nobody will measure."""
    for bound, metric in _METRICS.items():
        if getattr(case.settings, bound) is None:
            continue
        if metric not in metrics:
            raise FluxPerfError(f"{bound} needs the metric {metric}, which --fluxperf-metrics leaves out")
        if case.reference == NONE:
            raise FluxPerfError(f"{bound} needs pictures to compare with, and reference is none")


def recorded_bounds(case: Case) -> dict[str, float]:
    """The bounds that the test was given, by name."""
    return {name: bound for name in _RECORDED if (bound := getattr(case.settings, name)) is not None}


def inputs_for(session: Session, workload: Workload) -> GenerationInputs:
    """The keyword arguments of a generation, with what the model asks for besides."""
    extra: dict[str, Any] = {"max_sequence_length": session.info.defaults.max_sequence_length}
    return GenerationInputs(workload, extra)


def is_noise(session: Session, case: Case) -> bool:
    """Whether the pictures are noise of our own pipeline's random weights."""
    return session.random and case.recipe is not None


def _reference(session: Session, settings: ItemSettings, recipe: str | None) -> str:
    asked = settings.reference
    if asked in (NONE, BASELINE):
        return str(asked)
    if asked is None and recipe is None:
        return BASELINE
    return session.recipe(asked, settings.steps)


def _policy(session: Session, settings: ItemSettings) -> Policy:
    return Policy.of(
        "relative" if session.relative else "absolute",
        cpu=session.hardware.kind == "cpu",
        max_slowdown=settings.max_slowdown,
        max_memory_growth=settings.max_memory_growth,
        min_ssim=settings.min_ssim,
        min_psnr=settings.min_psnr,
        max_lpips=settings.max_lpips,
        quality_tolerance=settings.quality_tolerance,
        strict=session.settings.strict,
        pass_confidence=PASS_CONFIDENCE_AB if session.settings.old_python else None,
        m=max(1, session.configurations),
    )
