"""Answers to fixed inputs: errors by hand, sketches that keep distances, and the pipelines that give them."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.quality.fidelity import distance, fidelity, identical
from pytest_fluxperf.results import Fidelity

DRAW = np.random.default_rng(0)
REFERENCE = DRAW.standard_normal(20_000).astype(np.float32)


def of(answer, expected=REFERENCE, moved=None):
    moved = expected if moved is None else moved
    return fidelity([answer], [expected], [moved], sigmas=[0.5], reference="fp32", lossless=True)


def test_error_cosine_and_rounding_by_hand():
    a = np.array([3.0, 4.0], np.float32)
    (answer,) = of(np.array([3.0, 3.0], np.float32), a, np.array([3.0, 4.5], np.float32)).answers
    assert answer.error == pytest.approx(1 / 5)
    assert answer.cosine == pytest.approx(21 / (5 * 18**0.5))
    assert answer.rounding == pytest.approx(0.1)
    (same,) = of(a, a).answers
    assert (same.error, same.cosine) == (0, pytest.approx(1))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_answer_that_is_not_finite_is_broken(bad):
    answer = REFERENCE.copy()
    answer[7] = bad
    with pytest.raises(FluxPerfError, match="1 NaN or infinite"):
        of(answer)


def test_an_answer_of_another_size_is_broken():
    with pytest.raises(FluxPerfError, match="answers 2 numbers, the reference recipe's 20000"):
        of(REFERENCE[:2])


@pytest.mark.parametrize("apart", [1e-3, 0.05, 0.7])
def test_sketches_tell_how_far_two_answers_lie_apart(apart):
    other = REFERENCE + apart * DRAW.standard_normal(REFERENCE.size).astype(np.float32)
    assert distance(of(other), of(REFERENCE)) == pytest.approx(apart, rel=0.5)


def test_bit_identical_answers_are_told_from_nearly_identical_ones():
    other = REFERENCE.copy()
    other[0] = np.nextafter(other[0], np.float32(9))
    assert identical(of(REFERENCE), of(REFERENCE.copy()))
    assert distance(of(REFERENCE), of(REFERENCE)) == 0
    assert not identical(of(other), of(REFERENCE))


def test_a_fidelity_is_a_record_of_a_few_hundred_bytes():
    text = msgspec.json.encode(of(REFERENCE))
    assert msgspec.json.decode(text, type=Fidelity) == of(REFERENCE)
    assert len(text) < 1000
