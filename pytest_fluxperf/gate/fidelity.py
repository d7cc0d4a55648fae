"""Is the transformer still as true to the reference recipe's? Judged on its answers to fixed inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pytest_fluxperf.quality.fidelity import distance
from pytest_fluxperf.results import Answer, Fidelity, Finding

LOSSLESS_ROUNDINGS = 3.0
"""Times the error that one rounding of the inputs makes which a lossless recipe may show. The embedded model's lossless
recipes show 0 to 1.0 of it (compile 0.73 to 0.94, flex attention 0.62 to 0.98, fused projections and channels_last 0;
fp32 and bf16); int8 weights in fp32 20,000."""

ERROR_GROWTH = 0.25
"""Growth of the error of a recipe that is not lossless that is still no regression."""

ROUNDINGS = 1.5
"""Roundings that come and go with the kernels that are chosen; errors that do not know of each other add as squares."""

LEAST_ERROR = 1e-9
"""Beyond fp32's precision: no limit is stricter."""


def fidelity(now: Fidelity | None, stored: Sequence[Fidelity | None]) -> Iterator[Finding]:
    """Judge a recipe's answers: a lossless one against its dtype's rounding, another against its baseline's runs.

    Nothing is judged where the answers were not compared; a lossless recipe needs no baseline.
    """
    if now is None:
        return
    known = [one for one in stored if one is not None and _same_inputs(one, now)]
    limits = [_limit(now, i, known) for i in range(len(now.answers))]
    judged = [
        (answer.error / limit if answer.error else 0.0, answer, limit, i)
        for i, (answer, limit) in enumerate(zip(now.answers, limits, strict=True))
        if limit is not None
    ]
    if not judged:
        return
    share, answer, limit, index = max(judged, key=lambda found: found[0])
    before = _worst_error(known, index)
    yield Finding(
        metric="fidelity",
        verdict="regressed" if share > 1 else "passed",
        baseline=before,
        now=answer.error,
        change=None if before is None else answer.error - before,
        tolerance=limit,
        n=len(now.answers),
        message=_message(now, answer, limit, before) + _moved(now, known),
    )


def _same_inputs(one: Fidelity, now: Fidelity) -> bool:
    return one.reference == now.reference and [a.sigma for a in one.answers] == [a.sigma for a in now.answers]


def _limit(now: Fidelity, index: int, known: Sequence[Fidelity]) -> float | None:
    """Largest error of answer ``index`` that is none of a regression; None where nothing tells."""
    rounding = now.answers[index].rounding
    if now.lossless:
        return max(LEAST_ERROR, LOSSLESS_ROUNDINGS * rounding)
    before = _worst_error(known, index)
    if before is None:
        return None
    return max(LEAST_ERROR, math.hypot((1 + ERROR_GROWTH) * before, ROUNDINGS * rounding))


def _worst_error(known: Sequence[Fidelity], index: int) -> float | None:
    return max((one.answers[index].error for one in known), default=None)


def _message(now: Fidelity, answer: Answer, limit: float, before: float | None) -> str:
    rule = f"{LOSSLESS_ROUNDINGS:g} roundings of its dtype" if now.lossless else "the baseline's error and rounding"
    old = "" if before is None else f"{before:.2e} → "
    return (
        f"the transformer's answer differs from {now.reference}'s by {old}{answer.error:.2e} at σ {answer.sigma:g} "
        f"(relative L2, limit {limit:.2e}: {rule}; cosine {answer.cosine:.6f})"
    )


def _moved(now: Fidelity, known: Sequence[Fidelity]) -> str:
    """How far the answers lie from those that the baseline's last run stored."""
    apart = distance(now, known[-1]) if known else None
    if apart is None:
        return ""
    return "; bit-identical to the baseline's own" if apart == 0 else f"; {apart:.1e} from the baseline's own"
