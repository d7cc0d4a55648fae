"""Attention back ends. Those of packages that are not installed are skipped with what to install."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.not_on_cpu(reason="attention kernels are made for GPUs")

OTHERS = [pytest.param(f"bf16+{kernel}", marks=pytest.mark.extra) for kernel in ("efficient", "math", "flex")]
TORCH = ["bf16+fa2", "bf16+cudnn", *OTHERS]
PACKAGES = ["bf16+fa2:package", "bf16+fa3", "bf16+fa4", "bf16+sage", "bf16+xformers"]


@pytest.mark.fluxperf
@pytest.mark.parametrize("flux", TORCH + PACKAGES, indirect=True)
def test_attention(flux, flux_inputs):
    return flux(**flux_inputs).images
