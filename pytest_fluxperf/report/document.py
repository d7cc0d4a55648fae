"""``results.json`` read, written and merged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.files import write_whole
from pytest_fluxperf.report import journal
from pytest_fluxperf.report.text import printed
from pytest_fluxperf.results import RESULTS_FORMAT, RunDocument

NAME = "results.json"

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading JSON raises: wrong types and syntax, no UTF-8, lists within lists without end."""


class _Header(msgspec.Struct):
    """Enough of a document to tell its version, whatever else it holds."""

    format: int


def write_text(text: str, path: Path) -> None:
    """Write ``text`` so that ``path`` holds either the old content or all of the new."""
    write_whole(path, text.encode())


def write_document(document: RunDocument, path: Path) -> None:
    """Write ``document`` as JSON, atomically.

    Raises:
        FluxPerfError: the file cannot be written.
    """
    raw = msgspec.json.format(msgspec.json.encode(document), indent=1)
    try:
        write_text(raw.decode("utf-8") + "\n", path)
    except OSError as error:
        raise FluxPerfError(f"cannot write {path}: {error.strerror or error}") from error


def load_document(path: Path) -> RunDocument:
    """Read one ``results.json``; ``path`` may be the folder it lies in.

    Of a run that did not come to write it, its journal is read in its place.

    Raises:
        FluxPerfError: the file is missing, corrupt, or of another format.
    """
    try:
        if path.is_dir():
            path = path / NAME
        if path.name == NAME and not path.exists() and (lines := path.with_name(journal.NAME)).is_file():
            path = lines
        raw = path.read_bytes()
    except OSError as error:
        raise FluxPerfError(f"cannot read {printed(str(path), 300)}: {error.strerror or error}") from error
    return _decode_journal(raw, str(path)) if path.name == journal.NAME else decode_document(raw, str(path))


def _decode_journal(raw: bytes, source: str) -> RunDocument:
    """The document of a run that was killed; what stands behind the last line's end was torn, and is left out."""
    lines = raw.split(b"\n")[:-1]
    if not lines:
        raise FluxPerfError("the run was killed before it had measured anything", file=printed(source, 300))
    return journal.fold(decode_document(lines[0], source), journal.read_entries(lines[1:], source))


def decode_document(raw: bytes, source: str) -> RunDocument:
    """The document that ``raw`` holds, which was read from ``source``.

    Raises:
        FluxPerfError: it is corrupt, or of another format.
    """
    source = printed(source, 300)
    try:
        version = msgspec.json.decode(raw, type=_Header).format
    except _UNREADABLE as error:
        raise FluxPerfError(
            f"{source} is not a results.json of pytest-fluxperf ({printed(str(error), 200)}); "
            "run the tests again to write a new one"
        ) from error
    if version > RESULTS_FORMAT:
        raise FluxPerfError(
            f"{source} has format {version}, this pytest-fluxperf reads {RESULTS_FORMAT}; upgrade pytest-fluxperf"
        )
    if version < RESULTS_FORMAT:
        raise FluxPerfError(f"{source} has format {version}, which no release wrote; run the tests again")
    try:
        return msgspec.json.decode(raw, type=RunDocument)
    except _UNREADABLE as error:
        raise FluxPerfError(
            f"{source} is damaged: {printed(str(error), 200)}; run the tests again to write a new one"
        ) from error


def merge(documents: Iterable[RunDocument]) -> tuple[RunDocument, ...]:
    """Join shards into one document for each machine; machines keep the order in which they appear.

    Documents of the same baseline folder, hardware and environment, judged against the same kind of thing, are shards
    of one run. A test that is in several of them counts once, the newest document's.
    """
    machines: dict[bytes, list[RunDocument]] = {}
    for document in documents:
        identity = (document.gpu, document.hardware, document.environment, document.against)
        machines.setdefault(msgspec.json.encode(identity, order="sorted"), []).append(document)
    return tuple(_join(shards) for shards in machines.values())


def _join(shards: Sequence[RunDocument]) -> RunDocument:
    if len(shards) == 1:
        return shards[0]
    shards = sorted(shards, key=lambda shard: shard.time_utc)
    results = {result.test: result for shard in shards for result in shard.results}
    skipped = {s.test: s for shard in shards for s in shard.skipped if s.test not in results}
    # Tests that neither ran nor were skipped (an interrupted shard) still count as collected. Their names are not
    # known: what another shard measured may be one of them or a test of its own, and a green report must be sure.
    lost = sum(shard.collected - len(shard.results) - len(shard.skipped) for shard in shards)
    return msgspec.structs.replace(
        shards[0],
        session="+".join(dict.fromkeys(shard.session for shard in shards)),
        collected=len(results) + len(skipped) + max(0, lost),
        gated=sum(result.judgement.gated for result in results.values()),
        results=tuple(results.values()),
        skipped=tuple(skipped.values()),
        warnings=tuple(dict.fromkeys(w for shard in shards for w in shard.warnings)),
        environments={digest: one for shard in shards for digest, one in shard.environments.items()},
        # one that failed on what it could not decide did so for all
        strict=any(shard.strict for shard in shards),
        # what the shards took together, as everything that is told of where it went
        duration_s=sum(shard.duration_s for shard in shards),
        published=tuple(dict.fromkeys(figure for shard in shards for figure in shard.published)),
        update=next((shard.update for shard in shards if shard.update), None),
        changes=tuple(dict.fromkeys(change for shard in shards for change in shard.changes)),
    )


def new_run_name() -> str:
    """UTC time, so that runs sort, and a few random digits."""
    import secrets

    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
