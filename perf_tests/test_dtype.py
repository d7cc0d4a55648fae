"""Floating-point formats, with no other optimization."""

from __future__ import annotations

import pytest

EMULATED = pytest.mark.not_on_cpu(reason="16-bit arithmetic is emulated on a CPU, some 50 times slower")
FP32 = pytest.param("fp32", marks=pytest.mark.long)  # some seven times as long as bf16 on a GPU
HALF = [pytest.param(dtype, marks=EMULATED) for dtype in ("bf16", "fp16")]


@pytest.mark.fluxperf
@pytest.mark.parametrize("flux", [FP32, *HALF], indirect=True)
def test_dtype(flux, flux_inputs):
    return flux(**flux_inputs).images
