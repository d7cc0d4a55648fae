"""Files that were made to hurt: each reader refuses them in one line."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_fluxperf.ab.process import find_python
from pytest_fluxperf.baseline import published
from pytest_fluxperf.baseline.store import BaselineStore
from pytest_fluxperf.bench import prompts
from pytest_fluxperf.cli.comment import Repository, post
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.pipelines.integrity import check_model_folder
from pytest_fluxperf.pipelines.models import resolve
from pytest_fluxperf.pipelines.tiny import MODEL_DIR
from pytest_fluxperf.quality import images
from pytest_fluxperf.report import load_document

TEST = "perf/test_a.py::test_b"


def model(folder: Path, name: str, content: bytes) -> Path:
    shutil.copytree(MODEL_DIR, folder / "model")
    (folder / "model" / name).write_bytes(content)
    return folder / "model"


def read_baseline(folder: Path, content: bytes) -> None:
    store = BaselineStore(folder, "cpu")
    store.path(TEST).parent.mkdir(parents=True)
    store.path(TEST).write_bytes(content)
    store.load(TEST)


def read_published(folder: Path, content: bytes) -> None:
    (folder / "published").mkdir()
    (folder / "published" / "a.json").write_bytes(content)
    published.load(folder)


def read_prompts(folder: Path, content: bytes) -> None:
    (folder / "a.jsonl").write_bytes(content)
    prompts.load(str(folder / "a.jsonl"), (0,))


def read_document(folder: Path, content: bytes) -> None:
    (folder / "results.json").write_bytes(content)
    load_document(folder)


def read_settings(folder: Path, content: bytes) -> None:
    resolve(str(model(folder, "fluxperf.json", content)))


def read_index(folder: Path, content: bytes) -> None:
    resolve(str(model(folder, "model_index.json", content)))


def read_weights_index(folder: Path, content: bytes) -> None:
    check_model_folder(model(folder, "transformer/diffusion_pytorch_model.safetensors.index.json", content))


def read_weights(folder: Path, content: bytes) -> None:
    raw = len(content).to_bytes(8, "little") + content
    check_model_folder(model(folder, "transformer/diffusion_pytorch_model.safetensors", raw))


def read_transformer(folder: Path, content: bytes) -> None:
    check_model_folder(model(folder, "transformer/config.json", content))


READERS: tuple[Callable[[Path, bytes], None], ...] = (
    read_baseline, read_published, read_prompts, read_document, read_settings, read_index, read_weights_index,
    read_weights, read_transformer,
)  # fmt: skip


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "content",
    [
        b'{"format": ' + b"[" * 200_000,
        b'{"format": ' + b'{"a": ' * 200_000,
        b"[" * 200_000 + b"]" * 200_000,
        b'{"format": 1e400}',
        b'{"format": ' + b"9" * 10_000 + b"}",
        b"[1, 2]",
        b'"\xff"',
        b"null",
        b"",
    ],
    ids=["lists", "objects", "closed", "infinite", "digits", "list", "no UTF-8", "null", "empty"],
)
def test_json_without_end_or_of_another_kind_is_refused(tmp_path: Path, read: Any, content: bytes) -> None:
    with pytest.raises(FluxPerfError) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 2**70}, {"size": 16 * 2**60}, {"guidance": 1e300}, {"teacache_coefficients": [float("inf")]},
        {"teacache_coefficients": [float("nan")]}, {"max_sequence_length": 10**9},
    ],
)  # fmt: skip
def test_settings_of_a_model_are_bounded(tmp_path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(FluxPerfError, match=r"fluxperf\.json"):
        read_settings(tmp_path, json.dumps(values).encode())


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "..", "a/b", "", "a\0b", 7])
def test_an_index_of_weights_leads_out_of_no_folder(tmp_path: Path, name: Any) -> None:
    with pytest.raises(FluxPerfError, match="not an index of weights"):
        read_weights_index(tmp_path, json.dumps({"weight_map": {"x": name}}).encode())


@pytest.mark.parametrize(
    "header", [{"transformer_blocks": {"data_offsets": [0, 1], "shape": []}}, {"x": {"data_offsets": [0, 1e300]}}]
)
def test_names_and_sizes_of_weights_that_cannot_be_are_refused(tmp_path: Path, header: dict[str, Any]) -> None:
    with pytest.raises(FluxPerfError):
        read_weights(tmp_path, json.dumps(header).encode())


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("side", [9_000, 100_000])
def test_a_picture_that_would_fill_the_memory_is_not_decoded(tmp_path: Path, side: int) -> None:
    rows = zlib.compress(b"\0" * 1_000_000, 9)
    raw = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(raw + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    with pytest.raises(FluxPerfError, match=r"bomb\.png: not a readable picture"):
        images.load(tmp_path / "bomb.png")


def test_a_picture_is_a_png_whatever_it_is_called(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", format="gif")
    with pytest.raises(FluxPerfError, match="not a readable picture"):
        images.load(tmp_path / "a.png")


@pytest.mark.parametrize(
    "answer", [None, 7, [None], [{"user": 3, "body": ""}], [{"user": {"type": "Bot"}, "body": 5}], {"message": "no"}]
)
def test_an_answer_of_another_kind_is_no_comment(tmp_path: Path, answer: Any) -> None:
    (tmp_path / "a.md").write_text("text")

    class Odd(Repository):
        def call(self, method: str, path: str, content: object = None) -> tuple[Any, str | None]:
            return answer, None

    with pytest.raises(FluxPerfError, match="no usable answer from api"):
        post(tmp_path / "a.md", "a", 1, Odd("api", "a/b", "token"))


@pytest.mark.parametrize("path", ["x" * 100_000, "a/" * 50_000, "a\0b", "~nobody-of-that-name/x"])
def test_a_path_that_no_file_can_have_names_none(tmp_path: Path, path: str) -> None:
    for read in (find_python, resolve):
        with pytest.raises(FluxPerfError) as caught:
            read(path)
        assert "Traceback" not in str(caught.value)
