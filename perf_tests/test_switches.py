"""Switches that every recipe can have besides: fused projections, and how the VAE decodes."""

from __future__ import annotations

import pytest

pytestmark = [
    pytest.mark.not_on_cpu(reason="what switches change is less than the noise of a CPU"),
    pytest.mark.extra,
]
SWITCHES = ["bf16+fuseqkv", "bf16+channels_last", "bf16+vae_tiling:512"]


@pytest.mark.fluxperf
@pytest.mark.parametrize("flux", SWITCHES, indirect=True)
def test_switch(flux, flux_inputs):
    return flux(**flux_inputs).images


@pytest.mark.fluxperf(reference="none")
@pytest.mark.parametrize("flux", ["bf16+vae_slicing"], indirect=True)
def test_two_pictures_at_once(flux, flux_inputs):
    return flux(**flux_inputs, num_images_per_prompt=2).images
