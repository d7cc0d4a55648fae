"""What is known of a test beside its times: the work of a generation, and what the transformer answers to fixed inputs.

Both are taken after the timed generations, in calls of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from pytest_fluxperf.bench.session import Session
from pytest_fluxperf.errors import FluxPerfError, one_line
from pytest_fluxperf.machine import telemetry
from pytest_fluxperf.measure.inputs import GenerationInputs
from pytest_fluxperf.results import Fidelity, Ledger, Prompt, Workload


def ledger_of(
    call: Callable[[], Any], inputs: GenerationInputs, prompt: Prompt, prepared: Any, session: Session
) -> tuple[Ledger | None, str | None]:
    """The work of one more generation of ``prompt``, or None and why it was not counted.

    The recipe must have generated before. Device lock and turns are the caller's.
    """
    from pytest_fluxperf.measure.work import count

    if prepared is None:
        return None, "not counted: the body has a pipeline of its own; wall time alone is known of it"
    inputs.load(prompt)
    prepared.begin()
    began = time.time()
    try:
        ledger = count(call, prepared.pipe, session.device, lambda: prepared.steps.decisions)
    except Exception as error:  # the generations that were timed are none the worse for it
        return None, f"not counted: {one_line(error)}"
    if ledger is None:
        return None, "not counted: another profiler runs"
    load = telemetry.during(session.gpu.uuid, began, time.time())
    return msgspec.structs.replace(ledger, sm_clock_mhz=None if load is None else load.sm_clock_mhz), None


@dataclass(frozen=True)
class ReferenceAnswers:
    """What the reference recipe's transformer answers to fixed inputs."""

    recipe: str
    inputs: Any
    answers: list[Any]
    moved: list[Any]
    """Its answers to inputs that were moved by one rounding of its dtype."""
    lossless_in: str | None
    """Its dtype if nothing but rounding may lie between it and a lossless recipe in that dtype."""


def reference_answers(
    session: Session, workload: Workload, recipe: str, *, max_sequence_length: int, replica: int
) -> ReferenceAnswers | None:
    """The answers of reference recipe ``recipe``, taken once a session; None where its pipeline takes no fixed inputs.

    Raises what preparing the recipe raises. The pipeline is parked unless the session times it beside its tests.
    """
    from pytest_fluxperf.pipelines import probe

    key = (recipe, workload.model, workload.height, workload.width, workload.guidance, workload.prompts[0].text)
    if key not in session.answers:
        prepared = session.acquire(recipe, workload, replica)
        try:
            session.answers[key] = None
            if probe.cannot_probe(prepared.pipe) is None:
                pipe = prepared.pipe
                inputs = probe.probe_inputs(
                    pipe,
                    workload.prompts[0].text,
                    height=workload.height,
                    width=workload.width,
                    guidance=workload.guidance,
                    max_sequence_length=max_sequence_length,
                )
                moved = inputs.perturb(pipe.transformer.dtype)
                session.answers[key] = ReferenceAnswers(
                    recipe,
                    inputs,
                    probe.answers(pipe, inputs, prepared.begin),
                    probe.answers(pipe, moved, prepared.begin),
                    prepared.dtype if prepared.lossless else None,
                )
        finally:
            if not session.paired:
                prepared.park()
    found: ReferenceAnswers | None = session.answers[key]
    return found


def fidelity_of(prepared: Any, expected: ReferenceAnswers) -> Fidelity:
    """How ``prepared``'s transformer answers against the reference recipe's; call it when its problems are known.

    Raises :class:`FluxPerfError` for an answer that is not finite or cannot be had.
    """
    from pytest_fluxperf.pipelines import probe
    from pytest_fluxperf.quality.fidelity import fidelity

    try:
        answers = probe.answers(prepared.pipe, expected.inputs, prepared.begin)
    except Exception as error:
        raise FluxPerfError(f"the transformer cannot answer fixed inputs: {one_line(error)}") from error
    return fidelity(
        answers,
        expected.answers,
        expected.moved,
        sigmas=probe.SIGMAS,
        reference=expected.recipe,
        lossless=prepared.lossless and prepared.dtype == expected.lossless_in,
    )
