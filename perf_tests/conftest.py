"""Workloads of this suite: the published FLUX.1-dev setting on a GPU, a shorter one on a CPU.

Marks, each with the reason that a skip gives:

- ``not_on_cpu``: left out on a CPU;
- ``threshold``: one of several thresholds of a cache; with random weights, whose caches follow a fixed schedule, they
  are all the same, so one of them is enough;
- ``extra``, ``long``, ``prompts50``: beside the published tables, minutes each, 50 pictures each; on a GPU they run
  only where ``-m`` names them, as in ``-m extra``, and 50 pictures also on a CPU.
"""

from __future__ import annotations

import os

import pytest

ON_REQUEST = {
    "extra": "is beside the published tables",
    "long": "takes minutes on a GPU",
    "prompts50": "makes 50 pictures a test",
}


ON_CPU: pytest.StashKey[bool] = pytest.StashKey()


def on_cpu(config: pytest.Config) -> bool:
    """Whether it will be measured on a CPU; asked for before the plugin has a session."""
    if ON_CPU not in config.stash:
        from pytest_fluxperf.errors import FluxPerfError
        from pytest_fluxperf.machine.hardware import check_gpu
        from pytest_fluxperf.plugin.options import run_settings

        try:
            config.stash[ON_CPU] = check_gpu(run_settings(config).gpu).device == "cpu"
        except FluxPerfError:  # the plugin says what is wrong
            config.stash[ON_CPU] = False
    return config.stash[ON_CPU]


def pytest_configure(config: pytest.Config) -> None:
    """On a CPU use one thread: two that wait for each other suffer most from whatever else the machine does."""
    config.addinivalue_line("markers", "not_on_cpu(reason): recipes that the CPU suite leaves out")
    config.addinivalue_line("markers", "threshold: one of several thresholds of the same cache")
    for name, why in ON_REQUEST.items():
        config.addinivalue_line("markers", f"{name}: {why}; run by -m {name}")
    if on_cpu(config):
        os.environ["OMP_NUM_THREADS"] = "1"


def left_out(item: pytest.Item, config: pytest.Config) -> str | None:
    """Why a test is not run here, or None."""
    from pytest_fluxperf.pipelines.models import RANDOM
    from pytest_fluxperf.plugin.options import run_settings

    threshold, cpu = item.get_closest_marker("threshold"), on_cpu(config)
    if cpu and (not_on_cpu := item.get_closest_marker("not_on_cpu")):
        return str(not_on_cpu.kwargs["reason"])
    for name, why in ON_REQUEST.items():
        asked = name in config.option.markexpr or (cpu and name != "prompts50")
        if item.get_closest_marker(name) and not asked:
            return f"it {why}; run it by -m {name}"
    if cpu:
        return "one setting of each cache is enough to test the gate on a CPU" if threshold else None
    if threshold and (run_settings(config).model or "").endswith(RANDOM):
        return "random weights meet no threshold: one setting of each cache measures them all"
    return None


def switching_cost(item: pytest.Item) -> tuple[str, ...]:
    """Sort key by what is expensive to change, so that tests that share it follow each other."""
    from pytest_fluxperf.errors import FluxPerfError
    from pytest_fluxperf.pipelines.optimizations.presets import expand
    from pytest_fluxperf.plugin.collect import session_of
    from pytest_fluxperf.recipe import parse

    session = session_of(item.config)
    try:
        expanded = expand(parse(item.callspec.params["flux"], dtype=session.dtype), session.device)
    except (AttributeError, KeyError, FluxPerfError):
        return ()  # no recipe, or one that the plugin refuses with a message of its own
    families = ("quantization", "attention", "compile", "cache")
    return (expanded.dtype, *(str(expanded.token(family) or "") for family in families))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give every test the workload of the hardware (its own marker wins), and order tests by what they share."""
    # The embedded model needs 28 steps for its best pictures, but 8 show every optimization at work, and the whole
    # suite has to end within minutes on two cores.
    workload = {"steps": 8} if on_cpu(config) else {"size": 1024, "steps": 28, "guidance": 3.5}
    small = workload if on_cpu(config) else workload | {"size": 512}
    for item in items:
        if reason := left_out(item, config):
            item.add_marker(pytest.mark.skip(reason=reason))
        chosen = small if item.get_closest_marker("prompts50") else workload
        item.add_marker(pytest.mark.fluxperf(**chosen), append=True)
    items.sort(key=switching_cost)
