"""The dependency gate from pins to comment, on this machine and its model: a pin moves and brings a slow-down."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from actions import ROOT, Runner, script

TESTS = """
import time

import planted
import pytest


@pytest.fixture
def served(flux):
    handle = flux.vae.decoder.register_forward_pre_hook(lambda *_: time.sleep(planted.SECONDS))
    yield flux
    handle.remove()


@pytest.mark.fluxperf(steps=2, size=64, samples=4, max_slowdown=0.5)
@pytest.mark.parametrize("flux", ["fp32+fora"], indirect=True)
def test_served(served, flux_inputs):
    return served(**flux_inputs).images
"""


def wheel(folder: Path, version: str, seconds: float) -> None:
    """The package ``planted``; it also lets its environment see the packages of this one."""
    info = f"planted-{version}.dist-info"
    files = {
        "planted.py": f"SECONDS = {seconds}\n",
        "planted_shared.pth": "".join(f"{place}\n" for place in site.getsitepackages()),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: planted\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"planted-{version}-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def repository(folder: Path, bumped: str) -> Path:
    """What the runner checks out: the merge of a request that moves the pin to ``bumped``."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "pytest_fluxperf", folder / "pytest_fluxperf", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "perf_tests").mkdir()
    (folder / "perf_tests" / "test_served.py").write_text(TESTS)
    pins = folder / "requirements" / "perf.txt"
    pins.parent.mkdir()
    pins.write_text("planted==1.0\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "main")
    git(folder, "checkout", "-q", "-b", "bump")
    pins.write_text(f"planted=={bumped}\n")
    git(folder, "commit", "-q", "-a", "-m", "bump")
    git(folder, "checkout", "-q", "main")
    git(folder, "merge", "-q", "--no-ff", "bump", "-m", "what pull_request checks out")
    return folder


@pytest.fixture
def runner(tmp_path):
    def make(bumped: str) -> Runner:
        wheels, workspace = tmp_path / "wheels", tmp_path / "workspace"
        wheels.mkdir()
        workspace.mkdir()
        for version, seconds in (("1.0", 0.0), ("1.1", 0.0), ("2.0", 0.5)):
            wheel(wheels, version, seconds)
        environment = {
            "GPU": "cpu",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "",
            "PYTEST_ADDOPTS": "",
            "UV_CACHE_DIR": str(tmp_path / "cache"),
            "UV_FIND_LINKS": str(wheels),
            "UV_NO_BUILD_ISOLATION": "1",
            "UV_NO_INDEX": "1",
            "UV_PYTHON": sys.executable,
        }
        return Runner(tmp_path, repository(workspace, bumped), environment)

    return make


def gate(runner: Runner) -> tuple[int, str]:
    """Status and output of the gate; the steps after it must work whatever it says."""
    built = runner.run(script("dependency-gate", "gate", "Both environments"))
    assert built.returncode == 0, built.stdout + built.stderr
    gated = runner.run(script("dependency-gate", "gate", "Gate"))
    told = runner.run(script("dependency-gate", "gate", "Summary and annotations"))
    assert told.returncode == 0, gated.stdout + gated.stderr + told.stderr
    return gated.returncode, told.stdout


def comment(runner: Runner) -> str:
    """What the job ``comment`` would post of the artifact."""
    shutil.copytree(runner.temporary / "reports", runner.temporary / "runs" / "dependency-gate-cpu")
    lines = script("dependency-gate", "comment", "Comment").splitlines()
    (render,) = [line for line in lines if line.startswith("fluxperf report")]
    done = runner.run(render, RUN_URL="https://github.example/octo/repo/actions/runs/7", PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    return (runner.workspace / "comment.md").read_text()


def test_a_pin_that_slows_a_recipe_down_blocks_and_is_named(runner):
    here = runner("2.0")
    status, annotations = gate(here)
    assert status == 1
    assert annotations.startswith("::error file=perf_tests/test_served.py,title=")
    text = comment(here)
    assert "1 of 1 regressed" in text.splitlines()[0]
    assert "fp32+fora" in text
    assert "why: decoding +0.5" in text, "the first suspect"
    assert "why: planted 1.0 → 2.0" in text
    assert "<code>1.0</code>" in text
    assert "<code>2.0</code>" in text
    assert "https://github.example/octo/repo/actions/runs/7" in text
    assert len(text) < 60_000
    assert "regressed" in here.summary.read_text()


def test_a_pin_that_changes_nothing_passes(runner):
    here = runner("1.1")
    status, annotations = gate(here)
    assert (status, annotations) == (0, "")
    assert "1 of 1" in comment(here)
