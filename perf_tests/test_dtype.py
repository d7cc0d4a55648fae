"""Floating-point formats, with no other optimization."""

from __future__ import annotations

import pytest


@pytest.mark.fluxperf
@pytest.mark.parametrize("flux", ["fp32", "bf16", "fp16"], indirect=True)
def test_dtype(flux, flux_inputs):
    return flux(**flux_inputs).images
