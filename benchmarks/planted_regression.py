"""A pytest plugin that plants one regression: First-Block Cache hits less often than it decides to.

    pytest -p planted_regression perf_tests ...        # with this folder on PYTHONPATH

Every fourth denoising step is computed, whatever the cache itself or its schedule says: what an upgrade does that
breaks the comparison of residuals. Pictures stay right, nothing raises, images come later.
"""

from __future__ import annotations

from typing import Any

import pytest

EVERY = 4


def pytest_configure(config: pytest.Config) -> None:
    """Wrap the decision of diffusers' First-Block Cache for as long as this run lasts."""
    from pytest_fluxperf.pipelines.optimizations.fbcache import DiffusersFirstBlockCache

    decide = DiffusersFirstBlockCache.decide

    def forgetful(self: Any, compute: bool, index: int | None = None) -> bool:
        step = (self.host.steps.index if index is None else index) % self.host.num_steps
        if step % EVERY != 1:
            return decide(self, compute, index)
        schedule, self.computed = self.computed, None
        try:
            return decide(self, True, index)
        finally:
            self.computed = schedule

    patch = pytest.MonkeyPatch()
    patch.setattr(DiffusersFirstBlockCache, "decide", forgetful)
    config.add_cleanup(patch.undo)
