"""Recorded sessions against each other: only those of the same packages, and against all the others appended."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pytest_fluxperf.results import Skipped
from tools.recorded.archive import recorded

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recorded_pairs(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import recorded_pairs

    return recorded_pairs


@pytest.fixture(scope="module")
def sessions():
    """Three sessions of one recipe, as they were recorded."""
    return [only(document, "bf16") for document in recorded("h200-results*")]


def only(document, recipe):
    return msgspec.structs.replace(
        document, results=tuple(result for result in document.results if result.recipe == recipe)
    )


def slowed(document, factor):
    """The session with other times, also in what it would have stored."""

    def longer(made):
        times = ("latency_s", "denoise_s", "decode_s")
        return tuple(msgspec.structs.replace(g, **{name: getattr(g, name) * factor for name in times}) for g in made)

    results = []
    for result in document.results:
        measurement = msgspec.structs.replace(result.measurement, generations=longer(result.measurement.generations))
        run = msgspec.structs.replace(result.run, samples=longer(result.run.samples))
        results.append(msgspec.structs.replace(result, measurement=measurement, run=run))
    return msgspec.structs.replace(document, results=tuple(results))


def upgraded(document):
    packages = {**document.environment.packages, "torch": "3.0.0"}
    environment = msgspec.structs.replace(document.environment, packages=packages)
    return msgspec.structs.replace(document, environment=environment)


def verdicts(results):
    return sorted(result.judgement.verdict for result in results)


def test_every_session_is_judged_against_every_other_and_against_all(recorded_pairs, sessions):
    pairs, left_out = recorded_pairs.judged(sessions), recorded_pairs.judged_by_all(sessions)
    assert [len(result.baseline.runs) for result in pairs] == [1] * 6
    assert [len(test.stored) for tests in left_out for test in tests] == [2] * 3
    assert "regressed" not in verdicts(pairs)
    found, failed = recorded_pairs.families(left_out)
    assert (found["dense"].tests, found["dense"].failed, failed) == (3, 0, [])
    assert found["dense"].slower[0.05] == 3


def test_a_slow_session_fails_against_the_others(recorded_pairs, sessions):
    slow = [*sessions[:2], slowed(sessions[2], 1.3)]
    assert verdicts(recorded_pairs.judged(slow)).count("regressed") == 2
    found, failed = recorded_pairs.families(recorded_pairs.judged_by_all(slow))
    assert (found["dense"].failed, len(failed)) == (1, 1)
    text = recorded_pairs.show(slow)
    assert "h200: 6 tests judged against one other session, 2 fail, 0 of them would be measured once more" in text
    assert "h200: 3 tests judged against all other sessions" in text
    assert f"{failed[0].test:<70} {failed[0].effect.value:+.1%}" in text


def test_a_session_that_is_slower_altogether_is_told_by_its_card(recorded_pairs, sessions):
    by_all = recorded_pairs.judged_by_all(sessions)
    known = recorded_pairs.everything_slower(by_all, 0.08)
    cards = [tests[0].card for tests in by_all]
    assert {card: count for card, (count, _, _) in known.items()} == {
        True: sum(cards.count(card) > 1 for card in cards),
        False: sum(cards.count(card) == 1 for card in cards),
    }
    assert all(seen == count and false == 0 for count, seen, false in known.values())


def test_sessions_of_other_packages_are_not_judged(recorded_pairs, sessions):
    changed = [*sessions[:2], upgraded(slowed(sessions[2], 1.3))]
    assert len(recorded_pairs.judged(changed)) == 2
    assert recorded_pairs.judged_by_all(changed) == []


def test_what_a_session_skipped_or_ran_by_another_recipe_is_not_judged(recorded_pairs, sessions):
    def ran_as(document, recipe):
        results = []
        for result in document.results:
            measurement = msgspec.structs.replace(result.measurement, facts={"recipe": recipe})
            run = msgspec.structs.replace(result.run, facts={"recipe": recipe})
            results.append(msgspec.structs.replace(result, measurement=measurement, run=run))
        return msgspec.structs.replace(document, results=tuple(results))

    one, other, another = sessions
    (result,) = one.results
    skipped = Skipped(test=result.test, recipe="bf16", reason="takes minutes")
    left_out = msgspec.structs.replace(other, results=(), skipped=(skipped,))
    assert recorded_pairs.judged([one, left_out]) == []
    assert len(recorded_pairs.judged([ran_as(one, "bf16+compile"), ran_as(other, "bf16+compile")])) == 2
    assert recorded_pairs.judged([ran_as(one, "bf16+compile"), ran_as(other, "bf16+compile:tuned")]) == []
    by_all = [ran_as(one, "bf16+compile"), ran_as(other, "bf16+compile"), ran_as(another, "bf16+compile:tuned")]
    assert recorded_pairs.judged_by_all(by_all) == []
