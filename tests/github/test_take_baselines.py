"""The job that can write takes decoded baselines from a machine where a request's code ran, or nothing."""

from __future__ import annotations

import hashlib
import io
import runpy
import shutil
import zlib
from pathlib import Path

import msgspec
import pytest
from actions import ROOT
from PIL import Image, PngImagePlugin

from pytest_fluxperf.baseline.codec import decode, encode

STORED = ROOT / "baselines" / "cpu"


@pytest.fixture(scope="module")
def program():
    return runpy.run_path(str(ROOT / ".github" / "scripts" / "take_baselines.py"))


@pytest.fixture
def proposal(tmp_path):
    folder = tmp_path / "proposal"
    shutil.copytree(STORED, folder / "cpu")
    return folder


@pytest.fixture
def baselines(tmp_path):
    folder = tmp_path / "baselines"
    shutil.copytree(STORED, folder / "cpu")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def some(proposal: Path) -> Path:
    return sorted((proposal / "cpu").rglob("*.json"))[0]


def change(path: Path, **fields: object) -> None:
    path.write_bytes(encode(msgspec.structs.replace(decode(path.read_bytes(), path.name), **fields)))


def add_picture(proposal: Path, png: bytes) -> None:
    """A picture that a baseline of the proposal needs."""
    name = hashlib.sha256(png).hexdigest()
    (proposal / "cpu" / "images" / f"{name}.png").write_bytes(png)
    path = some(proposal)
    run = decode(path.read_bytes(), path.name).runs[-1]
    samples = (msgspec.structs.replace(run.samples[0], picture=name), *run.samples[1:])
    change(path, runs=(msgspec.structs.replace(run, samples=samples),))


def png(size: tuple[int, int] = (4, 4), **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "PNG", **options)
    return file.getvalue()


def bomb() -> bytes:
    """A few kilobytes that would unpack to 100,000 × 100,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (100_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    data = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def long_text() -> bytes:
    note = PngImagePlugin.PngInfo()
    note.add_text("note", "x" * 100_000_000, zip=True)
    return png(pnginfo=note)


def write(name: str, data: bytes):
    def damage(proposal: Path) -> None:
        path = proposal / "cpu" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return damage


def link(target: str, name: str):
    def damage(proposal: Path) -> None:
        path = proposal / "cpu" / name
        if path.is_dir():
            shutil.rmtree(path)
        path.symlink_to(target)

    return damage


def edited(proposal: Path) -> None:
    path = some(proposal)
    path.write_bytes(path.read_bytes().replace(b'"latency_s": 0.', b'"latency_s": 9.', 1))


def huge(proposal: Path) -> None:
    with some(proposal).open("r+b") as file:
        file.truncate(5 * 1024**2)


def many(proposal: Path) -> None:
    for number in range(5001):
        (proposal / "cpu" / f"{number}.json").touch()


HOSTILE = {
    "a link": (link("/etc/passwd", "a.json"), "no plain file"),
    "a linked folder": (link("/etc", "etc"), "no plain file"),
    "linked pictures": (link("/tmp", "images"), "no plain file"),
    "a program": (write("conftest.py", b"import os"), "only baselines"),
    "a hidden file": (write(".gitattributes", b"* filter=x"), "only baselines"),
    "a name of a workflow command": (write("a\n::error::b.json", b"{}"), "only baselines"),
    "a picture elsewhere": (write("perf_tests/a.png", png()), "only baselines"),
    "a picture without a digest": (write("images/a.png", png()), "only baselines"),
    "a baseline among pictures": (write("images/a.json", b"{}"), "only baselines"),
    "no JSON": (write("a.json", b"{"), "a.json"),
    "deep JSON": (write("a.json", b"[" * 100_000), "a.json"),
    "JSON of something else": (write("a.json", b'{"format": 1}'), "a.json"),
    "an edited baseline": (edited, "it was edited"),
    "a baseline of another test": (lambda p: shutil.copy(some(p), p / "cpu" / "a.json"), "another test"),
    "a huge baseline": (huge, "bytes"),
    "many files": (many, "more than 5000 files"),
    "a picture that is missing": (lambda p: shutil.rmtree(p / "cpu" / "images"), "needs it"),
    "a picture of another content": (
        lambda p: next((p / "cpu" / "images").iterdir()).write_bytes(png()),
        "does not match the name",
    ),
    "no picture": (lambda p: add_picture(p, b"\x89PNG\r\n\x1a\n"), "no picture"),
    "a JPEG": (lambda p: add_picture(p, b"\xff\xd8\xff\xe0" + bytes(100)), "no picture"),
    "a cut picture": (lambda p: add_picture(p, png((64, 64))[:-40]), "no picture"),
    "a large picture": (lambda p: add_picture(p, png((4096, 4097))), "4096 × 4097 pixels"),
    "a bomb of pixels": (lambda p: add_picture(p, bomb()), "no picture"),
    "a bomb of text": (lambda p: add_picture(p, long_text()), "no picture"),
    "another GPU's": (lambda p: (p / "cpu").rename(p / "h100"), "no folder"),
    "a linked proposal": (
        lambda p: ((p / "cpu").rename(p / "x"), (p / "cpu").symlink_to(p / "x")),
        "no folder",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_anything_else_refuses_all_of_it(program, proposal, baselines, kind):
    for path in list((proposal / "cpu").rglob("*.json"))[1:]:
        runs = decode(path.read_bytes(), path.name).runs
        change(path, runs=runs[:1])  # what would be taken if the rest were not there
    damage, reason = HOSTILE[kind]
    damage(proposal)
    with pytest.raises(program["Refusal"], match=reason):
        program["take"](proposal, baselines, "cpu")
    assert content(baselines / "cpu") == content(STORED)


def test_a_link_in_the_checkout_is_not_followed(program, proposal, baselines, tmp_path):
    outside = tmp_path / "outside"
    (baselines / "cpu").rename(outside)
    (baselines / "cpu").symlink_to(outside)
    with pytest.raises(program["Refusal"], match="link in the checkout"):
        program["take"](proposal, baselines, "cpu")


def test_what_did_not_change_is_left_alone(program, proposal, baselines):
    assert program["take"](proposal, baselines, "cpu") == []
    assert content(baselines / "cpu") == content(STORED)


def test_a_new_baseline_and_its_pictures_are_added(program, proposal, tmp_path):
    changes = program["take"](proposal, tmp_path / "empty", "cpu")
    assert {old for old, _ in changes} == {None}
    assert content(tmp_path / "empty" / "cpu") == content(STORED)


def test_what_is_written_is_what_was_decoded(program, proposal, baselines):
    path = some(proposal)
    change(path, tau0=0.009)
    wanted = path.read_bytes()
    path.write_bytes(b"\n" * 1000 + wanted.replace(b": ", b":    "))
    program["take"](proposal, baselines, "cpu")
    assert (baselines / path.relative_to(proposal)).read_bytes() == wanted


def test_nothing_is_deleted_but_pictures_that_nobody_needs(program, proposal, baselines):
    gone = some(proposal)
    gone.unlink()
    add_picture(proposal, png())
    program["take"](proposal, baselines, "cpu")
    assert (baselines / gone.relative_to(proposal)).exists()
    needed = set()
    for path in baselines.rglob("*.json"):
        for run in decode(path.read_bytes(), path.name).runs:
            needed |= {name for s in run.samples for name in (s.picture, s.reference_picture) if name}
    assert {path.stem for path in (baselines / "cpu" / "images").iterdir()} == needed


def test_the_text_is_made_of_decoded_values_and_bounded(program, proposal, baselines):
    path = some(proposal)
    stored = decode(path.read_bytes(), path.name)
    hostile = msgspec.structs.replace(stored, test="a.py::t[`|<img src=x>@all\n\n# done]", runs=stored.runs[:1])
    text = program["text"]([(stored, hostile)] * 5000, "cpu", "https://example.org/run")
    assert len(text) < 65_536
    assert "more." in text
    (row,) = {line for line in text.splitlines() if "a.py" in line}
    assert row.count("|") == 4
    assert "<img" not in row
    assert "@all" not in row
    assert "| 3 → 1 |" in row
    assert "https://example.org/run" in text


def test_a_refusal_is_told_in_one_line(program, proposal, baselines, monkeypatch, capsys):
    write("x\n::set-output name=a::b.txt", b"")(proposal)
    monkeypatch.setattr("sys.argv", ["take_baselines.py", str(proposal), str(baselines), "cpu"])
    assert program["main"]() == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("::error::the proposal is refused")
