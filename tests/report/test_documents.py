"""results.json, summary.md, the terminal table and JUnit properties."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import jsonschema
import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import report_documents as documents

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.report import junit_properties, load_document, merge, write_document
from pytest_fluxperf.report.html.page import render_html
from pytest_fluxperf.report.markdown import COMMENT_LIMIT, escape, render_markdown
from pytest_fluxperf.report.overhead import spent
from pytest_fluxperf.report.terminal import progress_line, terminal_summary
from pytest_fluxperf.report.text import columns
from pytest_fluxperf.report.view import machine_labels, overview
from pytest_fluxperf.results import RESULTS_FORMAT

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["passing", "failing", "broken", "ungated", "hostile"])
def test_results_json_holds_everything(tmp_path, name):
    document = getattr(documents, name)()
    write_document(document, tmp_path / "results.json")
    assert load_document(tmp_path / "results.json") == document


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is not a results.json"),
        (b"{}", "is not a results.json"),
        (b'{"format": 99}', "has format 99, this pytest-fluxperf reads 3; upgrade"),
        (b'{"format": 2, "session": 3}', "has format 2, which no release wrote; run the tests again"),
        (b'{"format": 3, "session": 3}', "is damaged"),
        (b"\xff", "is not a results.json"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, complaint):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(FluxPerfError, match=complaint):
        load_document(path)
    with pytest.raises(FluxPerfError, match=r"nothing\.json"):
        load_document(tmp_path / "nothing.json")


def test_what_is_written_satisfies_the_schema(tmp_path):
    schema = json.loads((ROOT / f"docs/schema/results-{RESULTS_FORMAT}.json").read_bytes())
    for name in ("passing", "failing", "broken"):
        write_document(getattr(documents, name)(), tmp_path / "results.json")
        jsonschema.validate(json.loads((tmp_path / "results.json").read_bytes()), schema)


def test_a_folder_stands_for_its_results(tmp_path):
    document = documents.passing()
    write_document(document, tmp_path / "results.json")
    assert load_document(tmp_path) == document


def test_machines_of_one_name_are_told_apart():
    one = documents.passing()
    other = msgspec.structs.replace(one, environment=documents.NEW)
    assert machine_labels([one, other]) == ("h100 · torch 2.11.0", "h100 · torch 2.13.0")
    later = msgspec.structs.replace(one, time_utc="2026-11-22T00:00:00Z")
    assert len(set(machine_labels([one, one, later]))) == 3
    assert machine_labels([one, msgspec.structs.replace(one, gpu="h200")]) == ("h100", "h200")


def test_shards_of_one_machine_become_one_document_and_machines_stay_apart():
    whole = documents.failing()
    half = len(whole.results) // 2
    shards = [
        msgspec.structs.replace(whole, results=part, collected=len(part), skipped=(), session=f"s{i}")
        for i, part in enumerate((whole.results[:half], whole.results[half:]))
    ]
    (merged,) = merge(shards)
    assert {r.test for r in merged.results} == {r.test for r in whole.results}
    assert merged.collected == len(whole.results)
    other = msgspec.structs.replace(whole, gpu="h200")
    assert len(merge([whole, other])) == 2


def test_nothing_of_a_shard_is_lost():
    """Whatever a shard says alone is said by the whole, in whatever order they come."""
    whole = documents.failing()
    first, *others = whole.results
    replace = msgspec.structs.replace
    environment = documents.OLD
    says = {
        "warnings": ("odd",),
        "environments": {environment.digest: environment},
        "strict": True,
        "update": "new",
        "changes": ("new: x",),
        "published": whole.published[:2],
        "skipped": whole.skipped,
    }
    plain = replace(whole, published=(), skipped=(), warnings=(), results=(first,), collected=1, gated=1, session="a")
    full = replace(plain, results=tuple(others), collected=15, gated=13, session="b", duration_s=100.0, **says)
    for shards in ([plain, full], [full, plain]):
        (merged,) = merge(shards)
        assert {name: getattr(merged, name) for name in says} == says
        assert merged.duration_s == plain.duration_s + full.duration_s
        assert {result.test for result in merged.results} == {result.test for result in whole.results}
    of_the_machine = {"format", "time_utc", "plugin", "gpu", "hardware", "environment", "command", "against"}
    joined = {"session", "duration_s", "results", "collected", "gated"}
    assert {*msgspec.structs.asdict(whole)} <= {*says, *of_the_machine, *joined}, "a new field needs a rule for shards"


def test_what_shards_took_is_told_as_what_they_spent():
    """The longest duration beside the sum of what was spent left less than nothing for everything else."""
    whole = documents.passing()
    half = len(whole.results) // 2
    shards = [
        msgspec.structs.replace(whole, results=part, duration_s=1.05 * sum(map(spent_s, part)))
        for part in (whole.results[:half], whole.results[half:])
    ]
    (merged,) = merge(shards)
    assert spent(merged).overhead == pytest.approx(0.05 / 1.05)


def spent_s(result):
    measured = result.measurement
    made = sum(generation.wall_s for generation in measured.generations)
    return made + sum(measured.warmup_s) + measured.prepare_s + result.reference_s


def test_prompts_of_later_rounds_are_compared_with_their_own_baseline():
    """Two prompts measured three times are two prompts, each beside its own baseline."""
    plain = documents.result("bf16+fbcache:0.3", texts=documents.TEXTS[:2], runs=2)
    first, second = plain.measurement.generations
    factors = (1.0, 1.2, 1.1)
    rounds = tuple(
        msgspec.structs.replace(made, latency_s=factor * made.latency_s)
        for factor in factors
        for made in (first, second)
    )
    measurement = msgspec.structs.replace(plain.measurement, generations=rounds)
    (row,) = overview(documents.document([msgspec.structs.replace(plain, measurement=measurement)])).rows
    assert [pair.index for pair in row.prompts] == [0, 1]
    for pair, made in zip(row.prompts, (first, second), strict=True):
        stored = [run.samples[pair.index].latency_s for run in row.runs]
        assert pair.baseline_s == pytest.approx(sum(stored) / 2)
        assert pair.changes == pytest.approx([factor * made.latency_s / pair.baseline_s - 1 for factor in factors])
        assert pair.now_s == pytest.approx(1.1 * made.latency_s)
    assert row.n == 6


def test_the_newest_run_is_the_one_measured_last_wherever_it_is_stored():
    """A session that was appended late may be older than those before it."""
    plain = documents.result("bf16", runs=3)
    replace = msgspec.structs.replace
    last, *others = reversed(plain.baseline.runs)
    newest = replace(last, environment=documents.NEW.digest, facts={"attention": "flash", "ran": {"casts": 2}})
    environments = {e.digest: e for e in (documents.OLD, documents.NEW)}
    baseline = replace(plain.baseline, runs=(newest, *others), environments=environments)
    view = overview(documents.document([replace(plain, baseline=baseline)]))
    assert view.environments == (documents.NEW,)
    assert view.differences == ()
    (row,) = view.rows
    facts = {fact.name: fact.baseline for fact in row.facts}
    assert (facts["attention"], facts["ran casts"]) == ("flash", "2")


def test_speed_ups_pair_what_was_measured_side_by_side():
    """In turns of two environments each test has blocks of its own: the reference's say nothing of another's."""
    reference, cached = documents.result("bf16"), documents.result("bf16+fbcache:0.3")
    plain = documents.document([reference, cached])
    turns = msgspec.structs.replace(plain, against="environment")

    def speedups(document):
        return {row.recipe: row.speedup for row in overview(document).rows}

    assert speedups(plain)["bf16+fbcache:0.3"] == pytest.approx(3.5, abs=0.3)
    assert speedups(turns) == {"bf16": None, "bf16+fbcache:0.3": None}
    timed_beside = documents.result("bf16+fbcache:0.3", relative=True)
    beside = msgspec.structs.replace(turns, results=(reference, timed_beside))
    assert speedups(beside)["bf16+fbcache:0.3"] == pytest.approx(7.11 / 2.05, abs=0.3)


def test_what_an_interrupted_shard_left_stays_unmeasured_beside_others():
    """It is not known which tests those are: the other shard's may be its own."""
    whole = documents.passing()
    shards = [
        msgspec.structs.replace(whole, results=whole.results[:2], collected=3, skipped=()),
        msgspec.structs.replace(whole, results=whole.results[2:3], collected=1, skipped=()),
    ]
    (merged,) = merge(shards)
    assert (merged.collected, len(merged.results)) == (4, 3)


@pytest.mark.parametrize("width", [40, 80, 140])
@pytest.mark.parametrize("name", ["passing", "failing", "broken", "ungated", "hostile"])
def test_the_terminal_table_fits_and_says_gated_n_of_m(name, width):
    lines = terminal_summary(getattr(documents, name)(), width)
    assert max(map(columns, lines)) <= width
    assert re.search(r"gated \d+ of \d+", " ".join(lines))
    assert not any("\x1b" in line for line in lines)


def test_the_terminal_shows_the_worst_first():
    text = "\n".join(terminal_summary(documents.failing(), 120))
    assert text.index("regressed  ") < text.index("improved  ") < text.index("passed  ")


@pytest.mark.parametrize(("n", "supported"), [(8, set()), (29, set()), (30, {90}), (299, {90}), (300, {90, 99})])
def test_percentiles_are_shown_with_n_and_greyed_where_it_is_too_small(n, supported, tmp_path):
    plain = documents.result("bf16")
    made = (plain.measurement.generations * n)[:n]
    many = msgspec.structs.replace(plain, measurement=msgspec.structs.replace(plain.measurement, generations=made))
    document = documents.document([many])
    terminal, markdown = "\n".join(terminal_summary(document, 200)), render_markdown(document)
    page = render_html(document, [tmp_path])
    for q in (90, 99):
        assert f"p{q} s" in terminal
        assert f"| p{q} s |" in markdown
        assert (f"{n} generations have no {q}th percentile: it takes " in page) == (q not in supported)


def test_progress_fits_the_line():
    line = progress_line("perf_tests/test_caching.py::test_fora[x]", "fp32+fora", 3, 8, 1.234, width=60)
    assert line == "test_fora[x] fp32+fora 3/8  p50 1.234 s"
    assert columns(progress_line("t" * 300, None, 3, 8, 1.0, width=40)) <= 40


def test_markdown_escapes_each_character_once():
    assert escape("3.11.7") == "&#8203;3.11.7"
    assert escape("#1 http://a @b <i>") == "&#35;&#8203;1 http:&#8203;//a &#64;&#8203;b &lt;i&gt;"


def test_markdown_says_the_same_and_escapes():
    text = render_markdown(documents.failing())
    assert "2 of 16 regressed" in text
    assert "**gated 16 of 18**" in text
    assert text.index("🔴 regressed") < text.index("🟢 passed")
    hostile = render_markdown(documents.hostile())
    assert "<script" not in hostile
    assert "\x07" not in hostile


def test_markdown_fits_a_comment_and_counts_what_it_left_out():
    text = render_markdown(documents.many(400, None))
    assert len(text.encode()) <= COMMENT_LIMIT
    small = render_markdown(documents.many(60, None), limit=6000)
    assert len(small.encode()) <= 6000
    assert re.search(r"\*\d+ of 60 tests left out", small)


def test_junit_properties_are_plain_figures():
    result = documents.failing().results[0]
    properties = dict(junit_properties(result))
    latencies = sorted(g.latency_s for g in result.measurement.generations)
    assert latencies[0] <= float(properties["fluxperf_p50_s"]) <= latencies[-1]
    assert properties["fluxperf_verdict"] == result.judgement.verdict
    assert properties["fluxperf_n"] == str(len(latencies))
    assert "fluxperf_ssim" in properties
