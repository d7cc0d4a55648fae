"""Optimizations together: the published combinations, the best we know, and the setting of 50 small pictures."""

from __future__ import annotations

import pytest

GPU = pytest.mark.not_on_cpu(reason="two combinations are enough to test the gate on a CPU")
EXTRA = pytest.mark.extra
THRESHOLD = pytest.mark.threshold
COMBINATIONS = ["compile+fbcache:0.3", pytest.param("int8wo+fbcache:0.3", marks=EXTRA)]
PUBLISHED = [
    pytest.param("bf16+fa2+teacache:0.6", marks=GPU),
    pytest.param("bf16+fa2+teacache:0.6+fp8wo", marks=(GPU, THRESHOLD)),
    pytest.param("bf16+fa2+teacache:0.6+int8wo", marks=(GPU, THRESHOLD)),
    pytest.param("bf16+fa2+fbcache:0.2", marks=(GPU, THRESHOLD)),
    pytest.param("bf16+fa2+fbcache:0.3", marks=GPU),
    pytest.param("bf16+fa2+fbcache:0.3+fp8wo", marks=GPU),
    pytest.param("bf16+fa2+fbcache:0.3+int8wo", marks=GPU),
    pytest.param("bf16+fa3+compile", marks=GPU),
]
FP8 = "bf16+cudnn+fp8+compile"
DEVICE_BOUND = [FP8, f"{FP8}:tuned", "bf16+cudnn+int8+compile", "bf16+cudnn+compile", "fastest_lossless"]
HOST_BOUND = [f"{FP8}+teacache:0.6", f"{FP8}+fbcache:0.2", "fastest"]
# Two hit rates of each dense recipe, by which the cost model is checked (tools/recorded).
DEVICE_BOUND += [f"bf16+fbcache:0.3,computed={computed}" for computed in (4, 14)]
HOST_BOUND += [f"{FP8}+fbcache:0.3,computed={computed}" for computed in (4, 14)]
# The device waits for the host for a part of their time, and a host is noisier (docs/gate.md, section 1).
NOISY = pytest.mark.fluxperf(max_slowdown=0.06)
TUNED = [
    pytest.param(recipe, marks=(GPU, EXTRA))
    for recipe in (f"{FP8}:tuned+fuseqkv", "bf16+fa3+compile:tuned", "bf16+fa3+fp8+compile:tuned")
]
SMALL = [pytest.param("bf16", marks=GPU), "compile", "fora", "compile+fora"]


@pytest.mark.fluxperf
@pytest.mark.parametrize(
    "flux",
    [
        *COMBINATIONS,
        *PUBLISHED,
        *TUNED,
        *(pytest.param(recipe, marks=GPU) for recipe in DEVICE_BOUND),
        *(pytest.param(recipe, marks=(GPU, NOISY)) for recipe in HOST_BOUND),
    ],
    indirect=True,
)
def test_combination(flux, flux_inputs):
    return flux(**flux_inputs).images


@pytest.mark.prompts50
@pytest.mark.fluxperf(prompts="extended")
@pytest.mark.parametrize("flux", SMALL, indirect=True)
def test_fifty_small_pictures(flux, flux_inputs):
    return flux(**flux_inputs).images
