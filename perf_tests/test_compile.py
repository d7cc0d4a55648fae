"""torch.compile of the transformer: its blocks, the whole as one graph, or TensorRT.

``compile:tuned`` is among the combinations, beside the same recipes with ``compile``.
"""

from __future__ import annotations

import pytest

GPU = pytest.mark.not_on_cpu(reason="one way to compile is enough to test the gate on a CPU")
EXTRA = (GPU, pytest.mark.extra)
LONG = (GPU, pytest.mark.long)
OTHERS = [
    pytest.param("bf16+compile:whole", marks=LONG),
    pytest.param("bf16+cudnn+fp8+compile:whole", marks=LONG),
    pytest.param("bf16+tensorrt", marks=EXTRA),
]


@pytest.mark.fluxperf
@pytest.mark.parametrize("flux", ["compile", *OTHERS], indirect=True)
def test_compile(flux, flux_inputs):
    return flux(**flux_inputs).images
