"""What a marked body returned, as pictures: decoded, validated, hashed, stored.

Pictures are compared as they come: float32 in [0, 1], NCHW, never resized.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.results import Picture

Pixels = npt.NDArray[np.float32]
"""One picture: float32, height × width × 3, in [0, 1]."""

CONSTANT_STD = 1 / 255
"""A picture whose pixels spread less than one 8-bit level is constant."""
BLACK_MEAN = 4 / 255
BLACK_MAX = 16 / 255
"""A picture is near-black when its mean and its brightest pixel stay under these levels."""


def pictures_of(output: Any) -> list[Pixels]:
    """The pictures in a body's return value, in order.

    Takes a PIL image, a numpy array (HWC or NHWC; uint8, or float in [0, 1]), a torch tensor (CHW or NCHW,
    likewise), a list of these, or an object with ``.images`` (a diffusers pipeline output). Raises
    :class:`FluxPerfError` for anything else, ``None`` above all.
    """
    if hasattr(output, "images"):
        output = output.images
    elif isinstance(output, Mapping) and "images" in output:
        output = output["images"]
    if isinstance(output, list | tuple):
        found = [pixels for part in output for pixels in pictures_of(part)]
        if not found:
            raise FluxPerfError("the test returned an empty list instead of pictures")
        return found
    if isinstance(output, Image.Image):
        return [_scale(np.asarray(output.convert("RGB")))]
    array, channels_first = output, False
    if hasattr(output, "detach"):  # a torch tensor, without importing torch
        array, channels_first = output.detach().to("cpu"), True
        array = (array.float() if array.is_floating_point() else array).numpy()
    if isinstance(array, np.ndarray) and array.ndim in (3, 4):
        batch = array if array.ndim == 4 else array[None]
        if channels_first:
            batch = batch.transpose(0, 2, 3, 1)
        if batch.shape[-1] == 1:
            batch = batch.repeat(3, axis=-1)
        if batch.shape[-1] == 3:
            return [_scale(picture) for picture in batch]
    kind = f"an array of shape {array.shape}" if isinstance(array, np.ndarray) else _describe(output)
    raise FluxPerfError(
        f"the test returned {kind}; return the picture: a PIL image, a numpy array (HWC), "
        "a torch tensor (CHW), a list of them, or a pipeline's output"
    )


def _describe(value: Any) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


def _scale(picture: npt.NDArray[Any]) -> Pixels:
    if picture.dtype == np.uint8:
        return picture.astype(np.float32) / np.float32(255)
    if np.issubdtype(picture.dtype, np.floating):
        return picture.astype(np.float32)
    raise FluxPerfError(f"pictures must be uint8 or floating point in [0, 1], not {picture.dtype}")


def problem_of(pixels: Pixels, height: int | None = None, width: int | None = None) -> str | None:
    """What makes a picture unusable, as a clause; None when it is fine.

    NaN or infinite pixels, values outside [0, 1], another size than asked for, constant, near-black.
    """
    if not np.isfinite(pixels).all():
        return f"has {np.count_nonzero(~np.isfinite(pixels))} NaN or infinite values"
    low, high = float(pixels.min()), float(pixels.max())
    if low < -1e-3 or high > 1 + 1e-3:
        return f"has values from {low:.3g} to {high:.3g}, outside [0, 1]"
    if height and width and pixels.shape[:2] != (height, width):
        return f"is {pixels.shape[1]}×{pixels.shape[0]} pixels, not {width}×{height}"
    if high <= BLACK_MAX and float(pixels.mean()) <= BLACK_MEAN:
        return f"is black (mean {pixels.mean() * 255:.1f}, brightest {high * 255:.0f} of 255)"
    if float(pixels.std()) < CONSTANT_STD:
        return f"is constant (standard deviation {pixels.std() * 255:.2f} of 255)"
    return None


MOST_PIXELS = 8192 * 8192
"""Of a picture that is read: one that holds more in a few bytes would fill the memory."""


def to_uint8(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """8-bit pixels; NaN becomes 0, values are clipped."""
    data: npt.NDArray[np.uint8] = np.rint(np.nan_to_num(pixels).clip(0, 1) * 255).astype(np.uint8)
    return data


def save(pixels: Pixels, folder: Path, base: Path) -> Picture:
    """Store a picture losslessly as ``<folder>/<sha256 of the file>.png``; the path is relative to ``base``."""
    data = to_uint8(pixels)
    encoded = io.BytesIO()
    Image.fromarray(data).save(encoded, format="png")
    digest = hashlib.sha256(encoded.getvalue()).hexdigest()
    path = folder / f"{digest}.png"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".tmp", delete=False) as scratch:
            scratch.write(encoded.getvalue())
        Path(scratch.name).replace(path)
    height, width = data.shape[:2]
    return Picture(path=path.relative_to(base).as_posix(), sha256=digest, width=width, height=height)


def load(path: Path) -> Pixels:
    """Read a stored picture; raises :class:`FluxPerfError` that names a missing or damaged file."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width}×{image.height} pixels")
            return _scale(np.asarray(image.convert("RGB")))
    except FileNotFoundError:
        remedy = "record the baseline again with --fluxperf-update"
        raise FluxPerfError("the picture is missing", remedy=remedy, file=path) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FluxPerfError(f"not a readable picture ({error})", file=path) from None
