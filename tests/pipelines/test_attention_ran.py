"""An attention back end that was asked for, is set, and did not run."""

from __future__ import annotations

import pytest

from pytest_fluxperf.pipelines.optimizations.attention import contradiction


@pytest.mark.parametrize(
    ("asked", "ran", "said"),
    [
        ("_native_cudnn", ["math"], "attention back end _native_cudnn was asked for and is set, but math ran"),
        ("_native_flash", ["efficient", "math"], "but efficient, math ran"),
        ("_native_flash", ["flash"], None),
        ("_native_flash", ["flash", "math"], None),  # an adapter's own attention, beside the blocks'
        ("flash_4_hub", ["cudnn"], "attention back end flash_4_hub was asked for and is set, but cudnn ran"),
        ("flash_4_hub", [], None),  # its kernels are no operators of torch
        ("_native_math", [], None),  # taken apart by a compiler
        ("native", ["math"], None),  # torch chooses
        (None, ["math"], None),
    ],
)
def test_contradictions(asked, ran, said):
    found = contradiction(asked, ran)
    assert (found is None) if said is None else said in found
