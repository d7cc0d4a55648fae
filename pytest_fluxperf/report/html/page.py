"""``report.html``: one file that opens from disk, asks no network, and says everything without scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import msgspec
from markupsafe import Markup, escape

from pytest_fluxperf.report import text
from pytest_fluxperf.report.html import drawings
from pytest_fluxperf.report.html.thumbnails import Thumbnails
from pytest_fluxperf.report.prompts import PromptPair, ratios
from pytest_fluxperf.report.row import PERCENTILE_SAMPLES, Row, supported_percentile
from pytest_fluxperf.report.sentence import RELATIVE, verdict_sentence
from pytest_fluxperf.report.view import Overview, overview
from pytest_fluxperf.results import (
    SEVERITY,
    Finding,
    Generation,
    Picture,
    PublishedFigure,
    Quality,
    RunDocument,
    Similarity,
)

TEMPLATES = Path(__file__).with_name("templates")
METRICS = (
    ("SSIM", "ssim", 3),
    ("MS-SSIM", "ms_ssim", 3),
    ("PSNR dB", "psnr_db", 1),
    ("FLIP", "flip", 3),
    ("LPIPS", "lpips", 3),
)
"""Title, field of :class:`Similarity`, and decimals."""
MOST_VALUES = 1000
"""Generations of a test, and samples and runs of its baseline, whose raw values the page holds at most."""
_LONGEST = 10_000
"""Characters of a text that the page shows at most."""
TONES = {"regressed": "bad", "broken": "bad", "improved": "good"}


def render_html(
    documents: RunDocument | Sequence[RunDocument],
    folders: Sequence[Path],
    page_folder: Path | None = None,
    *,
    full_size: bool = True,
) -> str:
    """The page of a run, or of several machines side by side.

    Picture paths start at one of ``folders`` (pictures are named by their content, so it does not matter which has
    one); a picture that is in none is said to be missing. Links to full-size pictures start at ``page_folder``, where
    the page will lie (default: the first of ``folders``); with ``full_size`` false there are none, for a page that is
    kept without them.
    """
    page = Page(overview(documents), folders, (page_folder or folders[0]) if full_size else None)
    body = _templates().get_template("report.html").render(page=page, view=page.view)
    # the pictures' rules are known only after all tests were rendered
    return body.replace("/*pictures*/", page.thumbnails.css(), 1)


@cache
def _templates() -> jinja2.Environment:
    """The templates and their filters, compiled once for all pages of a process."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {
        "lines": lambda value: Markup(escape(text.visible(text.shorten(value, _LONGEST), lines=True))),
        "link": lambda path: quote(path),
        "short": text.shorten,
        "seconds": text.seconds,
        "percent": text.percent,
        "milliseconds": text.milliseconds,
        "number": text.number,
        "memory": text.memory,
        "steps": text.decimal,
        "breakable": _breakable,
    }
    return environment


def _shown(value: Any) -> Any:
    """What a template puts into the page: text is bounded, and nothing in it acts."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return text.visible(text.shorten(value, _LONGEST))
    return value


def _breakable(recipe: str) -> Markup:
    """A recipe that breaks between its tokens and parameters when it has to."""
    return Markup("<wbr>").join(re.split(r"(?<=[+,])", text.visible(recipe)))


@dataclass(frozen=True)
class Shot:
    """One prompt's pictures, each None where there is none, and their metrics."""

    prompt: str
    seed: int
    reference: Picture | None
    now: Picture | None
    flip: Picture | None
    score: Similarity | None


@dataclass(frozen=True)
class Phase:
    """One phase of one bar: its colour's number, seconds, width in per cent, and change against the baseline."""

    index: int
    name: str
    seconds: float
    width: float
    change: float | None


@dataclass(frozen=True)
class BlockLine:
    """One block of an A/B comparison: pairs, median seconds of both sides, and the median relative change of a pair."""

    pairs: int
    old_s: float
    new_s: float
    change: float


class Test:
    """What the page shows of one test."""

    def __init__(self, row: Row, index: int) -> None:
        self.row = row
        self.result = row.result
        self.name = f"t{index}"
        self.opened = index == 0 and row.verdict in ("broken", "regressed", "invalid")
        """Whether the page shows it unfolded: the worst, when something failed."""

    @property
    def words(self) -> str:
        """What the text filter searches."""
        found = (self.row.label, self.result.test, self.row.recipe, self.row.machine)
        return text.shorten(" ".join(found), 400).lower()

    @cached_property
    def mark(self) -> Markup:
        """The judged interval on the tolerance band, small."""
        return Markup(drawings.interval(self.row))

    @cached_property
    def changes(self) -> Markup:
        """Plot of every prompt's change."""
        return Markup(drawings.changes(self.row, f"{self.name}-c"))

    @cached_property
    def phases(self) -> list[tuple[str, float, list[Phase]]]:
        """Bars of the phases: label, total seconds, phases."""
        before, now = self.row.phases()
        bars = [(label, parts) for label, parts in (("baseline", before), ("now", now)) if parts]
        longest = max((sum(parts.values()) for _, parts in bars), default=0.0) or 1.0
        return [
            (
                label,
                sum(parts.values()),
                [
                    Phase(i + 1, name, value, 100 * value / longest, _relative(name, value, before))
                    for i, (name, value) in enumerate(parts.items())
                ],
            )
            for label, parts in bars
        ]

    @cached_property
    def blocks(self) -> list[BlockLine]:
        """The blocks of the A/B comparison, where there was one."""
        found = self.result.comparison.blocks if self.result.comparison else ()
        return [
            BlockLine(
                len(block.new_s),
                statistics.median(block.old_s),
                statistics.median(block.new_s),
                statistics.median(ratio - 1 for ratio in both),
            )
            for block in found
            if (both := ratios(block.new_s, block.old_s))
        ]

    @cached_property
    def history(self) -> Markup:
        """Plot of the baseline's runs."""
        return Markup(drawings.history(self.row, f"{self.name}-h"))

    @property
    def prompts(self) -> tuple[PromptPair, ...]:
        """The prompts that are shown."""
        return self.row.prompts[: drawings.MOST_PROMPTS]

    @property
    def more_prompts(self) -> int:
        """How many prompts are not shown."""
        return len(self.row.prompts) - len(self.prompts)

    @cached_property
    def strips(self) -> list[tuple[PromptPair, Markup]]:
        """Denoising steps of every prompt, where any of them, now or in the baseline, came from a cache."""
        seen = [pair for pair in self.prompts if pair.decisions]
        if not any("0" in (pair.decisions or "") + (pair.baseline_decisions or "") for pair in seen):
            return []
        return [(pair, Markup(drawings.steps(pair))) for pair in seen]

    @cached_property
    def shots(self) -> list[Shot]:
        """Pictures of every generation beside the reference's."""
        pictures = [generation.picture for generation in self.result.measurement.generations]
        return self._shots(pictures, self.result.quality)

    @cached_property
    def drift(self) -> list[Shot]:
        """The reference recipe's pictures now beside those that the baseline stored, where they are not the same."""
        quality = self.result.quality
        if self.result.drift is None or quality is None:
            return []
        return self._shots(list(quality.references), self.result.drift)

    def _shots(self, pictures: Sequence[Picture | None], quality: Quality | None) -> list[Shot]:
        def at(values: Sequence[Any] | None, i: int) -> Any:
            return values[i] if values and i < len(values) else None

        prompts = self.result.workload.prompts
        shots = [
            Shot(
                prompt=prompts[i % len(prompts)].text,
                seed=prompts[i % len(prompts)].seed,
                reference=at(quality.references if quality else None, i),
                now=picture,
                flip=at(quality.flip_maps if quality else None, i),
                score=at(quality.scores if quality else None, i),
            )
            for i, picture in enumerate(pictures[: min(len(prompts), drawings.MOST_PROMPTS)])
        ]
        return [shot for shot in shots if shot.now or shot.reference]

    @property
    def raw(self) -> Markup:
        """The measured values and the baseline's, to be copied: JSON, one generation a line, the first of very many."""
        generations = ",\n  ".join(map(_values, self.result.measurement.generations[:MOST_VALUES]))
        runs = ",\n  ".join(
            json.dumps(
                {"time_utc": run.time_utc, "latency_s": [sample.latency_s for sample in run.samples[:MOST_VALUES]]}
            )
            for run in self.row.runs[-MOST_VALUES:]
        )
        return Markup(
            escape(
                f'{{"test": {json.dumps(self.result.test)},\n "recipe": {json.dumps(self.result.recipe)},\n'
                f' "generations": [\n  {generations}],\n "baseline": [\n  {runs}]}}'
            )
        )


def _values(generation: Generation) -> str:
    values = msgspec.to_builtins(generation)
    values.pop("picture", None)
    return json.dumps(values, ensure_ascii=True)


def _relative(name: str, now: float, before: Mapping[str, float]) -> float | None:
    """Change of a phase; what lies between the phases is too short for one that means anything."""
    return now / before[name] - 1 if name != "other" and before.get(name) else None


@dataclass(frozen=True)
class Cell:
    """One recipe on one machine."""

    row: Row
    ratio: float | None
    """p50 over that of the first machine."""


def _cell(row: Row | None, first: float | None) -> Cell | None:
    return None if row is None else Cell(row, row.p50_s / first if first and row.p50_s else None)


class Page:
    """The whole page."""

    def __init__(self, view: Overview, folders: Sequence[Path], page_folder: Path | None) -> None:
        self.view = view
        self.tests = [Test(row, index) for index, row in enumerate(view.rows)]
        shown = {
            picture.sha256
            for test in self.tests
            for shot in (*test.shots, *test.drift)
            for picture in (shot.reference, shot.now, shot.flip)
            if picture is not None
        }
        self.thumbnails = Thumbnails(folders, page_folder, len(shown))

    severity = SEVERITY

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        return verdict_sentence(self.view)

    @property
    def style(self) -> Markup:
        """Our style sheet."""
        return Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))

    @property
    def script(self) -> Markup:
        """Our script."""
        return Markup((TEMPLATES / "script.js").read_text(encoding="utf-8"))

    @property
    def policy(self) -> str:
        """The page's Content-Security-Policy: nothing is fetched, and no script runs but the page's own."""
        digest = base64.b64encode(hashlib.sha256(self.script.encode()).digest()).decode()
        return (
            f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
            "base-uri 'none'; form-action 'none'"
        )

    @cached_property
    def metrics(self) -> list[tuple[str, str, int]]:
        """Image metrics that some test has."""
        return [m for m in METRICS if any(getattr(row.quality, m[1]) is not None for row in self.view.rows)]

    @property
    def columns(self) -> list[tuple[str, str, int]]:
        """Image metrics with a column in the table; the page has room for no more."""
        return [metric for metric in self.metrics if metric[1] != "ms_ssim"]

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
            points.append(
                drawings.Point(
                    text.visible(text.shorten(f"{row.machine} {row.label}".strip(), 80)),
                    row.p50_s,
                    y,
                    before,
                    TONES.get(row.verdict, ""),
                    group=self.view.machines.index(row.machine) if row.machine else 0,
                    target=row.anchor,
                )
            )
        recipes = {row.result.recipe for row in self.view.rows}
        marks = [
            drawings.Mark(
                text.visible(text.shorten(f"{figure.configuration} on {figure.gpu}, {figure.source}", 200)),
                figure.seconds,
                figure.recipe in recipes,
            )
            for figure in self.published
            if self._has(figure.gpu)
        ]
        return Markup(drawings.scatter(points, title, rising=rising, published=marks))

    @cached_property
    def published(self) -> list[PublishedFigure]:
        """Figures from the literature for the run's workloads, those of the run's GPUs first."""
        found = dict.fromkeys(figure for d in self.view.documents for figure in d.published)
        return sorted(found, key=lambda figure: (not self._has(figure.gpu), figure.gpu))

    def _has(self, gpu: str) -> bool:
        return any(d.gpu == gpu or d.gpu.startswith(f"{gpu}-") for d in self.view.documents)

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

    @cached_property
    def side_by_side(self) -> list[tuple[str, list[Cell | None]]]:
        """Every test that ran on more than one machine: its label, and a cell for each machine."""
        tests: dict[str, dict[str, Row]] = {}
        for row in self.view.rows:
            tests.setdefault(row.result.test, {})[row.machine] = row
        found = []
        for rows in tests.values():
            if len(rows) < 2:
                continue
            first = next((rows[m].p50_s for m in self.view.machines if m in rows), None)
            cells = [_cell(rows.get(machine), first) for machine in self.view.machines]
            found.append((next(iter(rows.values())).label, cells))
        return sorted(found, key=lambda line: line[0])

    def supported(self, n: int) -> str:
        """What percentile the largest of n samples bounds, in words."""
        return f"the largest of {n} bounds the {100 * supported_percentile(n):.0f}th percentile with 95 % confidence"

    @staticmethod
    def unsupported(q: int, n: int) -> str:
        """Why percentile ``q`` of n samples is muted, in words."""
        return f"{n} generations have no {q}th percentile: it takes {PERCENTILE_SAMPLES[q]}"

    @staticmethod
    def figure(item: Finding, value: float | None) -> str:
        """A finding's value with its unit."""
        if value is None:
            return "–"
        if item.unit == "MiB":
            return text.memory(value)
        if item.unit == "s":
            return f"{text.seconds(value)} s"
        return f"{value:.4g}" + (f" {item.unit}" if item.unit else "")

    @staticmethod
    def moved(item: Finding, value: float | None) -> str:
        """A finding's change, bound or tolerance: a fraction as per cent, a difference as it is."""
        if item.metric in RELATIVE:
            return text.percent(value)
        return "–" if value is None else f"{value:+.3g}" if value else "0"
