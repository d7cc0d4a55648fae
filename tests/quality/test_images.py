from __future__ import annotations

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.quality import images

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
FLOATS = PIXELS.astype(np.float32) / 255


@pytest.mark.parametrize(
    "output",
    [
        Image.fromarray(PIXELS),
        PIXELS,
        PIXELS[None],
        FLOATS,
        torch.from_numpy(FLOATS).permute(2, 0, 1),
        torch.from_numpy(FLOATS).permute(2, 0, 1)[None],
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        [Image.fromarray(PIXELS)],
        SimpleNamespace(images=[Image.fromarray(PIXELS)]),
        {"images": PIXELS},
    ],
    ids=["pil", "hwc8", "nhwc8", "hwc", "chw", "nchw", "chw8", "list", "output", "dict"],
)
def test_every_usual_form_of_a_picture_is_read(output):
    (pixels,) = images.pictures_of(output)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, FLOATS, atol=1e-6)


def test_bfloat16_tensors_and_grey_pictures():
    (pixels,) = images.pictures_of(torch.full((1, 16, 16), 0.5, dtype=torch.bfloat16))
    assert pixels.shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        (None, r"returned nothing \(None\); return the picture"),
        ("x.png", "returned a str"),
        ([], "an empty list"),
        (np.zeros((4, 4)), r"an array of shape \(4, 4\)"),
        (np.zeros((4, 4, 3), dtype=np.int64), "must be uint8 or floating point"),
    ],
)
def test_anything_else_is_refused_with_the_remedy(output, complaint):
    with pytest.raises(FluxPerfError, match=complaint):
        images.pictures_of(output)


def bad(kind: str) -> np.ndarray:
    pixels = FLOATS.copy()
    match kind:
        case "nan":
            pixels[3, 4, 1] = np.nan
        case "inf":
            pixels[3, 4, 1] = np.inf
        case "range":
            pixels *= 255
        case "black":
            pixels *= 0.01
        case "constant":
            pixels[:] = 0.5
    return pixels


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("nan", "1 NaN or infinite"),
        ("inf", "1 NaN or infinite"),
        ("range", "outside [0, 1]"),
        ("black", "is black"),
        ("constant", "is constant"),
    ],
)
def test_unusable_pictures(kind, problem):
    assert problem in (images.problem_of(bad(kind), 32, 48) or "")


def test_wrong_size_and_a_good_picture():
    assert images.problem_of(FLOATS, 32, 48) is None
    assert images.problem_of(FLOATS, 48, 32) == "is 48×32 pixels, not 32×48"


def test_saved_losslessly_under_the_hash_of_its_content(tmp_path):
    first = images.save(FLOATS, tmp_path / "images", tmp_path)
    again = images.save(FLOATS, tmp_path / "images", tmp_path)
    other = images.save(1 - FLOATS, tmp_path / "images", tmp_path)
    assert first == again != other
    assert (first.path, first.width, first.height) == (f"images/{first.sha256}.png", 48, 32)
    np.testing.assert_array_equal(images.to_uint8(images.load(tmp_path / first.path)), PIXELS)
    assert len(list((tmp_path / "images").iterdir())) == 2
    assert hashlib.sha256((tmp_path / first.path).read_bytes()).hexdigest() == first.sha256


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(FluxPerfError, match=r"a\.png: the picture is missing"):
        images.load(tmp_path / "a.png")
    saved = images.save(FLOATS, tmp_path, tmp_path)
    path = tmp_path / saved.path
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FluxPerfError, match="not a readable picture"):
        images.load(path)
