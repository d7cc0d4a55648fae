"""How far two transformers' answers to the same inputs lie apart: a quality that shows before any picture is made.

A wrong scale, a corrupt attention kernel or a block left out moves an answer by far more than rounding does, on random
weights too. What rounding does is measured and not assumed: the reference recipe answers once more to inputs that were
moved by one rounding of its dtype.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.results import Answer, Fidelity

Array = np.ndarray[Any, np.dtype[np.float32]]

SKETCH = 32
"""Numbers of a sketch: the estimate of a distance has a relative standard error of 1/√64, an eighth."""

_SEED = 7


def fidelity(
    answers: Sequence[Array],
    references: Sequence[Array],
    moved: Sequence[Array],
    *,
    sigmas: Sequence[float],
    reference: str,
    lossless: bool,
) -> Fidelity:
    """Compare flat float32 answers with the reference recipe's, one for each of ``sigmas``.

    ``moved`` are the reference's answers to inputs that were moved by one rounding. Raises :class:`FluxPerfError` for
    an answer that is not finite, or of another size than the reference's.
    """
    found = []
    for sigma, answer, expected, rounded in zip(sigmas, answers, references, moved, strict=True):
        if answer.shape != expected.shape:
            raise FluxPerfError(
                f"the transformer answers {answer.size} numbers, the reference recipe's {expected.size}"
            )
        if bad := int((~np.isfinite(answer)).sum()):
            raise FluxPerfError(f"the transformer's answer to fixed inputs has {bad} NaN or infinite values")
        found.append(
            Answer(
                sigma=sigma,
                error=_error(answer, expected),
                cosine=_cosine(answer, expected),
                rounding=_error(rounded, expected),
                sketch=tuple(float(value) for value in _sketch(answer)),
                digest=hashlib.sha256(answer.tobytes()).hexdigest()[:16],
            )
        )
    return Fidelity(reference=reference, lossless=lossless, answers=tuple(found))


def distance(now: Fidelity, before: Fidelity) -> float | None:
    """Largest relative L2 distance of two stored recipes' answers, estimated from their sketches: 0 where they are
    bit-identical, None where they cannot be compared."""
    pairs = list(zip(now.answers, before.answers, strict=False))
    sizes = {len(a.sketch) for pair in pairs for a in pair}
    if not pairs or len(now.answers) != len(before.answers) or len(sizes) != 1 or 0 in sizes:
        return None
    if identical(now, before):
        return 0.0
    return max(_error(np.array(a.sketch), np.array(b.sketch)) for a, b in pairs)


def identical(now: Fidelity, before: Fidelity) -> bool:
    """Whether both answered bit by bit the same."""
    digests = [[answer.digest for answer in one.answers] for one in (now, before)]
    return bool(digests[0]) and digests[0] == digests[1] and all(digests[0])


def _error(answer: Any, expected: Any) -> float:
    norm = float(np.linalg.norm(expected.astype(np.float64)))
    apart = float(np.linalg.norm(answer.astype(np.float64) - expected))
    if norm:
        return apart / norm
    return 0.0 if apart == 0 else math.inf


def _cosine(answer: Array, expected: Array) -> float:
    a, b = answer.astype(np.float64), expected.astype(np.float64)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else 1.0


def _sketch(answer: Array) -> Any:
    """A count sketch (Charikar, Chen and Farach-Colton 2002): every number, with a sign, goes into one of the sums.

    The squared length of a difference of sketches is that of the vectors' in expectation.
    """
    draw = np.random.RandomState(_SEED)  # the one generator of numpy whose numbers never change
    places = draw.randint(0, SKETCH, answer.size)
    signs = 2.0 * draw.randint(0, 2, answer.size) - 1
    return np.bincount(places, weights=signs * answer, minlength=SKETCH)
