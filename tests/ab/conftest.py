from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakechildren import Fakes, alive, children


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


@pytest.fixture(autouse=True)
def no_orphans() -> Iterator[None]:
    """After each test no process that it started is left."""
    before = children()
    yield
    left = [pid for pid in children() - before if alive(pid)]
    assert not left, f"orphans: {left}"
