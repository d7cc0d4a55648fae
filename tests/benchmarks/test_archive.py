"""Recorded measurements are read from their archive, and kept in it without a trace of the machine or the time."""

from __future__ import annotations

import json

import msgspec
import pytest

from pytest_fluxperf.errors import FluxPerfError
from tools.recorded.__main__ import main
from tools.recorded.archive import ARCHIVE, keep, read_documents, read_members, recorded, recorded_json


@pytest.fixture
def archive(tmp_path):
    """Two sessions and the figures of a program."""
    path = tmp_path / "recorded.tar.xz"
    first, second, _ = recorded("h200-results*")
    files = {"b-2.json": msgspec.json.encode(first), "b-1.json": msgspec.json.encode(second), "c.json": b'{"x": 1}'}
    keep(files, path)
    return path, first, second


def test_sources_are_files_and_patterns_of_an_archive_in_their_order(archive, tmp_path):
    path, first, second = archive
    alone = tmp_path / "results.json"
    alone.write_bytes(msgspec.json.encode(first))
    assert read_documents([str(alone), f"{path}:b-*"]) == [first, second, first]
    assert read_documents([str(tmp_path)]) == [first]
    assert recorded_json("c.json", path) == {"x": 1}


def test_what_is_kept_depends_on_the_content_alone(archive, tmp_path):
    path, *_ = archive
    before = path.read_bytes()
    added = tmp_path / "d.json"
    added.write_text('{\n  "é": 2\n}')
    assert main(["keep", str(added), "--as", "d.json", "--archive", str(path)]) == 0
    assert recorded_json("d.json", path) == {"é": 2}
    assert recorded_json("c.json", path) == {"x": 1}
    again = tmp_path / "again.tar.xz"
    keep(dict(read_members(path)), again)
    assert again.read_bytes() == path.read_bytes() != before


def test_what_is_not_there_is_named(archive, tmp_path, capsys):
    path, *_ = archive
    with pytest.raises(FluxPerfError, match=r"recorded\.tar\.xz holds nothing that matches z-\*; list it by: tar -tf"):
        read_documents([f"{path}:z-*"])
    with pytest.raises(FluxPerfError, match=r"holds no z\.json"):
        recorded_json("z.json", path)
    (tmp_path / "bad.json").write_text("{")
    assert main(["keep", str(tmp_path / "bad.json"), "--as", "bad.json", "--archive", str(path)]) == 4
    assert "bad.json is not JSON" in capsys.readouterr().err
    assert "bad.json" not in read_members(path)
    (tmp_path / "no.tar.xz").write_bytes(b"no archive")
    assert main(["table", f"{tmp_path}/no.tar.xz:*"]) == 4
    assert "cannot read" in capsys.readouterr().err


def test_every_session_of_the_projects_archive_is_read():
    names = [name for name, content in read_members(ARCHIVE).items() if "format" in json.loads(content)]
    assert len(names) == 44
    assert len({document.session for name in names for document in recorded(name)}) == 44
