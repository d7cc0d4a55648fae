"""Children that say what they must not: the test at hand ends by it, and what was compared before stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakechildren import Fakes

from pytest_fluxperf.ab import process, protocol
from pytest_fluxperf.ab.outcome import result_of
from pytest_fluxperf.results import Hardware, Result

SAME = ({"latency": 1.0}, {"latency": 1.0})


@pytest.fixture(autouse=True)
def small_limits(monkeypatch) -> None:
    monkeypatch.setattr(process, "_LONGEST_LOG", 2**20)
    monkeypatch.setattr(protocol, "_LONGEST_LINE", 2**20)


def says(what: str, **values: Any) -> dict[str, Any]:
    return {"does": "say", "at": 1, "said": {"what": what, **values}}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (says("prepared", test="t", workload="w", generations=8, held_mib=1, free_mib=1), "'Prepared', which was not"),
        (says("hello", protocol=1, plugin="0.1", python="3"), "'Hello', which was not due"),
        (says("collected", tests=["t"]), "'Collected', which was not due"),
        (says("go"), "'Go', which was not due"),
        (says("generated", latency_s=0), "says that a generation took 0.0 s"),
        (says("generated", latency_s="soon"), "no message of this protocol"),
        ({"latency": -1.0}, "says that a generation took -"),
        ({"run": {"samples": []}}, "samples: holds 0 for 8 prompts"),
        ({"run": {"peak_memory_mib": -5.0}}, "peak_memory_mib: must be positive"),
        ({"measurement": {"generations": [{"latency_s": 0.0, "wall_s": 1.0}] * 8}}, "a generation took 0.0 s"),
        ({"measurement": {"generations": [{"latency_s": 1.0, "wall_s": 1.0}] * 9}}, "9 generations of 8 prompts"),
        (
            {"measurement": {"kernels": {"device": "cpu", "kernels": [], "busy_s": 1, "traces": ["../../x"]}}},
            "what is no message of this protocol",
        ),
        ({"policy": {"max_slowdown": -1.0}}, "no message of this protocol"),
        ({"does": "flood", "at": 1}, "flooded its log with more than 1 MiB"),
        ({"does": "shout", "at": 1}, "no message of this protocol"),
    ],
)
@pytest.mark.parametrize("side", ["old", "new"])
def test_a_child_that_says_what_it_must_not_ends_its_test(fakes: Fakes, side: str, bad: dict, said: str) -> None:
    worse = {"latency": 1.0, **bad}
    fakes.tests(fine=SAME, bad=(SAME[0], worse) if side == "new" else (worse, SAME[1]), later=SAME)
    conductor = fakes.conductor()
    fine, hit, later = conductor.run()
    assert said in hit.trouble.message
    assert hit.trouble.verdict == ("broken" if side == "new" else "invalid")
    assert conductor.ended == hit.trouble.message
    assert later.trouble is None
    kept = result_of(fine, Hardware(kind="cpu", name="a CPU"), fakes.folder, ())
    assert isinstance(kept, Result)
    assert kept.judgement.verdict == "passed"


def test_another_number_of_pictures_is_invalid_and_the_rest_is_compared(fakes: Fakes) -> None:
    twice = {"latency": 1.0, "measurement": {"generations": [{"latency_s": 1.0, "wall_s": 1.0}] * 16}}
    fakes.tests(odd=(SAME[0], twice), later=SAME)
    odd, later = fakes.run()
    assert odd.trouble.verdict == "invalid"
    assert "8 and 16 generations" in odd.trouble.message
    assert later.interleaved.finding.verdict == "passed"


def test_a_child_that_finds_no_hardware_is_refused(fakes: Fakes) -> None:
    fakes.tests(same=SAME)
    fakes.scenarios["new"]["collected"] = {"hardware": None}
    with pytest.raises(process.FluxPerfError, match="the new environment's process did not say on which hardware"):
        fakes.run()


def test_the_last_words_are_read_from_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "old-1.log"
    with log.open("wb") as file:
        file.write(b"ERROR: of long ago\n")
        file.truncate(2**36)  # far more than could be read
        file.seek(2**36)
        file.write(b"\nERROR: out of luck\nlast line\n")
    assert process._last_words(log) == "out of luck"


def test_what_was_compared_stands_where_a_later_block_cannot_begin(fakes: Fakes) -> None:
    noisy = {"noise": 0.012}
    fakes.tests(clear=SAME, open_=({"latency": 1.0, **noisy}, {"latency": 1.019, **noisy}))
    fakes.scenarios["new"]["dies_in_block"] = "new-2"
    conductor = fakes.conductor()
    clear, _ = conductor.run()
    assert clear.interleaved.finding.verdict == "passed"
    assert "the new environment" in conductor.ended


def test_a_version_that_counts_more_to_an_environment_is_understood(fakes: Fakes) -> None:
    """Its digest is another one than ours of the same environment."""
    other = {"latency": 1.0, "run": {"environment": "0123456789ab"}}
    fakes.tests(same=(other, other))
    (trial,) = fakes.run()
    result = result_of(trial, Hardware(kind="cpu", name="a CPU"), fakes.folder, ())
    assert isinstance(result, Result)
    assert result.judgement.verdict == "passed"
    assert result.run.environment == trial.environments["new"].digest
    assert set(result.baseline.environments) == {run.environment for run in result.baseline.runs}
