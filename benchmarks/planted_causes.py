"""A pytest plugin that plants one cause, named by the environment variable ``PLANTED``.

    PLANTED=kernel pytest -p planted_causes perf_tests ...        # with this folder on PYTHONPATH

``kernel``     a matrix product more in each block, some 3 % of an eager block of FLUX.1 on an H200
``attention``  torch's scaled dot product attention may use its flash kernel alone
``cache``      First-Block Cache of diffusers computes every step
``python``     1,500 calls of a Python function more in each block
"""

from __future__ import annotations

import os
from typing import Any

import pytest

CALLS = 1500


def pytest_configure(config: pytest.Config) -> None:
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    if os.environ.get("PLANTED") == "cache":
        from pytest_fluxperf.pipelines.optimizations.fbcache import DiffusersFirstBlockCache

        decide = DiffusersFirstBlockCache.decide

        def never(self: Any, compute: bool, index: int | None = None) -> bool:  # noqa: ARG001
            schedule, self.computed = self.computed, None
            try:
                return decide(self, True, index)
            finally:
                self.computed = schedule

        patch.setattr(DiffusersFirstBlockCache, "decide", never)


def pytest_fluxperf_pipeline(pipe: Any) -> None:
    planted = os.environ.get("PLANTED")
    if planted == "attention":
        import torch

        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
    elif planted in ("kernel", "python"):
        transformer = pipe.transformer
        for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
            if not hasattr(block.forward, "planted"):
                block.forward = _more(block.forward, planted)


def _more(forward: Any, planted: str) -> Any:
    def more(*args: Any, **kwargs: Any) -> Any:
        result = forward(*args, **kwargs)
        hidden = kwargs.get("hidden_states", args[0] if args else None)
        if planted == "kernel":
            hidden @ _square(hidden)
        else:
            for _ in range(CALLS):
                _nothing()
        return result

    more.planted = planted  # type: ignore[attr-defined]
    return more


_SQUARES: dict[Any, Any] = {}


def _square(hidden: Any) -> Any:
    key = (hidden.shape[-1], hidden.dtype, hidden.device)
    if key not in _SQUARES:
        _SQUARES[key] = hidden.new_zeros(hidden.shape[-1], hidden.shape[-1]).normal_()
    return _SQUARES[key]


def _nothing() -> None:
    pass
