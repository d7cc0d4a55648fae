"""Files that others may have a hand in."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_fluxperf.baseline.store import LOCK_NAME, BaselineStore
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.files import locked, write_whole


def test_a_file_is_replaced_whole_and_readable_by_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_whole(path, b"old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "a.json"
    victim.write_text("mine")
    path.symlink_to(victim)
    write_whole(path, b"new")
    assert (victim.read_text(), path.read_bytes(), path.is_symlink()) == ("mine", b"new", False)


def test_what_a_killed_writer_left_is_removed_and_a_live_ones_is_not(tmp_path: Path) -> None:
    path, left, live, foreign = (tmp_path / name for name in ("a.json", ".a.json.x.tmp", ".a.json.y.tmp", ".b.x.tmp"))
    for one in (left, live, foreign):
        one.write_text("half")
        if one != live:
            os.utime(one, (0, 0))
    write_whole(path, b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, live, foreign])


def test_baselines_are_cleared_of_what_killed_writers_left(tmp_path: Path) -> None:
    store = BaselineStore(tmp_path, "h100")
    left = [store.folder / "perf" / ".test_a.json.x.tmp", store.images / ".0.png.x.tmp"]
    for one in left:
        one.parent.mkdir(parents=True)
        one.write_text("half")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".x.tmp").write_text("not ours")
    (store.folder / "link").symlink_to(elsewhere)
    store.require_writable()
    assert not any(one.exists() for one in left)
    assert (elsewhere / ".x.tmp").exists()


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "pipe"])
def test_a_lock_that_is_no_plain_file_is_refused(tmp_path: Path, kind: str) -> None:
    path, victim = tmp_path / "device.lock", tmp_path / "victim"
    if kind in ("link", "dangling"):
        if kind == "link":
            victim.write_text("mine")
        path.symlink_to(victim)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with (
        pytest.raises(FluxPerfError, match=r"device\.lock: is no plain file and cannot be locked; remove it"),
        locked(path),
    ):
        pass
    assert victim.exists() == (kind == "link")
    assert kind != "link" or victim.read_text() == "mine"


def test_a_lock_in_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FluxPerfError, match="cannot be locked"), locked(tmp_path / "file" / "a.lock"):
        pass


def test_the_lock_of_baselines_that_is_a_link_is_refused(tmp_path: Path) -> None:
    store = BaselineStore(tmp_path, "h100")
    store.folder.mkdir()
    (store.folder / LOCK_NAME).symlink_to(tmp_path / "victim")
    with pytest.raises(FluxPerfError, match="cannot be locked"):
        store.require_writable()
    assert not (tmp_path / "victim").exists()


def test_a_lock_excludes_another_process(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    ask = (
        "import sys; from pathlib import Path; from pytest_fluxperf.files import locked\n"
        "try:\n    with locked(Path(sys.argv[1]), 0.0): print('free')\n"
        "except TimeoutError: print('held')"
    )

    def asked() -> str:
        return subprocess.run(
            [sys.executable, "-c", ask, path], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
        ).stdout.strip()

    with locked(path):
        assert asked() == "held"
    assert asked() == "free"
