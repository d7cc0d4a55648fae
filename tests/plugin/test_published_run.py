"""Figures from the literature in a run: kept in its results for the same workload, and no reason to fail."""

from __future__ import annotations

import json


def write(project, content):
    path = project.baselines.parent / "published" / "paper.json"
    path.parent.mkdir(parents=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_figures_of_the_workload_are_in_the_results_and_on_the_page(recorded):
    recorded.run()
    load = recorded.results()["results"][0]["workload"]
    shape = {name: load[name] for name in ("model", "height", "width", "steps")}
    figure = {"configuration": "Plain", "recipe": "fp32", "mean_s": 1.5, "n": 3}
    tables = [{"gpu": "h100", **shape, "figures": [figure]}, {"gpu": "h100", **shape, "steps": 99, "figures": [figure]}]
    source = {"title": "A paper", "date": "2026", "url": "https://paper.example"}
    write(recorded, {"format": 1, "source": source, "tables": tables})
    recorded.run().assert_outcomes(passed=2)
    (kept,) = recorded.results()["published"]
    assert (kept["configuration"], kept["seconds"], kept["gpu"]) == ("Plain", 1.5, "h100")
    assert "A paper (2026)" in (recorded.runs[-1] / "report.html").read_text()


def test_a_damaged_file_is_a_warning_and_loses_nothing(recorded):
    write(recorded, "{")
    result = recorded.run()
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*published figures are left out*"])
    assert len(recorded.results()["results"]) == 2
