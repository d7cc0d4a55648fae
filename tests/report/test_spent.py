from __future__ import annotations

import msgspec
import pytest
import report_documents as documents

from pytest_fluxperf.report.markdown import render_markdown
from pytest_fluxperf.report.overhead import of_sessions, spent
from pytest_fluxperf.results import Generation, Measurement
from tools.recorded.table import recipe_tables


@pytest.fixture
def document():
    """100 s: 6 loading, 4 for the reference, 30 warming up, 56 generating, 4 of our own."""
    base = documents.passing()
    measurement = Measurement(
        generations=tuple(Generation(latency_s=6.0, wall_s=7.0) for _ in range(4)), warmup_s=(10.0, 5.0), prepare_s=3.0
    )
    results = tuple(
        msgspec.structs.replace(result, measurement=measurement, reference_s=2.0) for result in base.results[:2]
    )
    return msgspec.structs.replace(base, results=results, duration_s=100.0)


def test_parts_add_up(document):
    found = spent(document)
    assert (found.prepare_s, found.reference_s, found.warmup_s, found.generation_s) == (6, 4, 30, 56)
    assert found.other_s == pytest.approx(4)
    assert found.overhead == pytest.approx(0.04)
    assert spent(msgspec.structs.replace(document, duration_s=0.0)) is None


def test_what_was_dropped_counts_as_everything_else(document):
    lost = msgspec.structs.replace(document.results[1], measurement=Measurement(generations=()), reference_s=0.0)
    found = spent(msgspec.structs.replace(document, results=(document.results[0], lost)))
    assert found.other_s == pytest.approx(100 - 48)


def test_summary_and_table_tell_it(document):
    told = "100 s (loading and switching 6, the reference 4, warm-up and compiling 30, measured generations 56, "
    assert f" · {told}everything else 4: 4.0%)" in render_markdown([document])
    assert f"Wall time of the sessions (1): {told}everything else 4: 4.0%)." in recipe_tables([document])


def test_many_sessions_are_summed_up(document):
    one, slow = spent(document), spent(msgspec.structs.replace(document, duration_s=120.0))
    assert of_sessions([one, slow, one]) == f"{one}; {slow}; {one}"
    told = of_sessions([one, slow, one, one])
    assert told.startswith("420 s (loading and switching 24, the reference 16, warm-up and compiling 120, ")
    assert told.endswith("everything else 36: 8.6%); everything else 4.0% to 20.0% of a session, 4.0% in the middle")
