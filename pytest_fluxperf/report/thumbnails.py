"""Pictures of a run as small WebP images for the page, each embedded once however often it is shown."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from pytest_fluxperf.results import Picture

SIDE = 160
"""Longest side of a thumbnail, in pixels."""
QUALITY = 78


@dataclass
class Thumbnails:
    """Collects the pictures of a page; ``folder`` is the run's, to which picture paths are relative."""

    folder: Path
    _embedded: dict[str, str | None] = field(default_factory=dict)

    def name(self, picture: Picture) -> str | None:
        """CSS class that shows the picture; None when its file is missing or damaged."""
        if picture.sha256 not in self._embedded:
            self._embedded[picture.sha256] = self._encode(self.folder / picture.path)
        return None if self._embedded[picture.sha256] is None else f"p-{picture.sha256[:16]}"

    def css(self) -> str:
        """The rules that hold the pictures."""
        return "\n".join(
            f".p-{sha256[:16]}{{background-image:url(data:image/webp;base64,{data})}}"
            for sha256, data in self._embedded.items()
            if data is not None
        )

    @staticmethod
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
