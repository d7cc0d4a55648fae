"""The recorded measurements of this project: one compressed archive of JSON files, read without unpacking it.

A *source* on a command line is a ``results.json``, the folder of a run, or ``ARCHIVE.tar.xz:PATTERN``, which stands for
all files of the archive whose name matches the pattern (``docs/measurements.tar.xz:h200-results*``), sorted by name.
"""

from __future__ import annotations

import fnmatch
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.report.document import decode_document, load_document
from pytest_fluxperf.results import RunDocument

ARCHIVE = Path(__file__).resolve().parents[2] / "docs" / "measurements.tar.xz"


def read_documents(sources: Iterable[str]) -> list[RunDocument]:
    """The sessions that sources name, in their order.

    Raises:
        FluxPerfError: a file or archive cannot be read, or nothing in the archive matches a pattern.
    """
    documents = []
    for source in sources:
        archive, colon, pattern = source.rpartition(":")
        if colon and archive.endswith(".tar.xz"):
            documents += recorded(pattern, Path(archive))
        else:
            documents.append(load_document(Path(source)))
    return documents


def recorded(pattern: str, archive: Path = ARCHIVE) -> list[RunDocument]:
    """The archive's sessions whose file name matches ``pattern``, sorted by name.

    Raises:
        FluxPerfError: the archive cannot be read, or nothing in it matches.
    """
    members = read_members(archive)
    names = sorted(fnmatch.filter(members, pattern))
    if not names:
        raise FluxPerfError(f"{archive} holds nothing that matches {pattern}; list it by: tar -tf {archive}")
    return [decode_document(members[name], f"{archive}:{name}") for name in names]


def recorded_json(name: str, archive: Path = ARCHIVE) -> Any:
    """The content of one file of the archive, as a program wrote it.

    Raises:
        FluxPerfError: the archive cannot be read, or has no such file.
    """
    members = read_members(archive)
    if name not in members:
        raise FluxPerfError(f"{archive} holds no {name}; list it by: tar -tf {archive}")
    return json.loads(members[name])


@cache
def read_members(archive: Path) -> Mapping[str, bytes]:
    """Every file of the archive, by name.

    Raises:
        FluxPerfError: it cannot be read.
    """
    try:
        with tarfile.open(archive, "r:xz") as tar:
            files = ((member.name, tar.extractfile(member)) for member in tar.getmembers())
            return {name: file.read() for name, file in files if file is not None}
    except (OSError, tarfile.TarError) as error:
        raise FluxPerfError(f"cannot read {archive}: {error}") from error


def keep(files: Mapping[str, bytes], archive: Path = ARCHIVE) -> None:
    """Put JSON files into the archive, in place of those of the same names; the same content makes the same bytes.

    Raises:
        FluxPerfError: a file is not JSON, or the archive cannot be read.
    """
    members = dict(read_members(archive)) if archive.exists() else {}
    for name, content in files.items():
        try:
            compact = json.dumps(json.loads(content), ensure_ascii=False, separators=(",", ":"))
        except ValueError as error:
            raise FluxPerfError(f"{name} is not JSON: {error}") from error
        members[name] = compact.encode()
    temporary = archive.with_name(f".{archive.name}.new")
    with tarfile.open(temporary, "w:xz", preset=9) as tar:
        for name in sorted(members):
            about = tarfile.TarInfo(name)  # no time, no owner: the archive depends on the content alone
            about.size = len(members[name])
            tar.addfile(about, io.BytesIO(members[name]))
    temporary.replace(archive)
    read_members.cache_clear()
