"""Workloads of this suite: the published FLUX.1-dev setting on a GPU, a shorter one on a CPU."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark every test with the workload of the hardware; a test's own marker wins."""
    on_cpu = (config.getoption("--gpu") or "auto") == "cpu"
    # The embedded model needs 28 steps for its best pictures, but 12 show every optimization at work, and the
    # whole suite has to end within minutes on two cores.
    workload = {"steps": 12} if on_cpu else {"size": 1024, "steps": 28, "guidance": 3.5}
    for item in items:
        item.add_marker(pytest.mark.fluxperf(**workload), append=True)
