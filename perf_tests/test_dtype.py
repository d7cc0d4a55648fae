"""Floating-point formats, with no other optimization."""

from __future__ import annotations

import pytest

DTYPES = ["fp32", *(pytest.param(dtype, marks=pytest.mark.sixteen_bit) for dtype in ("bf16", "fp16"))]


@pytest.mark.fluxperf
@pytest.mark.parametrize("flux", DTYPES, indirect=True)
def test_dtype(flux, flux_inputs):
    return flux(**flux_inputs).images
