"""Step caches: First-Block Cache, TeaCache, FORA at the published thresholds."""

from __future__ import annotations

import pytest

FBCACHE = [f"fbcache:{threshold}" for threshold in (0.15, 0.2, 0.3, 0.35, 0.4)]
TEACACHE = [f"teacache:{threshold}" for threshold in (0.2, 0.4, 0.6)]
FORA = ["fora:start=2,interval=2", "fora:start=2,interval=3"]


@pytest.mark.fluxperf
@pytest.mark.parametrize("flux", FBCACHE, indirect=True)
def test_first_block_cache(flux, flux_inputs):
    return flux(**flux_inputs).images


@pytest.mark.fluxperf
@pytest.mark.parametrize("flux", TEACACHE, indirect=True)
def test_teacache(flux, flux_inputs):
    return flux(**flux_inputs).images


@pytest.mark.fluxperf
@pytest.mark.parametrize("flux", FORA, indirect=True)
def test_fora(flux, flux_inputs):
    return flux(**flux_inputs).images
