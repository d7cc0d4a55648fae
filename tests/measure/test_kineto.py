from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from pytest_fluxperf.measure import kineto
from pytest_fluxperf.measure.profile import profile_generation
from pytest_fluxperf.measure.work import count

PROFILED = """
import torch
from pytest_fluxperf.measure import kineto
for _ in range(2):
    profiler = kineto.profiler("cpu")
    profiler.start()
    torch.ones(3) + 1
    profiler.stop()
    assert any("add" in event.name() for event in profiler.profiler.kineto_results.events())
"""


def said(**variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != kineto.LOG_LEVEL}
    done = subprocess.run(
        [sys.executable, "-c", PROFILED],
        env={**environment, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr


def test_a_profile_announces_nothing():
    assert said() == ""


def test_a_level_that_the_user_chose_is_kept():
    assert "Completed Stage" in said(KINETO_LOG_LEVEL="3")


def test_a_gpu_without_a_kernel_is_warned_of(monkeypatch):
    """As where CUPTI may not be used; here there is no GPU at all."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    with pytest.warns(RuntimeWarning, match="saw no kernel on cuda:0.*KINETO_LOG_LEVEL=4"):
        assert not profile_generation(lambda: torch.ones(3) + 1, "cuda:0").kernels
    pipe = type("Pipe", (), {"transformer": torch.nn.Identity(), "vae": None, "encode_prompt": None})()
    profiler = kineto.profiler
    monkeypatch.setattr(kineto, "profiler", lambda device, **_: profiler("cpu"))  # torch refuses one of CUDA alone here
    with pytest.warns(RuntimeWarning, match="saw no kernel on cuda:0"):
        assert count(lambda: torch.ones(3) + 1, pipe, "cuda:0", lambda: None) is None
