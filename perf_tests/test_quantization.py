"""Weights, or weights and activations, in fewer bits, by torchao."""

from __future__ import annotations

import pytest

GPU = pytest.mark.not_on_cpu(reason="one quantization is enough to test the gate on a CPU")
EXTRA = pytest.mark.extra
WEIGHTS = [
    "int8wo",
    pytest.param("bf16+fp8wo", marks=GPU),
    pytest.param("bf16+int4wo", marks=(GPU, EXTRA)),
]
# Uncompiled, the device waits for the host a third of the time: one session is not like another (docs/measured.md).
NOISY = pytest.mark.fluxperf(max_slowdown=0.25)
DYNAMIC = [  # quick only where compiled: see test_combinations.py
    pytest.param("bf16+fp8", marks=NOISY),
    *(pytest.param(recipe, marks=(NOISY, EXTRA)) for recipe in ("bf16+fp8:tensor", "bf16+int8")),
]


@pytest.mark.fluxperf
@pytest.mark.parametrize("flux", WEIGHTS, indirect=True)
def test_quantization(flux, flux_inputs):
    return flux(**flux_inputs).images


@GPU
@pytest.mark.fluxperf
@pytest.mark.parametrize("flux", DYNAMIC, indirect=True)
def test_dynamic_quantization(flux, flux_inputs):
    return flux(**flux_inputs).images
