"""The kernel difference in the page and in the summary."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import report_documents as documents

from pytest_fluxperf.report import write_reports
from pytest_fluxperf.report.markdown import render_markdown
from pytest_fluxperf.results import Kernel, KernelChange, KernelDiff, KernelTable, RunDocument

EVIL = "<script>alert(1)</script>|`x`"


@pytest.fixture
def document() -> RunDocument:
    plain = documents.failing()
    found = KernelDiff(
        difference_s=0.150,
        changes=(
            KernelChange(family=EVIL, change="appeared", baseline_calls=0, now_calls=57, baseline_s=0.0, now_s=0.1234),
        ),
        others_s=0.001,
        idle_s=0.0166,
        unexplained_s=0.009,
    )
    table = KernelTable(
        device="cuda",
        kernels=(Kernel(family="gemm", calls=1000, time_s=2.0),),
        busy_s=2.0,
        latency_s=2.1,
        traces=("traces/a-first.json.gz",),
    )
    (first, *rest) = sorted(plain.results, key=lambda r: r.judgement.verdict != "regressed")
    change = msgspec.structs.replace
    first = change(
        first, judgement=change(first.judgement, kernels=found), measurement=change(first.measurement, kernels=table)
    )
    return change(plain, results=(first, *rest))


def test_the_page_takes_the_difference_apart(document, tmp_path):
    page = Path(write_reports(document, tmp_path).html).read_text()
    (section,) = re.findall(r'<section class="part kernels">.*?</section>', page, re.DOTALL)
    for text in ("150.0 ms an image", "appeared", "123.40", "+123.40", "+16.60", "+9.00", "+150.00", "gemm"):
        assert text in section
    assert 'href="traces/a-first.json.gz"' in section
    assert "<script>alert" not in page


def test_the_summary_lists_kernels_and_what_is_left(document):
    text = render_markdown(document)
    assert "appeared: 0.00 → 123.40 ms an image" in text
    assert "of +150.00 ms an image: time outside of kernels +16.60 ms, other kernels +1.00 ms" in text
    assert "unexplained +9.00 ms" in text
    assert "<script>" not in text


def test_without_a_profile_neither_says_anything(tmp_path):
    plain = documents.failing()
    assert "- kernel " not in render_markdown(plain)
    assert 'class="part kernels"' not in Path(write_reports(plain, tmp_path).html).read_text()
