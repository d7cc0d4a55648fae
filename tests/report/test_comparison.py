"""What reports say of two environments that were compared in turns."""

from __future__ import annotations

import msgspec
import pytest
import report_documents as documents

from pytest_fluxperf.report.html.page import render_html
from pytest_fluxperf.report.markdown import render_markdown
from pytest_fluxperf.results import Block, Comparison, RunDocument

COMPARISON = Comparison(
    mode="interleaved",
    blocks=(Block(old_s=(2.0,) * 8, new_s=(2.123,) * 8), Block(old_s=(2.0,) * 8, new_s=(2.12,) * 8)),
    change=0.0612,
    low=0.05,
    high=0.0725,
    decided=True,
    generations=32,
    old="0123456789ab",
    new="ba9876543210",
    packages={"<torch>": ("2.11.0", None)},
)


def document(tmp_path, **changes) -> RunDocument:
    base = documents.passing(tmp_path)
    first, *rest = base.results
    compared = msgspec.structs.replace(COMPARISON, **changes)
    judgement = msgspec.structs.replace(first.judgement, verdict="regressed", message="slower")
    return msgspec.structs.replace(
        base, results=(msgspec.structs.replace(first, comparison=compared, judgement=judgement), *rest)
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "generations in turns"),
        ({"mode": "alternating"}, "whole processes in turns: +6.1 %"),
        (
            {"mode": "alternating", "reason": "no room <for> two"},
            "whole processes in turns (no room &lt;for&gt; two): ",
        ),
        ({"decided": False}, "not decided"),
    ],
)
def test_the_summary_names_change_interval_and_mode(tmp_path, changes, said) -> None:
    text = render_markdown(document(tmp_path, **changes))
    assert "+6.1 %" in text
    assert "32 generations in 2 blocks" in text
    assert said in text


def test_the_page_says_why_whole_processes_took_turns(tmp_path) -> None:
    page = render_html([document(tmp_path, mode="alternating", reason="no room <for> two")], [tmp_path])
    assert "Whole processes took turns: no room &lt;for&gt; two." in page
