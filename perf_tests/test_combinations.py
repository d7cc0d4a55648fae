"""Optimizations together."""

from __future__ import annotations

import pytest

COMBINATIONS = ["compile+fbcache:0.3", "int8wo+fbcache:0.3"]


@pytest.mark.fluxperf
@pytest.mark.parametrize("flux", COMBINATIONS, indirect=True)
def test_combination(flux, flux_inputs):
    return flux(**flux_inputs).images
