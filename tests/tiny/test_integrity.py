from __future__ import annotations

import json
import shutil

import pytest

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.pipelines.integrity import check_model_folder
from pytest_fluxperf.pipelines.tiny import MODEL_DIR

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(MODEL_DIR, tmp_path / "model")


def edit(path, **changes):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | changes))


def test_the_shipped_model_is_whole():
    check_model_folder(MODEL_DIR)


def truncate(folder):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1000])


def stump(folder):
    (folder / WEIGHTS).write_bytes(b"abc")


def garbage(folder):
    (folder / WEIGHTS).write_bytes((20).to_bytes(8, "little") + b"{not json, not json}")


def pickled(folder):
    (folder / WEIGHTS).rename(folder / "transformer" / "diffusion_pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda f: (f / WEIGHTS).unlink(), r"diffusion_pytorch_model\.safetensors: the weights file is missing"),
        (truncate, r"diffusion_pytorch_model\.safetensors: truncated: \d+ bytes, its header promises \d+"),
        (stump, "truncated or not a safetensors file"),
        (garbage, "not a readable safetensors file"),
        (pickled, "pickles are never loaded"),
        (lambda f: edit(f / "transformer/config.json", num_layers=3), "3 transformer_blocks asked for, 2 stored"),
        (lambda f: edit(f / "transformer/config.json", in_channels=128), r"x_embedder\.weight should be \(256, 128\)"),
        (lambda f: (f / "transformer/config.json").write_text("{}"), "not the configuration of a Flux transformer"),
        (lambda f: shutil.rmtree(f / "text_encoder_2"), "text_encoder_2: the folder is missing"),
    ],
)
def test_one_clear_error_that_names_the_file(folder, damage, complaint):
    damage(folder)
    with pytest.raises(FluxPerfError, match=complaint):
        check_model_folder(folder)


def test_loading_says_the_same(folder):
    from pytest_fluxperf.pipelines.loading import load
    from pytest_fluxperf.pipelines.models import resolve

    truncate(folder)
    with pytest.raises(FluxPerfError, match="truncated"):
        load(resolve(str(folder)), "fp32", "cpu")
