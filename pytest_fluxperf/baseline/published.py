"""Figures from the literature, to stand beside what was measured here. They are shown and never gated on.

``<baselines>/published/*.json``, one file a source::

    {"format": 1, "source": {"title": ..., "date": ..., "url": ...}, "tables": [
      {"gpu": "h100", "model": "flux-dev", "height": 1024, "width": 1024, "steps": 28, "base": "BF16", "figures": [
        {"configuration": "BF16", "recipe": "bf16", "mean_s": 7.11, "p50_s": 7.09, "n": 12}, ...]}, ...]}

``recipe`` is the canonical spelling of the recipe that does what the source says it did; a configuration that no
recipe reproduces has none. ``note`` holds what a reader has to know before comparing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.results import PublishedFigure, Record, Workload

FOLDER = "published"
"""Name of the folder under the baselines."""

FORMAT = 1
"""Version of a file of published figures."""

_RANDOM = "@random"
_HALF = ("bf16", "fp16")


class Source(Record, frozen=True, kw_only=True):
    """Where figures come from; ``date`` is year, month and, if known, day."""

    title: str
    date: str
    url: str


class Figure(Record, frozen=True, kw_only=True):
    """One published configuration; at least seconds of a generation or a speed-up are given."""

    configuration: str
    """The source's own name of it."""
    recipe: str | None = None
    """Canonical recipe that does the same, if there is one."""
    mean_s: float | None = None
    min_s: float | None = None
    p50_s: float | None = None
    p90_s: float | None = None
    p99_s: float | None = None
    speedup: float | None = None
    """Over the source's base configuration: its own figure, else computed from the means when the file is read."""
    n: int | None = None
    """Measured generations, if known."""
    measured: bool = True
    """False for an estimate."""
    note: str = ""


class Table(Record, frozen=True, kw_only=True):
    """Figures measured on one machine with one workload."""

    gpu: str
    """As baselines are filed: ``h100``, ``a100``."""
    model: str
    height: int
    width: int
    steps: int
    guidance: float | None = None
    base: str | None = None
    """Configuration that speed-ups are over."""
    note: str = ""
    figures: tuple[Figure, ...]


class _File(Record, frozen=True, kw_only=True):
    format: int
    source: Source
    tables: tuple[Table, ...]


class Published(Record, frozen=True, kw_only=True):
    """A figure with the table and the source that it stands in."""

    figure: Figure
    table: Table
    source: Source

    @property
    def seconds(self) -> float | None:
        """Typical seconds of a generation: the median, else the mean."""
        return self.figure.mean_s if self.figure.p50_s is None else self.figure.p50_s

    @property
    def note(self) -> str:
        """What to know before comparing, of figure and table."""
        return "; ".join(note for note in (self.figure.note, self.table.note) if note)


def load(baselines: Path) -> tuple[Published, ...]:
    """All figures under ``baselines``, by file and in their order; none where there is no such folder.

    Raises :class:`FluxPerfError` that names the file and the place of what is wrong.
    """
    return tuple(entry for path in sorted((Path(baselines) / FOLDER).glob("*.json")) for entry in read(path))


def read(path: Path) -> tuple[Published, ...]:
    """The figures of one file."""
    try:
        document = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise FluxPerfError(f"cannot be read: {error.strerror}", file=path) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FluxPerfError(
            str(error), remedy="see pytest_fluxperf.baseline.published for the format", file=path
        ) from None
    if document.format != FORMAT:
        raise FluxPerfError(f"{document.format} is unknown, this version reads {FORMAT}", file=path, place="$.format")
    return tuple(
        Published(figure=figure, table=table, source=document.source)
        for number, raw in enumerate(document.tables)
        for table in [_with_speedups(raw, path, f"$.tables[{number}]")]
        for figure in table.figures
    )


def matching(published: Iterable[Published], recipe: str | None, workload: Workload) -> tuple[Published, ...]:
    """The figures of the same recipe, model, size and steps, on any GPU; the same dtype comes first.

    Under an optimization the half-precision formats are one: sources differ in which they used, and it hardly changes
    the speed. A recipe that is a dtype and nothing else is compared with the same one alone. Random weights match their
    model, since nothing but a step cache depends on the picture, and with a fixed schedule (``computed=``) a cache has
    a spelling of its own, which no source has.
    """
    if recipe is None:
        return ()
    model = workload.model.removesuffix(_RANDOM)
    shape = (workload.height, workload.width, workload.steps)
    found = [
        entry
        for entry in published
        if entry.figure.recipe is not None
        and _key(entry.figure.recipe) == _key(recipe)
        and entry.table.model == model
        and (entry.table.height, entry.table.width, entry.table.steps) == shape
    ]
    return tuple(sorted(found, key=lambda entry: entry.figure.recipe != recipe))


def beside(published: Iterable[Published], workloads: Iterable[Workload]) -> tuple[PublishedFigure, ...]:
    """The figures in seconds for the model, size and steps of any of ``workloads``, on any GPU, as a run keeps them."""
    shapes = {(w.model.removesuffix(_RANDOM), w.height, w.width, w.steps) for w in workloads}
    return tuple(
        PublishedFigure(
            configuration=entry.figure.configuration,
            recipe=entry.figure.recipe,
            gpu=entry.table.gpu,
            seconds=entry.seconds,
            n=entry.figure.n,
            measured=entry.figure.measured,
            note=entry.note,
            workload=f"{entry.table.model}, {entry.table.width}×{entry.table.height}, {entry.table.steps} steps",
            source=f"{entry.source.title} ({entry.source.date})",
            url=entry.source.url,
        )
        for entry in published
        if (entry.table.model, entry.table.height, entry.table.width, entry.table.steps) in shapes
        and entry.seconds is not None
    )


def _key(recipe: str) -> tuple[str, str]:
    dtype, _, rest = recipe.partition("+")
    return ("half" if rest and dtype in _HALF else dtype, rest)


def _with_speedups(table: Table, path: Path, where: str) -> Table:
    base = None
    if table.base is not None:
        base = next((figure.mean_s for figure in table.figures if figure.configuration == table.base), None)
        if base is None:
            raise FluxPerfError(
                f"no figure {table.base!r} with mean_s is in the table", file=path, place=f"{where}.base"
            )
    figures = []
    for index, figure in enumerate(table.figures):
        place = f"{where}.figures[{index}]"
        for name in ("mean_s", "min_s", "p50_s", "p90_s", "p99_s", "speedup"):
            value = getattr(figure, name)
            if value is not None and not value > 0:
                raise FluxPerfError(f"must be positive, not {value}", file=path, place=f"{place}.{name}")
        if figure.mean_s is None and figure.p50_s is None and figure.speedup is None:
            raise FluxPerfError("has neither seconds nor a speed-up", file=path, place=place)
        if figure.speedup is None and base is not None and figure.mean_s is not None:
            figure = msgspec.structs.replace(figure, speedup=round(base / figure.mean_s, 4))
        figures.append(figure)
    return msgspec.structs.replace(table, figures=tuple(figures))
