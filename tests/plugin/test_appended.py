"""``fluxperf append`` does what ``--fluxperf-append`` would have done in the session."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pytest_fluxperf.cli import main


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*") if path.suffix != ".lock"}


@pytest.mark.parametrize("mode", ["absolute", "relative"])
def test_baselines_are_the_same_byte_for_byte(project, mode, capsys):
    inside, after = project.pytester.path / "baselines", project.pytester.path / "after"
    for said in ("recorded, ", "appended run 2, "):
        project.run("--fluxperf-append", latency=mode).assert_outcomes(passed=2)
        changes = project.results()["changes"]
        capsys.readouterr()
        assert main(["append", str(project.runs[-1]), "--baselines", str(after)]) == 0
        assert capsys.readouterr().out.splitlines() == [f"{c['test']}: {c['text']}" for c in changes]
        assert all(said in change["text"] for change in changes)
        assert files(after) == files(inside)
    assert any(name.endswith(".png") for name in files(after))


def test_a_session_that_lost_its_pictures_is_refused(project, capsys):
    project.run("--fluxperf-append")
    shutil.rmtree(project.runs[-1] / "images")
    capsys.readouterr()
    assert main(["append", str(project.runs[-1]), "--baselines", str(project.pytester.path / "after")]) == 4
    assert "a picture that the new baseline needs is missing" in capsys.readouterr().err
    assert not list((project.pytester.path / "after").rglob("*.json"))
