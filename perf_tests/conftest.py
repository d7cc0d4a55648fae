"""Workloads of this suite: the published FLUX.1-dev setting on a GPU, a shorter one on a CPU."""

from __future__ import annotations

import os

import pytest


def on_cpu(config: pytest.Config) -> bool:
    return (config.getoption("--gpu") or "auto") == "cpu"


def pytest_configure(config: pytest.Config) -> None:
    """On a CPU use one thread: two that wait for each other suffer most from whatever else the machine does."""
    config.addinivalue_line("markers", "not_on_cpu(reason): recipes that the CPU suite leaves out")
    if on_cpu(config):
        os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark every test with the workload of the hardware; a test's own marker wins."""
    # The embedded model needs 28 steps for its best pictures, but 8 show every optimization at work, and the whole
    # suite has to end within minutes on two cores.
    workload = {"steps": 8} if on_cpu(config) else {"size": 1024, "steps": 28, "guidance": 3.5}
    for item in items:
        left_out = item.get_closest_marker("not_on_cpu")
        if on_cpu(config) and left_out:
            item.add_marker(pytest.mark.skip(reason=left_out.kwargs["reason"]))
        item.add_marker(pytest.mark.fluxperf(**workload), append=True)
