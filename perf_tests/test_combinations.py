"""Optimizations together: the published combinations, the best we know, and the setting of 50 small pictures."""

from __future__ import annotations

import pytest

GPU = pytest.mark.not_on_cpu(reason="two combinations are enough to test the gate on a CPU")
EXTRA = pytest.mark.extra
COMBINATIONS = ["compile+fbcache:0.3", pytest.param("int8wo+fbcache:0.3", marks=EXTRA)]
PUBLISHED = [
    pytest.param("bf16+fa2+teacache:0.6", marks=GPU),
    pytest.param("bf16+fa2+teacache:0.6+fp8wo", marks=(GPU, EXTRA)),
    pytest.param("bf16+fa2+teacache:0.6+int8wo", marks=(GPU, EXTRA)),
    pytest.param("bf16+fa2+fbcache:0.3", marks=GPU),
    pytest.param("bf16+fa2+fbcache:0.3+fp8wo", marks=GPU),
    pytest.param("bf16+fa2+fbcache:0.3+int8wo", marks=GPU),
]
COMPILED = ["bf16+cudnn+fp8+compile", "bf16+cudnn+int8+compile", "bf16+cudnn+fp8+compile+teacache:0.6"]
FASTEST = ["fastest_lossless", "fastest"]
SCHEDULES = [  # two hit rates of each dense recipe, by which the cost model is checked (fluxperf cost)
    f"{dense}+fbcache:0.3,computed={computed}" for dense in ("bf16", "bf16+cudnn+fp8+compile") for computed in (4, 14)
]
SMALL = ["bf16", "bf16+compile", "bf16+fora", "bf16+compile+fora"]


@pytest.mark.fluxperf
@pytest.mark.parametrize(
    "flux",
    [*COMBINATIONS, *PUBLISHED, *(pytest.param(recipe, marks=GPU) for recipe in COMPILED + FASTEST + SCHEDULES)],
    indirect=True,
)
def test_combination(flux, flux_inputs):
    return flux(**flux_inputs).images


@GPU
@pytest.mark.prompts50
@pytest.mark.fluxperf(size=512, steps=28, prompts="extended")
@pytest.mark.parametrize("flux", SMALL, indirect=True)
def test_fifty_small_pictures(flux, flux_inputs):
    return flux(**flux_inputs).images
