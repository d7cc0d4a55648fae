"""An image metric of a project's own. Importing this loads neither torch nor numpy: a conftest may."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_fluxperf.errors import FluxPerfError

if TYPE_CHECKING:
    from pytest_fluxperf.quality.images import Pixels

BUILTIN = ("psnr", "psnr_db", "ssim", "ms_ssim", "flip", "lpips")


@dataclass(frozen=True)
class PictureMetric:
    """A function of a picture and its reference picture, and how its value is gated.

    ``function`` gets two float32 arrays of one shape (height, width, 3), values in [0, 1], and returns a finite
    number. The test regresses when the median over prompts falls (rises, if lower is better) by more than
    ``tolerance`` against the baseline's own median.
    """

    function: Callable[[Pixels, Pixels], float]
    tolerance: float
    higher_is_better: bool = True

    def __call__(self, name: str, picture: Pixels, reference: Pixels) -> float:
        """The value; raises :class:`FluxPerfError` when there is none."""
        try:
            value = float(self.function(picture, reference))
        except Exception as error:
            raise FluxPerfError(f"metric {name!r} failed: {type(error).__name__}: {error}") from error
        if not math.isfinite(value):
            raise FluxPerfError(f"metric {name!r} of the pictures is {value}, not a finite number")
        return value


def check(metrics: Mapping[str, PictureMetric]) -> None:
    """Raise :class:`FluxPerfError` on a metric that cannot be gated."""
    for name, metric in metrics.items():
        if not name.isidentifier() or name in BUILTIN:
            raise FluxPerfError(f"pytest_fluxperf_metrics: {name!r} is taken or is no identifier; choose another name")
        if not isinstance(metric, PictureMetric):
            raise FluxPerfError(f"pytest_fluxperf_metrics: {name!r} must be a PictureMetric, not {metric!r}")
        if not metric.tolerance > 0:
            raise FluxPerfError(
                f"pytest_fluxperf_metrics: the tolerance of {name!r} must be above 0, not {metric.tolerance!r}"
            )
