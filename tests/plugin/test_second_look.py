"""What is slower by wall time alone is measured once more after the last test, in a fresh process."""

from __future__ import annotations

import pytest

from pytest_fluxperf.plugin import second_look

YES = "--fluxperf-second-look=yes"


def test_what_is_slow_again_fails(recorded):
    result = recorded.run(YES, fault="slow decode")
    result.assert_outcomes(passed=1, failed=1)
    judgement = recorded.judgement("fbcache")
    assert judgement["verdict"] == "regressed"
    (again,) = [text for text in judgement["warnings"] if "again" in text]
    assert again == "measured again in a fresh process: p50 0.209 s"
    result.stdout.fnmatch_lines(["*fluxperf: measuring 1 test again in a fresh process"])


def test_a_slow_spell_that_is_over_is_acquitted(recorded, monkeypatch):
    measure_once = second_look.measure_once

    def later(*arguments, **options):
        (recorded.pytester.path / "fault.txt").write_text("")
        return measure_once(*arguments, **options)

    monkeypatch.setattr(second_look, "measure_once", later)
    result = recorded.run(YES, fault="slow decode")
    result.assert_outcomes(passed=2)
    judgement = recorded.judgement("fbcache")
    assert judgement["verdict"] == "passed"
    assert "measured again in a fresh process: p50 0.19 s" in judgement["warnings"]


def test_a_second_measurement_that_fails_acquits_nobody(recorded, monkeypatch):
    monkeypatch.setattr(second_look, "find_python", lambda path: recorded.pytester.path / "none")
    recorded.run(YES, fault="slow decode").assert_outcomes(passed=1, failed=1)
    (why,) = [text for text in recorded.judgement("fbcache")["warnings"] if "again" in text]
    assert why.startswith("not measured again: ")


@pytest.mark.parametrize("mode", ["--fluxperf-second-look=no", "--fluxperf-update=all"])
def test_nothing_is_measured_again_where_nobody_wants_it(recorded, monkeypatch, mode):
    monkeypatch.setattr(second_look, "measure_once", lambda *_, **__: pytest.fail("was measured again"))
    result = recorded.run(mode, fault="slow decode")
    assert result.ret == (1 if mode.endswith("no") else 0)
