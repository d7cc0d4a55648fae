"""What plots must not suggest."""

from __future__ import annotations

import re

import pytest
import report_documents as documents

from pytest_fluxperf.report.html.drawings import Point, changes, scatter
from pytest_fluxperf.report.view import overview


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


@pytest.mark.parametrize("paired", [True, False])
def test_the_first_prompt_is_on_top_in_every_plot_of_a_page(paired):
    rows = overview([documents.broken()]).rows
    row = next(row for row in rows if row.prompts and paired == any(p.change is not None for p in row.prompts))
    for _ in range(3):
        labels = re.findall(r'text-anchor:end[^>]* y="([\d.]+)">(\d)</text>', changes(row, "a"))
        heights = [float(y) for y, _ in sorted(labels, key=lambda label: label[1])]
        assert len(heights) >= 3
        assert heights == sorted(heights)
