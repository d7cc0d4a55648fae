"""Floating-point formats, with no other optimization."""

from __future__ import annotations

import pytest

EMULATED = pytest.mark.not_on_cpu(reason="16-bit arithmetic is emulated on a CPU, some 50 times slower")
DTYPES = ["fp32", *(pytest.param(dtype, marks=EMULATED) for dtype in ("bf16", "fp16"))]


@pytest.mark.fluxperf
@pytest.mark.parametrize("flux", DTYPES, indirect=True)
def test_dtype(flux, flux_inputs):
    return flux(**flux_inputs).images
