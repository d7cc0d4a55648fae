"""Takes proposed baselines into a checkout, and writes what its request says.

python take_baselines.py PROPOSAL BASELINES GPU > request.md

PROPOSAL is a folder from a machine where a request's code ran, so nothing of it is trusted. Taken are plain files of
bounded size: ``GPU/**/*.json`` that decode as baselines of the test that their path names, and ``GPU/images/*.png``
that decode as pictures, are named by their content and belong to one of these baselines. Anything else refuses all of
it. Baselines are added or replaced, never deleted; pictures that no baseline needs any more are removed. The text
comes from the decoded values.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import statistics
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from pytest_fluxperf.baseline.codec import decode, encode
from pytest_fluxperf.baseline.store import BaselineStore
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.report.markdown import code
from pytest_fluxperf.report.text import shorten
from pytest_fluxperf.results import Baseline

MOST_FILES = 5_000
LONGEST_JSON = 4 * 1024**2
LONGEST_PNG = 64 * 1024**2
LONGEST_ALL = 1024**3
"""Bytes of a baseline, a picture, and a whole proposal."""
MOST_PIXELS = 4096 * 4096
LONGEST_TEXT = 60_000
"""Characters of the request's text; GitHub takes 65,536."""


class Refusal(Exception):
    """Why a proposal is not taken."""


def files(folder: Path) -> Iterator[tuple[Path, int]]:
    """Every file below ``folder`` by its relative path, with its size in bytes; only plain files of the two kinds."""

    def fail(error: OSError) -> None:
        raise Refusal(f"{error.filename}: {error.strerror}")

    for place, folders, names in os.walk(folder, onerror=fail):
        for name in (*folders, *names):
            path = Path(place, name)
            status, inside = path.lstat(), path.relative_to(folder)
            if stat.S_ISDIR(status.st_mode):
                continue
            if not stat.S_ISREG(status.st_mode):
                raise Refusal(f"{inside}: is no plain file")
            picture = inside.parts[0] == "images"
            pattern = r"images/[0-9a-f]{64}\.png" if picture else r"[\w.+=,/-]+\.json"
            if not re.fullmatch(pattern, inside.as_posix(), re.ASCII):
                raise Refusal(f"{inside}: only baselines (*.json) and images/<sha256>.png are taken")
            if status.st_size > (LONGEST_PNG if picture else LONGEST_JSON):
                raise Refusal(f"{inside}: has {status.st_size} bytes")
            yield inside, status.st_size


def proposed(folder: Path) -> list[Path]:
    """The relative paths of :func:`files`, their number and size in all bounded."""
    paths, total = [], 0
    for path, size in files(folder):
        paths.append(path)
        total += size
        if len(paths) > MOST_FILES or total > LONGEST_ALL:
            raise Refusal(f"holds more than {MOST_FILES} files or {LONGEST_ALL} bytes")
    return sorted(paths)


def baseline(path: Path) -> Baseline:
    """The decoded baseline; Refusal if it is none."""
    try:
        return decode(path.read_bytes(), path.name)
    except (FluxPerfError, RecursionError, ValueError, OverflowError) as error:
        raise Refusal(str(error) or type(error).__name__) from None


def picture(path: Path) -> bytes:
    """The bytes of a picture that decodes and has the name of its content; Refusal if it is none."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.stem:
        raise Refusal(f"{path.name}: the content does not match the name")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise Refusal(f"{path.name}: has {image.width} × {image.height} pixels")
                image.load()
    except Refusal:
        raise
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise Refusal(f"{path.name}: is no picture ({type(error).__name__})") from None
    return content


def pictures_of(stored: Baseline) -> set[str]:
    """The names of the pictures that a baseline needs."""
    samples = [sample for run in stored.runs for sample in run.samples]
    return {name for s in samples for name in (s.picture, s.reference_picture) if name is not None}


def existing(store: BaselineStore, path: Path) -> Baseline | None:
    """What is stored at ``path`` today, None where nothing is or it cannot be read."""
    try:
        return decode((store.folder / path).read_bytes(), str(path))
    except (OSError, FluxPerfError):
        return None


def remove_unneeded(store: BaselineStore) -> None:
    """Remove pictures that no baseline needs; all stay where a baseline cannot be read."""
    needed: set[str] = set()
    for path in store.folder.rglob("*.json"):
        stored = existing(store, path.relative_to(store.folder))
        if stored is None:
            return
        needed |= pictures_of(stored)
    for path in store.images.glob("*.png"):
        if path.stem not in needed:
            path.unlink()


def take(proposal: Path, baselines: Path, gpu: str) -> list[tuple[Baseline | None, Baseline]]:
    """Check all of a proposal, then move the baselines; what was stored before and what is now, where they differ.

    Raises:
        Refusal: something in it is not taken; nothing was moved then.
    """
    source, store = proposal / gpu, BaselineStore(baselines, gpu)
    if source.is_symlink() or not source.is_dir():
        raise Refusal(f"{gpu}: is no folder of the proposal")
    for place in (baselines, store.folder, *(store.folder.rglob("*") if store.folder.is_dir() else ())):
        if place.is_symlink():
            raise Refusal(f"{place}: is a link in the checkout")
    content: dict[Path, bytes] = {}
    changes: list[tuple[Baseline | None, Baseline]] = []
    needed: set[str] = set()
    paths = proposed(source)
    for path in (p for p in paths if p.suffix == ".json"):
        new = baseline(source / path)
        if store.path(new.test) != store.folder / path:
            raise Refusal(f"{path}: belongs to another test than its path says")
        needed |= pictures_of(new)
        old = existing(store, path)
        if new != old:
            content[path] = encode(new)
            changes.append((old, new))
    for path in (p for p in paths if p.suffix == ".png"):
        if path.stem in needed:  # others belonged to a run that was replaced
            content[path] = picture(source / path)
    if missing := needed - {path.stem for path in paths}:
        raise Refusal(f"images/{min(missing)}.png: a baseline needs it and it is not in the proposal")
    for path, data in content.items():
        target = store.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    remove_unneeded(store)
    return changes


def median_s(stored: Baseline | None) -> str:
    """Median latency of the newest run in seconds, as text."""
    if stored is None:
        return "–"
    newest = max(stored.runs, key=lambda run: run.time_utc)
    return f"{statistics.median(sample.latency_s for sample in newest.samples):.4g} s"


def text(changes: list[tuple[Baseline | None, Baseline]], gpu: str, run_url: str) -> str:
    """The request's text: every test whose baseline moved, old → new."""
    lines = [
        f"Baselines of {code(gpu)} as [this run]({run_url}) measured them. Its summary has the verdicts; the figures "
        "below are read from the files of this request.",
        "",
        "| test | median latency of the newest run | stored runs |",
        "|---|---|---|",
    ]
    room = LONGEST_TEXT - sum(map(len, lines))
    for shown, (old, new) in enumerate(changes):
        runs = f"{len(old.runs) if old else 0} → {len(new.runs)}"
        line = f"| {code(shorten(new.test, 200))} | {median_s(old)} → {median_s(new)} | {runs} |"
        room -= len(line) + 1
        if room < 0:
            lines.append(f"\nAnd {len(changes) - shown} more.")
            break
        lines.append(line)
    return "\n".join(lines) + "\n"


def main() -> int:
    """Take the proposal named on the command line; 1 and the reason as GitHub shows it where it is refused."""
    proposal, baselines, gpu = sys.argv[1:]
    try:
        changes = take(Path(proposal), Path(baselines), gpu)
    except (Refusal, FluxPerfError) as refusal:
        print(f"::error::the proposal is refused: {ascii(str(refusal))[:1000]}", file=sys.stderr)
        return 1
    sys.stdout.write(text(changes, gpu, os.environ["RUN_URL"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
