"""Pictures of a run as small WebP images for the page, each embedded once however often it is shown."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from pytest_fluxperf.results import Picture

SIDES = (128, 384)
"""Longest side of a thumbnail in pixels: with very many pictures, and with few."""
PIXELS = 60_000_000
"""Pixels of all thumbnails together, as far as :data:`SIDES` allow."""
BYTES = 6 * 2**20
"""Encoded bytes of all thumbnails together: noise, which does not compress, becomes smaller and coarser."""
QUALITIES = (78, 60, 40)
MOST_PIXELS = 2**26
"""Pixels of a picture that is opened at most, 8192 × 8192: a small file may claim any number."""


class Thumbnails:
    """Collects the pictures of a page.

    ``folders`` are those that picture paths may start at; ``page`` is where the page lies, for its links, None when it
    has none; ``count`` is how many different pictures it will show, among which the page's size is shared.
    """

    def __init__(self, folders: Sequence[Path], page: Path | None, count: int) -> None:
        self._folders = folders
        self._page = page
        self._limit = BYTES // max(1, count)
        self._found: dict[str, Path | None] = {}
        self._embedded: dict[str, str | None] = {}
        least, most = SIDES
        self.side = max(least, min(most, int(math.sqrt(PIXELS / max(1, count)))))
        """Longest side of a thumbnail, pixels."""

    def file(self, picture: Picture) -> Path | None:
        """The picture's file; None when it is missing."""
        if picture.sha256 not in self._found:
            places = (picture.file(folder) for folder in self._folders)
            self._found[picture.sha256] = next((place for place in places if place is not None), None)
        return self._found[picture.sha256]

    def link(self, picture: Picture) -> str | None:
        """The picture's file as seen from the page; None when it is missing or the page has no links."""
        file = self.file(picture)
        return (
            None
            if file is None or self._page is None
            else quote(os.path.relpath(file, self._page).replace(os.sep, "/"))
        )

    def name(self, picture: Picture) -> str | None:
        """CSS class that shows the picture; None when its file is missing or damaged."""
        if picture.sha256 not in self._embedded:
            file = self.file(picture)
            self._embedded[picture.sha256] = None if file is None else self._encode(file)
        return None if self._embedded[picture.sha256] is None else f"p-{picture.sha256[:16]}"

    def css(self) -> str:
        """The rules that hold the pictures."""
        return "\n".join(
            f".p-{sha256[:16]}{{background-image:url(data:image/webp;base64,{data})}}"
            for sha256, data in self._embedded.items()
            if data is not None
        )

    def _encode(self, path: Path) -> str | None:
        try:
            with Image.open(path, formats=("PNG",)) as image:
                if image.width * image.height > MOST_PIXELS:
                    return None
                small = image.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return None
        side, encoded = self.side, b""
        while side >= 16:
            small.thumbnail((side, side), Image.Resampling.LANCZOS)
            for quality in QUALITIES:
                target = io.BytesIO()
                small.save(target, format="webp", quality=quality, method=4)
                encoded = target.getvalue()
                if len(encoded) <= self._limit:
                    break
            else:
                side = side * 3 // 4
                continue
            break
        return base64.b64encode(encoded).decode("ascii")
