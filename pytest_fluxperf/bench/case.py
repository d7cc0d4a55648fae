"""What is known of one test before it is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

_BOUNDS = {"min_ssim": "ssim", "min_psnr": "psnr", "max_lpips": "lpips"}
"""Tolerances that are bounds, and the metric that each is one of."""


_OWN_BOUNDS = (*_BOUNDS, "quality_tolerance", "max_memory_growth")
"""What a later comparison of sessions has to know of a test's settings, beside the tolerance of its latency."""


_Struct = TypeVar("_Struct", bound=msgspec.Struct)


Progress = Callable[[str, int, int, float | None], None]


def _untold(stage: str, done: int, total: int, p50_s: float | None) -> None:
    """Progress that nobody sees."""


def _replace(record: _Struct, **changes: Any) -> _Struct:
    return msgspec.structs.replace(record, **changes)
