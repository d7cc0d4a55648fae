from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakechildren import Fakes, alive, children


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


@pytest.fixture(autouse=True)
def no_orphans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """After each test no process that it started is left."""
    here = tmp_path_factory.getbasetemp()
    yield
    left = [pid for pid in children(here) if alive(pid)]
    assert not left, f"orphans: {left}"
