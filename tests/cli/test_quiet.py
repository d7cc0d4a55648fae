"""What libraries say while they are imported is not shown beside what the user asked for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

TEST = """
import logging
import warnings

import pytest

@pytest.mark.fluxperf(steps=1, prompts=["a red circle"], warmup=0, recipe="fp32")
def test_it(flux, flux_inputs):
    logging.getLogger("users_own").warning("a warning of the user's")
    raise RuntimeError("out of luck")
"""
PLAIN = "from diffusers import FluxPipeline; import torchao.quantization"
CHATTER = ("torchvision", "torchao", "Enum subclass")


def run(folder, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, without torchvision, which some messages ask for."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['torchvision'] = None\n{program}"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        check=False,
    )


def test_the_libraries_have_something_to_say(tmp_path):
    """Else the tests below would test nothing; what exactly depends on their versions."""
    assert any(word in run(tmp_path, PLAIN).stderr for word in CHATTER)


@pytest.mark.parametrize("command", [["doctor", "--gpu", "cpu"], ["recipes", "--device", "cpu"]], ids=lambda c: c[0])
def test_a_command_shows_its_table_alone(tmp_path, command):
    done = run(tmp_path, f"from pytest_fluxperf.cli import main; sys.exit(main({command!r}))")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "recipes" in done.stdout or "fbcache" in done.stdout


def test_a_failing_test_shows_the_users_own_messages_alone(tmp_path):
    (tmp_path / "test_it.py").write_text(TEST)
    done = run(tmp_path, "import pytest; sys.exit(pytest.main(['--gpu=cpu', '-p', 'no:cacheprovider']))")
    assert done.returncode == 1
    assert "a warning of the user's" in done.stdout
    assert "RuntimeError: out of luck" in done.stdout
    told = done.stdout + done.stderr
    assert [
        word for word in ("Enum subclass", "requires torchvision", "Unable to import", "Failed to load") if word in told
    ] == []
