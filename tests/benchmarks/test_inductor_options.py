"""Sets of inductor's options: one that fails is told in a line, one that is unknown is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def inductor_options(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import inductor_options

    return inductor_options


def test_a_set_that_fails_is_one_line_beside_the_others(inductor_options):
    def measure(name):
        raise RuntimeError("Unexpected optimization option\nknown options are ...")

    row = inductor_options.measured(SimpleNamespace(measure=measure), "descent")
    assert inductor_options.line(row) == "descent    RuntimeError: Unexpected optimization option"


def test_an_unknown_set_is_refused_before_anything_is_loaded(inductor_options, monkeypatch, capsys):
    monkeypatch.setattr(inductor_options, "Machine", lambda chosen: pytest.fail("was loaded"))
    monkeypatch.setattr(sys, "argv", ["inductor_options.py", "--sets=blocks,nothing"])
    with pytest.raises(SystemExit):
        inductor_options.main()
    assert "no set nothing; there are blocks, pointwise" in capsys.readouterr().err
