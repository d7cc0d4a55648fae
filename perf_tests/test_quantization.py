"""Weights and activations in 8 bits, by torchao."""

from __future__ import annotations

import pytest


@pytest.mark.fluxperf
@pytest.mark.parametrize("flux", ["int8wo"], indirect=True)
def test_quantization(flux, flux_inputs):
    return flux(**flux_inputs).images
