"""The optimizations, one module each; importing the package adds their tokens to the recipe grammar."""

from __future__ import annotations

from pytest_fluxperf.pipelines.optimizations import (
    attention,
    cachedit,
    compilation,
    dtype,
    fbcache,
    fora,
    lora,
    nativecaches,
    parallel,
    presets,
    quantize,
    switches,
    teacache,
)

__all__ = [
    "attention",
    "cachedit",
    "compilation",
    "dtype",
    "fbcache",
    "fora",
    "lora",
    "nativecaches",
    "parallel",
    "presets",
    "quantize",
    "switches",
    "teacache",
]
