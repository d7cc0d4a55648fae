"""An error knows what it is about in fields, and renders them in one place."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

from pytest_fluxperf.errors import FluxPerfError, OutOfMemory, Unavailable


def test_the_message_says_where_what_and_what_to_do() -> None:
    error = FluxPerfError(
        "is damaged", test="a.py::test", recipe="bf16", file=Path("b.json"), place="$.runs[0]", remedy="delete it"
    )

    assert str(error) == "a.py::test: recipe bf16: b.json: $.runs[0]: is damaged; delete it"
    assert (error.problem, error.remedy, error.where.test) == ("is damaged", "delete it", "a.py::test")


def test_an_error_of_a_reference_says_so() -> None:
    error = FluxPerfError("is of no use", recipe="bf16").at(recipe="", reference="bf16")

    assert str(error) == "reference recipe bf16: is of no use"


def test_what_is_set_twice_is_said_once_and_the_kind_stays() -> None:
    error = Unavailable("needs CUDA", recipe="bf16+fa3")

    assert error.at(test="t").at(test="t") is error
    assert str(error) == "t: recipe bf16+fa3: needs CUDA"


def test_a_reader_who_knows_the_test_is_not_told_again() -> None:
    error = OutOfMemory("it needed 2 GiB more", test="a: recipe b", recipe="bf16", remedy="take less")

    assert error.without("test") == "recipe bf16: it needed 2 GiB more; take less"
    assert error.without("test", "recipe") == "it needed 2 GiB more; take less"
    assert str(error).startswith("a: recipe b: ")


def test_an_unknown_field_is_a_fault_of_the_caller() -> None:
    with pytest.raises(TypeError):
        FluxPerfError("x", tests="t")


def test_it_survives_a_copy_to_another_process() -> None:
    error = FluxPerfError("is damaged", test="t", remedy="delete it")

    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert str(twin) == "t: is damaged; delete it"
        assert twin.where == error.where
