"""Publishing: what stops a release, and that nothing but the checked archives is uploaded."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
from actions import ROOT, workflow

DATED = "# Changelog\n\n## 1.2.0 - 2026-11-29\n\n- new\n\n## 1.1.0 - 2026-10-01\n"


@pytest.fixture(scope="module")
def program():
    return runpy.run_path(str(ROOT / "tools" / "release_check.py"))


@pytest.mark.parametrize("tag", ["v1.2.0", None])
@pytest.mark.parametrize(
    "changelog", [DATED, DATED.replace("## 1.2.0", "## Unreleased\n\n## 1.2.0"), DATED.replace("1.2.0 ", "[1.2.0] ")]
)
def test_tag_version_and_changelog_agree(program, tag, changelog):
    program["check_version"]("1.2.0", changelog, tag)


@pytest.mark.parametrize(
    ("tag", "changelog", "reason"),
    [
        ("v1.2.1", DATED, "the tag is v1.2.1"),
        ("1.2.0", DATED, "the tag is 1.2.0"),
        ("v1.2.0", DATED.replace(" - 2026-11-29", ""), "newest section"),
        ("v1.2.0", DATED.replace("1.2.0", "1.2.0rc1"), "newest section"),
        ("v1.2.0", DATED.replace("## 1.2.0 -", "## 1x2x0 -"), "newest section"),
        ("v1.2.0", DATED.replace("## 1.2.0", "## Unreleased\n\n- more\n\n## 1.2.0"), "Unreleased"),
        ("v1.2.0", "# Changelog\n", "newest section"),
    ],
)
def test_a_release_that_contradicts_itself_is_stopped(program, tag, changelog, reason):
    with pytest.raises(program["Fault"], match=reason):
        program["check_version"]("1.2.0", changelog, tag)


def test_this_version_has_its_section(program):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    program["check_version"](version, (ROOT / "CHANGELOG.md").read_text(), None)


WHEEL = (
    "pytest_fluxperf/py.typed",
    "pytest_fluxperf/plugin/__init__.py",
    "pytest_fluxperf/pipelines/tiny/model/model_index.json",
    "pytest_fluxperf-1.2.0.dist-info/licenses/LICENSE",
)


def wheel(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return path


def test_a_wheel_holds_the_package_and_nothing_else(program, tmp_path):
    program["check_wheel"](wheel(tmp_path / "a.whl", WHEEL))
    program["check_wheel"](wheel(tmp_path / "a.whl", [name.replace("/__init__", "") for name in WHEEL]))
    for name in WHEEL:
        with pytest.raises(program["Fault"], match="lacks"):
            program["check_wheel"](wheel(tmp_path / "a.whl", set(WHEEL) - {name}))
    for name in ("tests/test_a.py", "pytest_fluxperf_more/a.py"):
        with pytest.raises(program["Fault"], match=f"holds {name}"):
            program["check_wheel"](wheel(tmp_path / "a.whl", [*WHEEL, name]))


def test_an_archive_that_the_index_refuses_is_stopped(program, tmp_path):
    path = tmp_path / "a.whl"
    with path.open("wb") as file:
        file.truncate(101 * 1024**2)
    with pytest.raises(program["Fault"], match="101 MiB"):
        program["check_size"](path)


def test_a_command_that_fails_stops_the_release(program):
    with pytest.raises(program["Fault"], match="status 3"):
        program["run"](sys.executable, "-c", "raise SystemExit(3)")


def test_requirements_that_are_not_met_stop_the_release(program, tmp_path):
    python = program["environment"](tmp_path / "environment", sys.executable)
    place = next((tmp_path / "environment").glob("lib/*/site-packages"))
    info = place / "pytest_fluxperf-9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: pytest-fluxperf\nVersion: 9\nRequires-Dist: surely-not-there>=3\n"
    )
    with pytest.raises(program["Fault"], match="requires surely-not-there"):
        program["check_requirements"](python)


def test_the_tag_reaches_the_check_and_a_mismatch_ends_it():
    (step,) = [s for s in workflow("release")["jobs"]["build"]["steps"] if "run" in s]
    assert step["run"] == "make release-check"
    assert step["env"] == {"TAG": "${{ github.ref_type == 'tag' && github.ref_name || '' }}"}
    command = [sys.executable, ROOT / "tools" / "release_check.py"]
    done = subprocess.run(command, env={"TAG": "v0.0.0"}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the tag is v0.0.0" in done.stderr


def test_the_right_to_publish_stands_beside_no_code_of_ours():
    jobs = workflow("release")["jobs"]
    assert "id-token" not in jobs["build"]["permissions"]
    publish = jobs["publish"]
    assert publish["needs"] == "build"
    assert publish["if"] == "github.ref_type == 'tag'"
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"]["name"] == "pypi"
    assert not [step for step in publish["steps"] if "run" in step]
    used = [step["uses"].partition("@")[0] for step in publish["steps"]]
    assert used == ["actions/download-artifact", "pypa/gh-action-pypi-publish"]
    assert publish["steps"][1]["with"] == {"attestations": True}


def test_make_runs_the_whole_check():
    make = shutil.which("make")
    assert make
    done = subprocess.run(
        [make, "--no-print-directory", "-n", "release-check"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].endswith("tools/release_check.py --packages .venv/bin/python")
