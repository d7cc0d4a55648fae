"""``report.html``: one file that opens from disk, asks no network, and works without scripts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from markupsafe import Markup

from pytest_fluxperf.report import plots, text
from pytest_fluxperf.report.thumbnails import Thumbnails
from pytest_fluxperf.report.view import Overview, Row, overview, supported_percentile
from pytest_fluxperf.results import SEVERITY, Picture, RunDocument, Similarity

TEMPLATES = Path(__file__).with_name("templates")
METRICS = (
    ("SSIM", "ssim", 3),
    ("MS-SSIM", "ms_ssim", 3),
    ("PSNR dB", "psnr_db", 1),
    ("FLIP", "flip", 3),
    ("LPIPS", "lpips", 3),
)
"""Title, field of :class:`Similarity`, and decimals."""
TONES = {"regressed": "bad", "broken": "bad", "improved": "good"}


def render_html(
    documents: RunDocument | Sequence[RunDocument], folders: Sequence[Path], page_folder: Path | None = None
) -> str:
    """The page of a run, or of several machines side by side.

    Picture paths start at one of ``folders`` (pictures are named by their content, so it does not matter which has
    one); a picture that is in none is said to be missing. Links to full-size pictures start at ``page_folder``, where
    the page will lie (default: the first of ``folders``).
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "visible": text.visible,
        "lines": lambda value: text.visible(value, lines=True),
        "short": text.shorten,
        "seconds": text.seconds,
        "percent": text.percent,
        "number": text.number,
        "memory": text.memory,
    }
    page = Page(overview(documents), Thumbnails(folders, page_folder or folders[0]))
    body = environment.get_template("report.html").render(page=page, view=page.view)
    # the pictures' rules are known only after all tests were rendered
    return body.replace("/*pictures*/", page.thumbnails.css(), 1)


@dataclass
class Shot:
    """One prompt's pictures: reference, now and FLIP map, each a CSS class and a link, or None."""

    prompt: str
    seed: int
    reference: Picture | None
    now: Picture | None
    flip: Picture | None
    score: Similarity | None


class Test:
    """What the page shows of one test."""

    def __init__(self, row: Row, index: int) -> None:
        self.row = row
        self.result = row.result
        self.name = f"t{index}"

    @cached_property
    def changes(self) -> Markup:
        """Plot of every prompt's change."""
        return Markup(plots.changes(self.row, f"{self.name}-c"))

    @cached_property
    def phases(self) -> list[tuple[str, float, list[tuple[int, str, float, float]]]]:
        """Bars of the phases: label, total seconds, and per phase its colour, name, seconds and width in per cent."""
        before, now = self.row.phases()
        bars = [(label, parts) for label, parts in (("baseline", before), ("now", now)) if parts]
        longest = max((sum(parts.values()) for _, parts in bars), default=0.0) or 1.0
        return [
            (
                label,
                sum(parts.values()),
                [(i + 1, name, value, 100 * value / longest) for i, (name, value) in enumerate(parts.items())],
            )
            for label, parts in bars
        ]

    @cached_property
    def history(self) -> Markup:
        """Plot of the baseline's runs."""
        return Markup(plots.history(self.row, f"{self.name}-h"))

    @cached_property
    def shots(self) -> list[Shot]:
        """Pictures of every generation."""
        quality = self.result.quality
        shots = []
        for pair, generation in zip(self.row.prompts, self.result.measurement.generations, strict=True):
            i = pair.index

            def at(pictures: Sequence[Any], i: int = i) -> Any:
                return pictures[i] if i < len(pictures) else None

            shots.append(
                Shot(
                    prompt=pair.text,
                    seed=pair.seed,
                    reference=at(quality.references) if quality else None,
                    now=generation.picture,
                    flip=at(quality.flip_maps) if quality else None,
                    score=at(quality.scores) if quality else None,
                )
            )
        return [shot for shot in shots if shot.now or shot.reference]

    @cached_property
    def has_steps(self) -> bool:
        """True when any step came from a cache, so that the strip says something."""
        return any(pair.decisions and "0" in pair.decisions for pair in self.row.prompts)

    @property
    def raw(self) -> str:
        """The measured values, to be copied."""
        return json.dumps(
            {
                "test": self.result.test,
                "recipe": self.result.recipe,
                "generations": msgspec.to_builtins(self.result.measurement.generations),
            },
            indent=1,
            ensure_ascii=True,
        )


class Page:
    """The whole page."""

    def __init__(self, view: Overview, thumbnails: Thumbnails) -> None:
        self.view = view
        self.thumbnails = thumbnails
        self.tests = [Test(row, index) for index, row in enumerate(view.rows)]

    severity = SEVERITY

    @property
    def style(self) -> Markup:
        """Our style sheet."""
        return Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))

    @property
    def script(self) -> Markup:
        """Our script."""
        return Markup((TEMPLATES / "script.js").read_text(encoding="utf-8"))

    @cached_property
    def metrics(self) -> list[tuple[str, str, int]]:
        """Image metrics that some test has."""
        return [m for m in METRICS if any(getattr(row.quality, m[1]) is not None for row in self.view.rows)]

    @cached_property
    def metric(self) -> tuple[str, str, bool] | None:
        """The metric of the scatter: title, field, and whether more is closer."""
        for title, name, rising in (("LPIPS", "lpips", False), ("SSIM", "ssim", True), ("FLIP", "flip", False)):
            if any(getattr(row.quality, name) is not None for row in self.view.rows):
                return title, name, rising
        return None

    @cached_property
    def scatter(self) -> Markup:
        """Speed against quality of all recipes."""
        if self.metric is None:
            return Markup("")
        title, name, rising = self.metric
        points = []
        for row in self.view.rows:
            y = getattr(row.quality, name)
            if row.p50_s is None or y is None:
                continue
            before_y = getattr(row.baseline_quality, name)
            before = None if row.baseline_p50_s is None or before_y is None else (row.baseline_p50_s, before_y)
            points.append(plots.Point(text.visible(row.label), row.p50_s, y, before, TONES.get(row.verdict, "")))
        return Markup(plots.scatter(points, title, rising=rising))

    @property
    def families(self) -> list[str]:
        """Token names to filter by."""
        return sorted({family for row in self.view.rows for family in row.families})

    @property
    def warnings(self) -> list[str]:
        """What the whole run cannot show."""
        return list(dict.fromkeys(w for d in self.view.documents for w in d.warnings))

    @property
    def machines(self) -> list[tuple[str, RunDocument]]:
        """Each machine with its short name."""
        return list(zip(self.view.machines, self.view.documents, strict=True))

    def supported(self, n: int) -> str:
        """What percentile the largest of n samples bounds, in words."""
        return f"the largest of {n} bounds the {100 * supported_percentile(n):.0f}th percentile with 95 % confidence"
