"""Step caches: First-Block Cache, TeaCache, FORA at the published thresholds, and those of diffusers and cache-dit."""

from __future__ import annotations

import pytest

GPU = pytest.mark.not_on_cpu(reason="one setting of each published cache is enough to test the gate on a CPU")
EXTRA = pytest.mark.extra


def thresholds(cache, *values):
    return [pytest.param(f"{cache}:{value}", marks=pytest.mark.threshold) for value in values]


FBCACHE = ["fbcache:0.3", *thresholds("fbcache", 0.15, 0.2, 0.35, 0.4)]
ENGINES = [pytest.param(f"fbcache:0.3,engine={engine}", marks=GPU) for engine in ("para-attn", "cache-dit")]
TEACACHE = ["teacache:0.6", *thresholds("teacache", 0.2, 0.4)]
FORA = ["fora:start=2,interval=2", pytest.param("fora:start=2,interval=3", marks=(GPU, EXTRA))]
OTHERS = [
    "taylorseer:lite",
    "magcache",
    "dbcache:0.08",
    *(pytest.param(cache, marks=EXTRA) for cache in ("taylorseer", "pab", "fastercache")),
]


@pytest.mark.fluxperf
@pytest.mark.parametrize("flux", FBCACHE + ENGINES, indirect=True)
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


@GPU
@pytest.mark.fluxperf
@pytest.mark.parametrize("flux", OTHERS, indirect=True)
def test_other_caches(flux, flux_inputs):
    return flux(**flux_inputs).images
