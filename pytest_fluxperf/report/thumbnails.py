"""Pictures of a run as small WebP images for the page, each embedded once however often it is shown."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from pytest_fluxperf.results import Picture

SIDE = 160
"""Longest side of a thumbnail, in pixels."""
QUALITY = 78


class Thumbnails:
    """Collects the pictures of a page.

    ``folders`` are those that picture paths may start at; ``page`` is where the page lies, for its links.
    """

    def __init__(self, folders: Sequence[Path], page: Path) -> None:
        self._folders = folders
        self._page = page
        self._found: dict[str, Path | None] = {}
        self._embedded: dict[str, str | None] = {}

    def file(self, picture: Picture) -> Path | None:
        """The picture's file; None when it is missing."""
        if picture.sha256 not in self._found:
            places = (folder / picture.path for folder in self._folders)
            self._found[picture.sha256] = next((place for place in places if place.is_file()), None)
        return self._found[picture.sha256]

    def link(self, picture: Picture) -> str | None:
        """The picture's file as seen from the page; None when it is missing."""
        file = self.file(picture)
        return None if file is None else quote(os.path.relpath(file, self._page).replace(os.sep, "/"))

    def name(self, picture: Picture) -> str | None:
        """CSS class that shows the picture; None when its file is missing or damaged."""
        if picture.sha256 not in self._embedded:
            file = self.file(picture)
            self._embedded[picture.sha256] = None if file is None else _encode(file)
        return None if self._embedded[picture.sha256] is None else f"p-{picture.sha256[:16]}"

    def css(self) -> str:
        """The rules that hold the pictures."""
        return "\n".join(
            f".p-{sha256[:16]}{{background-image:url(data:image/webp;base64,{data})}}"
            for sha256, data in self._embedded.items()
            if data is not None
        )


def _encode(path: Path) -> str | None:
    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
    except (OSError, SyntaxError, ValueError):
        return None
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    target = io.BytesIO()
    small.save(target, format="webp", quality=QUALITY, method=4)
    return base64.b64encode(target.getvalue()).decode("ascii")
