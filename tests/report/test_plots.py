"""What plots must not suggest."""

from __future__ import annotations

import re

from pytest_fluxperf.report.plots import Point, scatter


def fall(now: float, before: float) -> float:
    """How far a recipe's dot lies below its baseline's, in points of the figure."""
    page = scatter([Point("fp32", 1.0, now, (1.1, before))], "SSIM", rising=True)
    assert "e\u2212" not in page, "axes are told in plain numbers"
    dots = re.findall(r"<title>fp32(, baseline)?: [^<]*</title>.*?<use [^>]* y=\"([\d.]+)\"", page, re.DOTALL)
    heights = {kind: float(y) for kind, y in dots}
    return heights[""] - heights[", baseline"]


def test_rounding_does_not_look_like_lost_quality():
    assert abs(fall(0.9279422, 0.9279425)) < 1
    assert fall(0.9179, 0.9279) > 50
