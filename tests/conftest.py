from __future__ import annotations

import sys

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True)
def _forget_compilations():
    """What a test compiled must not count against dynamo's limits, or as known, in the next test of the process."""
    yield
    if dynamo := sys.modules.get("torch._dynamo"):
        dynamo.reset()
