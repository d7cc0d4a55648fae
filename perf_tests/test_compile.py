"""torch.compile of the transformer's blocks."""

from __future__ import annotations

import pytest


@pytest.mark.fluxperf
@pytest.mark.parametrize("flux", ["compile"], indirect=True)
def test_compile(flux, flux_inputs):
    return flux(**flux_inputs).images
