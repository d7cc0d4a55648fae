"""Step caches: First-Block Cache, TeaCache, FORA at the published thresholds."""

from __future__ import annotations

import pytest

PUBLISHED = pytest.mark.not_on_cpu(reason="one setting of each cache is enough to test the gate on a CPU")

FBCACHE = ["fbcache:0.3", *(pytest.param(f"fbcache:{t}", marks=PUBLISHED) for t in (0.15, 0.2, 0.35, 0.4))]
TEACACHE = ["teacache:0.6", *(pytest.param(f"teacache:{t}", marks=PUBLISHED) for t in (0.2, 0.4))]
FORA = ["fora:start=2,interval=2", pytest.param("fora:start=2,interval=3", marks=PUBLISHED)]


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
