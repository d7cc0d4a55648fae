"""Baseline files: one JSON file a test, validated, byte-stable, and never half written.

    <root>/<gpu>/<module>/<test>.json
    <root>/<gpu>/images/<sha256>.png

Writers of one gpu folder take turns under a file lock and read what is there before they write, so two
processes that update or append at once lose nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pytest_fluxperf.baseline.codec import decode, encode
from pytest_fluxperf.baseline.update import Change, UpdateMode, plan_update
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.files import clear_abandoned, locked, write_whole
from pytest_fluxperf.results import Baseline, Environment, Hardware, Picture, Result

LOCK_NAME = ".fluxperf.lock"
LOCK_TIMEOUT_S = 120.0
_PNG = b"\x89PNG\r\n\x1a\n"


class BaselineStore:
    """The baselines of one gpu folder. Reading needs no lock: a file is replaced whole or not at all."""

    def __init__(self, root: Path, gpu: str) -> None:
        self.folder = Path(root) / gpu
        self.images = self.folder / "images"

    def path(self, nodeid: str) -> Path:
        """Where the baseline of a test lies, whether or not it exists."""
        return self.folder / baseline_path(nodeid)

    def load(self, nodeid: str) -> Baseline | None:
        """The stored baseline of a test, None where there is none; FluxPerfError where it cannot be trusted."""
        path = self.path(nodeid)
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FluxPerfError(f"{path}: cannot be read: {error.strerror}") from None
        baseline = decode(text, str(path))
        if baseline.test != nodeid:
            raise FluxPerfError(
                f"{path}: $.test: belongs to {baseline.test!r}, not to {nodeid!r}; of a renamed test, delete "
                "the file and record the test anew with --fluxperf-update"
            )
        return baseline

    def picture(self, sha256: str) -> Path:
        """The stored picture of that content; FluxPerfError where it is missing or was altered."""
        path = self.images / f"{sha256}.png"
        remedy = "restore it from version control or record the baseline anew with --fluxperf-update=all"
        try:
            content = path.read_bytes()
        except OSError:
            raise FluxPerfError(f"{path}: a picture of the baseline is missing; {remedy}") from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise FluxPerfError(f"{path}: the content does not match its name; {remedy}")
        return path

    def update(
        self,
        results: Sequence[Result],
        mode: UpdateMode,
        *,
        hardware: Hardware,
        environments: Mapping[str, Environment],
        tau0: float,
        nu0: float,
        pictures: Path,
    ) -> list[Change]:
        """Move the baselines of ``results`` as ``mode`` says and return what happened, one Change a result.

        ``environments`` are those that the results were measured in, by digest. ``pictures`` is the folder that the
        results' picture paths are relative to. Stored pictures that no baseline of this gpu needs any more because of
        this update are removed.
        """
        with self._locked():
            changes: list[Change] = []
            latest: dict[str, Baseline | None] = {}
            texts: dict[Path, bytes] = {}
            dropped: set[str] = set()
            for result in results:
                old = latest[result.test] if result.test in latest else self.load(result.test)
                change = plan_update(
                    result, old, mode, hardware=hardware, environments=environments, tau0=tau0, nu0=nu0
                )
                latest[result.test] = change.baseline or old
                if change.baseline is not None:
                    texts[self.path(result.test)] = encode(change.baseline)
                    self._store_pictures(result, change.baseline, pictures)
                    if old is not None:
                        dropped |= _pictures_of(old) - _pictures_of(change.baseline)
                changes.append(change)
            # All was checked and every picture lies in place before the first baseline moves.
            for path, text in texts.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, text)
            self._prune(dropped)
        return changes

    def require_writable(self) -> None:
        """Make the folder; FluxPerfError where that, or taking its lock, is not possible."""
        with self._locked():
            pass

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / LOCK_NAME, LOCK_TIMEOUT_S):
                self._clear_abandoned()
                yield
        except TimeoutError:
            raise FluxPerfError(
                f"{self.folder / LOCK_NAME}: another process has been updating for {LOCK_TIMEOUT_S:.0f} s; try again"
            ) from None
        except OSError as error:
            raise FluxPerfError(
                f"{error.filename or self.folder}: baselines cannot be written: {error.strerror}; "
                "choose another folder by --fluxperf-baselines"
            ) from None

    def _clear_abandoned(self) -> None:
        """Remove what killed writers left: all of them held the lock."""
        folders = [path for path in self.folder.rglob("*") if path.is_dir() and not path.is_symlink()]
        for folder in (self.folder, *folders):
            clear_abandoned(folder, age_s=0.0)

    def _store_pictures(self, result: Result, baseline: Baseline, folder: Path) -> None:
        made = {p.sha256: p for p in result.quality.references} if result.quality is not None else {}
        made |= {g.picture.sha256: g.picture for g in result.measurement.generations if g.picture}
        for sha256 in sorted(_pictures_of(baseline)):
            target = self.images / f"{sha256}.png"
            if target.exists() and hashlib.sha256(target.read_bytes()).hexdigest() == sha256:
                continue
            if sha256 not in made:
                raise FluxPerfError(f"{result.test}: picture {sha256[:12]} of the new baseline was not saved")
            content = _read_picture(made[sha256], folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_whole(target, content)

    def _prune(self, dropped: set[str]) -> None:
        if not dropped:
            return
        for path in self.folder.rglob("*.json"):
            try:
                dropped -= _pictures_of(decode(path.read_bytes(), str(path)))
            except FluxPerfError:
                return  # Pictures that an unreadable baseline may need are better kept.
        for sha256 in dropped:
            (self.images / f"{sha256}.png").unlink(missing_ok=True)


def _pictures_of(baseline: Baseline) -> set[str]:
    samples = [sample for run in baseline.runs for sample in run.samples]
    return {sha for s in samples for sha in (s.picture, s.reference_picture) if sha is not None}


def _read_picture(picture: Picture, folder: Path) -> bytes:
    path = picture.file(folder)
    if path is None:
        raise FluxPerfError(f"{folder / picture.path}: a picture that the new baseline needs is missing; measure again")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != picture.sha256:
        raise FluxPerfError(f"{path}: the picture changed after it was measured; measure again")
    if not content.startswith(_PNG):
        raise FluxPerfError(f"{path}: a baseline keeps lossless PNG pictures only")
    return content


_LONGEST = 80


_WORD = rf"[a-z0-9_]{{1,{_LONGEST}}}"


_PLAIN = re.compile(rf"(?:{_WORD}/)*{_WORD}\.py::{_WORD}")


_UNSAFE = re.compile(r"[^A-Za-z0-9._+=,-]+")


def baseline_path(nodeid: str) -> PurePosixPath:
    """``tests/test_a.py::test_b[x:1]`` -> ``tests/test_a/test_b_x_1-0123456789.json``.

    Readable, safe on every file system and different for different node ids, also where letter case does not
    count: unless the whole node id is plain lower-case words, ten digits of its SHA-256 end the name. A plain
    name holds no ``-``, so the two kinds never meet.
    """
    module, _, test = nodeid.partition("::")
    parts = module.removesuffix(".py").split("/")
    if _PLAIN.fullmatch(nodeid):
        return PurePosixPath(*parts, f"{test}.json")
    digest = hashlib.sha256(nodeid.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return PurePosixPath(*map(_safe, parts), f"{_safe(test)}-{digest}.json")


def _safe(part: str) -> str:
    # A leading dot would hide the file or climb out of the folder; a trailing one is lost on some systems.
    return _UNSAFE.sub("_", part)[:_LONGEST].strip("._") or "_"
