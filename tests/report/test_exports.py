"""CSV, JUnit and the JSON of dashboards; pytest-benchmark itself reads its own."""

from __future__ import annotations

import csv
import io
import json
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import jsonschema
import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import report_documents as documents

from pytest_fluxperf.report.ci import junit_properties, render_junit
from pytest_fluxperf.report.exports import (
    render_bencher,
    render_csv,
    render_github_action_benchmark,
    render_pytest_benchmark,
)

REGRESSED = "perf_tests/test_recipes.py::test_recipe[bf16+fbcache:0.3]"

BMF = {
    "type": "object",
    "patternProperties": {
        ".+": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "properties": {name: {"type": "number"} for name in ("value", "lower_value", "upper_value")},
                "required": ["value"],
                "additionalProperties": False,
            },
        }
    },
}
"""What Bencher documents of its format."""


def latencies(document, test):
    (result,) = [r for r in document.results if r.test == test]
    return [g.latency_s for g in result.measurement.generations]


def test_csv_has_a_line_a_test_worst_first():
    document = documents.failing()
    lines = list(csv.DictReader(io.StringIO(render_csv(document))))
    assert len(lines) == len(document.results)
    assert lines[0]["verdict"] == "regressed"
    (line,) = [line for line in lines if line["test"] == REGRESSED]
    assert float(line["p50_s"]) == pytest.approx(statistics.median(latencies(document, REGRESSED)), rel=1e-5)
    assert line["judged"] == "latency"
    assert float(line["change"]) == pytest.approx(0.062)
    assert (line["machine"], line["recipe"], line["n"]) == ("h100", "bf16+fbcache:0.3", "8")


def test_csv_cells_are_no_formulas():
    one = documents.result("bf16", message='=HYPERLINK("evil")')
    assert "'=HYPERLINK" in render_csv(documents.document([one]))
    assert "\x1b" not in render_csv(documents.hostile())


def test_bencher_metric_format():
    document = documents.failing()
    content = json.loads(render_bencher(document))
    jsonschema.validate(content, BMF)
    assert set(content) == {r.test for r in document.results}
    latency = content[REGRESSED]["latency"]
    median = statistics.median(latencies(document, REGRESSED))
    assert latency["value"] == pytest.approx(1e9 * median)  # nanoseconds
    assert latency["lower_value"] <= latency["value"] <= latency["upper_value"]
    assert content[REGRESSED]["computed-steps"]["value"] == pytest.approx(17.875, abs=0.2)
    assert 0 < content[REGRESSED]["ssim"]["value"] < 1


def test_github_action_benchmark_holds_what_is_better_smaller():
    document = documents.failing()
    content = json.loads(render_github_action_benchmark(document))
    entries = {entry["name"]: entry for entry in content}
    assert len(entries) == len(content)
    p50 = entries[f"{REGRESSED} p50"]
    assert p50["unit"] == "s"
    assert p50["value"] == pytest.approx(statistics.median(latencies(document, REGRESSED)))
    assert p50["range"].startswith("± ")
    assert "verdict: regressed" in p50["extra"]
    assert all(isinstance(entry["value"], float | int) and entry["value"] >= 0 for entry in content)
    assert entries[f"{REGRESSED} 1 - SSIM"]["value"] < 0.2


def test_pytest_benchmark_compares_two_exports(tmp_path):
    files = []
    for name, document in (("0001_old", documents.passing()), ("0002_new", documents.failing())):
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(render_pytest_benchmark(document))
    done = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", "--columns=min,median,rounds", "--sort=name",
         "--csv=table.csv", *files],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Failed to load" not in done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if "bf16+fbcache:0.3]" in line and "fa2" not in line]
    assert len(lines) == 2
    assert "0001_old" in lines[0]
    assert "0002_new" in lines[1]
    assert f"{min(latencies(documents.failing(), REGRESSED)):.4f}" in lines[1]


def test_pytest_benchmark_statistics_are_its_own():
    from pytest_benchmark.stats import Stats

    content = json.loads(render_pytest_benchmark(documents.passing()))
    one = content["benchmarks"][0]["stats"]
    theirs = Stats()
    for value in one["data"]:
        theirs.update(value)
    for field in ("min", "max", "mean", "stddev", "rounds", "median", "total", "ops", "stddev_outliers"):
        assert one[field] == pytest.approx(getattr(theirs, field)), field
    assert one["q1"] <= one["median"] <= one["q3"]
    assert one["min"] <= one["ld15iqr"] <= one["q1"] <= one["q3"] <= one["hd15iqr"] <= one["max"]


@pytest.mark.parametrize(
    "render", [render_csv, render_bencher, render_github_action_benchmark, render_pytest_benchmark]
)
def test_exports_take_a_broken_run_and_several_machines(render):
    broken = documents.broken()
    text = render([broken, msgspec.structs.replace(broken, gpu="l40s", hardware=documents.L40S)])
    assert "h100" in text
    assert "l40s" in text
    assert "NaN" not in text


def test_junit_fails_what_the_gate_fails():
    document = documents.failing()
    root = ET.fromstring(render_junit(document))
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("18", "2", "2")
    case = next(c for c in suite if c.get("name") == "test_recipe[bf16+fbcache:0.3]")
    assert case.get("classname") == "perf_tests.test_recipes"
    assert case.find("failure").get("message").startswith("regressed: latency")
    properties = {p.get("name"): p.get("value") for p in case.find("properties")}
    (result,) = [r for r in document.results if r.test == REGRESSED]
    assert properties == dict(junit_properties(result))
    assert sum(case.find("skipped") is not None for case in suite) == 2
    assert suite.find("testcase[@name='test_recipe[bf16]']/failure") is None


def test_junit_takes_hostile_text():
    ET.fromstring(render_junit(documents.hostile()))
