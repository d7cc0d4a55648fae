"""The latencies of a session judged together: findings of a test, of all tests, and of both."""

from __future__ import annotations

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from test_pooled import document, result

from pytest_fluxperf.gate.compare import compare_documents
from pytest_fluxperf.gate.policy import Policy

TESTS = "abcdefghijkl"


def judged(slower):
    """Verdict and message of every test of a session, each slower by ``slower(test)`` of log latency."""
    base = document(*(result(test, seed) for seed, test in enumerate(TESTS)))
    new = document(*(result(test, 50 + seed, slower(test)) for seed, test in enumerate(TESTS)))
    compared = compare_documents(base, new, Policy.of())
    return {r.test: (r.judgement.verdict, r.judgement.message) for r in compared.results}


def test_one_slower_test_is_told_from_what_all_share():
    found = judged(lambda test: math.log(1.01) + (math.log(1.08) if test == "a" else 0.0))
    assert found["a"][0] == "regressed"
    assert {verdict for test, (verdict, _) in found.items() if test != "a"} <= {"passed", "inconclusive"}
    assert "that all tests share taken out" in found["a"][1]


def test_a_session_that_is_slower_as_a_whole_fails_in_its_tests():
    found = judged(lambda _: math.log(1.08))
    assert {verdict for verdict, _ in found.values()} == {"regressed"}
    assert all("slower together with the 12 tests of this session" in message for _, message in found.values())
