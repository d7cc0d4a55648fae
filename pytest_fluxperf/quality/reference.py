"""Reference pictures: made once per workload and session, shared by tests and by xdist's workers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.files import locked, write_whole
from pytest_fluxperf.quality import images
from pytest_fluxperf.quality.metrics import Metrics
from pytest_fluxperf.results import BASELINE, OwnMetric, Picture, Quality, Similarity, Workload


class References:
    """Pictures by (workload, recipe) in the run's folder; whoever comes first makes them, the others wait."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[str, str], tuple[Picture, ...]] = {}

    def get(self, workload: Workload, recipe: str, make: Callable[[], Sequence[Picture]]) -> tuple[Picture, ...]:
        """The recipe's pictures, one per prompt of the workload; ``make`` is called if there are none yet."""
        key = (workload.digest, recipe)
        if key not in self._known:
            name = hashlib.sha256("\n".join(key).encode()).hexdigest()[:16]
            path = self._folder / "references" / f"{name}.json"
            path.parent.mkdir(exist_ok=True)
            with locked(path.with_suffix(".lock")):
                if not path.exists():
                    write_whole(path, msgspec.json.encode(tuple(make())))
                self._known[key] = msgspec.json.decode(path.read_bytes(), type=tuple[Picture, ...])
        return self._known[key]


def compare(
    pictures: Sequence[Picture],
    references: Sequence[Picture],
    reference: str,
    metrics: Metrics,
    folder: Path,
    reference_folder: Path | None = None,
) -> Quality:
    """Metrics of each picture against its reference, and the FLIP maps, stored beside the pictures.

    Paths are relative to ``folder`` (references: to ``reference_folder``). A reference from elsewhere is
    copied, so that a report finds it. Raises :class:`FluxPerfError` when sizes differ or a file is damaged.
    """
    scores: list[Similarity] = []
    own: dict[str, list[float]] = {name: [] for name in metrics.own}
    same: dict[str, list[float]] = {name: [] for name in metrics.own}
    maps: list[Picture] = []
    shown: list[Picture] = []
    store = folder / "images"
    for picture, against in zip(pictures, references, strict=True):
        pixels = images.load((reference_folder or folder) / against.path)
        shown.append(images.save(pixels, store, folder))
        made = images.load(folder / picture.path)
        score, flip_map = metrics.compare(made, pixels)
        scores.append(score)
        for name, metric in metrics.own.items():
            own[name].append(metric(name, made, pixels))
            if reference == BASELINE:
                with suppress(FluxPerfError):  # one that is infinite for equal pictures has nothing to start from
                    same[name].append(metric(name, pixels, pixels))
        if flip_map is not None:
            maps.append(images.save(flip_map, store, folder))
    return Quality(
        reference=reference,
        scores=tuple(scores),
        references=tuple(shown),
        flip_maps=tuple(maps),
        own={
            name: OwnMetric(
                values=tuple(own[name]),
                higher_is_better=metric.higher_is_better,
                tolerance=metric.tolerance,
                same=tuple(same[name]),
            )
            for name, metric in metrics.own.items()
        },
    )
