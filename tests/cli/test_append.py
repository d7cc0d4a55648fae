"""``fluxperf append`` on recorded documents."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
import report_documents as documents

from pytest_fluxperf.baseline.run import record
from pytest_fluxperf.baseline.store import BaselineStore
from pytest_fluxperf.cli import main
from pytest_fluxperf.report import write_document
from pytest_fluxperf.results import Result, RunDocument

REFERENCE, CACHED = "bf16", "bf16+fbcache:0.3"


def measured(result: Result, session: str, environment=documents.OLD) -> Result:
    run = record(result.measurement, result.scores, session=session, environment=environment, time_utc="2026-01-02")
    return msgspec.structs.replace(result, run=run)


def session(name: str, *recipes: str, **changes) -> RunDocument:
    environment = changes.setdefault("environment", documents.OLD)
    made = [measured(documents.result(recipe), name, environment) for recipe in recipes or (REFERENCE, CACHED)]
    return documents.document(made, session=name, **changes)


@pytest.fixture
def append(tmp_path, monkeypatch, capsys):
    """``append(document, ...)``: the command's exit status and the lines that it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*given: RunDocument, baselines: str = "baselines") -> tuple[int, list[str]]:
        for number, document in enumerate(given):
            write_document(document, tmp_path / f"{number}.json")
        status = main(["append", *(f"{number}.json" for number in range(len(given))), "--baselines", baselines])
        printed = capsys.readouterr()
        return status, (printed.out + printed.err).splitlines()

    return run


def stored(recipe: str, gpu: str = "h100"):
    return BaselineStore(Path("baselines"), gpu).load(f"perf_tests/test_recipes.py::test_recipe[{recipe}]")


def test_several_sessions_are_added_in_their_order(append):
    status, lines = append(session("a"), session("b"), session("c", CACHED))
    assert status == 0
    assert ["recorded" in line or "appended" in line for line in lines] == [True] * 5
    assert [run.session for run in stored(CACHED).runs] == ["a", "b", "c"]
    assert [run.session for run in stored(REFERENCE).runs] == ["a", "b"]


def test_each_goes_to_the_baselines_of_its_machine(append):
    assert append(session("a"), session("b", gpu="h200"))[0] == 0
    assert [run.session for run in stored(CACHED, "h200").runs] == ["b"]


def test_a_session_counts_once_also_where_more_of_it_is_known_later(append):
    assert append(session("a", CACHED))[0] == 0
    again = session("a")
    slower = msgspec.structs.replace(again.results[1].run, peak_memory_mib=1.0)
    again = msgspec.structs.replace(
        again, results=(again.results[0], msgspec.structs.replace(again.results[1], run=slower))
    )
    status, lines = append(again, again)
    assert status == 0
    assert [line.split(": ", 1)[1].split(",")[0] for line in lines] == ["recorded", *["unchanged"] * 3]
    assert "session a is stored already" in lines[1]
    assert len(stored(CACHED).runs) == len(stored(REFERENCE).runs) == 1


def test_what_is_broken_or_of_a_changed_environment_is_refused_and_the_rest_is_added(append):
    broken = [r for r in documents.broken().results if r.judgement.verdict == "broken"]
    status, lines = append(
        documents.document([measured(documents.result(CACHED), "a"), *broken], environment=documents.OLD)
    )
    assert status == 1
    assert sum(": refused, broken: " in line for line in lines) == len(broken) == 2
    assert len(stored(CACHED).runs) == 1
    status, lines = append(session("b", CACHED, environment=documents.NEW))
    assert status == 1
    assert "only an unchanged environment may be appended" in lines[0]
    assert len(stored(CACHED).runs) == 1


CPU = {"gpu": "cpu", "hardware": msgspec.structs.replace(documents.H100, kind="cpu", name="EPYC", memory_mib=None)}


@pytest.mark.parametrize(
    ("recipe", "timed_beside", "changes", "tau0"),
    [
        (CACHED, True, CPU, 0.02),
        (CACHED, False, CPU, 0.007),
        (REFERENCE, False, CPU, 0.02),
        (REFERENCE, False, {}, 0.007),
        (CACHED, True, {}, 0.02),
    ],
    ids=["cpu", "cpu, absolute", "cpu, nothing to be timed beside", "gpu", "gpu, relative"],
)
def test_the_prior_of_the_noise_is_that_of_the_sessions_mode(append, recipe, timed_beside, changes, tau0):
    result = measured(documents.result(recipe, relative=timed_beside), "a")
    assert append(documents.document([result], environment=documents.OLD, **changes))[0] == 0
    assert stored(recipe, changes.get("gpu", "h100")).tau0 == tau0


def test_a_session_that_measured_nothing_says_so(append):
    assert append(documents.document([])) == (0, ["0.json: nothing was measured"])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"against": "environment"}, "1.json: holds a comparison by fluxperf ab, which no baseline takes"),
        ({"gpu": "../h100"}, "1.json: '../h100' is no name of a GPU's folder"),
        ({"gpu": ".."}, "1.json: '..' is no name of a GPU's folder"),
        ({"format": 99}, "1.json has format 99"),
    ],
)
def test_what_is_no_session_is_refused_before_anything_is_added(append, changes, complaint):
    status, (line,) = append(session("a"), session("b", **changes))
    assert status == 4
    assert complaint in line
    assert not Path("baselines").exists()


def test_names_from_elsewhere_do_not_act_on_the_terminal(append):
    result = measured(documents.result(CACHED, test="t.py::test[\x1b[31m]"), "a")
    _, (line,) = append(documents.document([result], environment=documents.OLD))
    assert "\x1b" not in line
