from __future__ import annotations

import getpass
import os
import sys
import tempfile
from collections.abc import Iterator

import pytest

pytest_plugins = ["pytester"]

# Models this small gain nothing from more threads, and tests of several workers share the machine. torch, and every
# process that a test starts, reads it when it is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Where inductor keeps what it compiled by default, told here because temporary folders move below: a graph that one
# worker or an earlier run compiled is not compiled again.
COMPILED = f"{tempfile.gettempdir()}/torchinductor_{getpass.getuser()}"
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", COMPILED)


@pytest.fixture(scope="session", autouse=True)
def _own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The device's lock lies in it: processes that test the plugin do not wait for each other, nor for a user's."""
    folder = tmp_path_factory.mktemp("tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield


@pytest.fixture(autouse=True)
def _forget_compilations():
    """What a test compiled must not count against dynamo's limits, or as known, in the next test of the process."""
    yield
    if dynamo := sys.modules.get("torch._dynamo"):
        dynamo.reset()
