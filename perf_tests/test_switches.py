"""Switches that every recipe can have besides: fused projections, and how the VAE decodes."""

from __future__ import annotations

import pytest

pytestmark = [
    pytest.mark.not_on_cpu(reason="what switches change is less than the noise of a CPU"),
    pytest.mark.extra,
]
SWITCHES = ["bf16+fuseqkv", "bf16+channels_last", "bf16+vae_tiling", "bf16+vae_slicing"]


@pytest.mark.fluxperf
@pytest.mark.parametrize("flux", SWITCHES, indirect=True)
def test_switch(flux, flux_inputs):
    return flux(**flux_inputs).images
