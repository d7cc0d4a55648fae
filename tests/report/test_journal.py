"""The journal of a run that was killed."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import msgspec
import pytest
import report_documents as documents

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.report import journal, load_document, write_document
from pytest_fluxperf.report.journal import Entry, add_line
from pytest_fluxperf.results import RunDocument, Skipped


def written(folder: Path, update: str | None = None) -> RunDocument:
    """A document whose every outcome lies in a journal, no test of it in ``results.json``."""
    whole = documents.failing()
    start = msgspec.structs.replace(whole, results=(), skipped=(), published=(), gated=0, update=update)
    add_line(folder / journal.NAME, start)
    for index, outcome in enumerate((*whole.results, *whole.skipped)):
        environments = {} if index else {whole.environment.digest: whole.environment}
        entry = Entry(outcome=outcome, collected=20, duration_s=float(index), environments=environments)
        add_line(folder / journal.NAME, entry)
    return whole


def test_it_holds_what_the_document_would_have_held(tmp_path):
    whole = written(tmp_path)
    read = load_document(tmp_path)
    assert sorted(read.results, key=lambda r: r.test) == sorted(whole.results, key=lambda r: r.test)
    assert set(read.skipped) == set(whole.skipped)
    assert (read.gated, read.collected, read.environment) == (whole.gated, 20, whole.environment)
    done = len(whole.results) + len(whole.skipped)
    assert read.warnings[0].endswith(f"tests that were done: {done} of 20")
    assert load_document(tmp_path / journal.NAME) == read == load_document(tmp_path / "results.json")


def test_where_baselines_were_to_be_moved_it_says_that_none_was(tmp_path):
    written(tmp_path, update="all")
    read = load_document(tmp_path)
    assert (read.update, read.warnings[0].endswith("; no baseline was moved")) == (None, True)


def test_a_document_counts_more_than_the_journal_beside_it(tmp_path):
    written(tmp_path)
    write_document(documents.passing(), tmp_path / "results.json")
    assert load_document(tmp_path) == documents.passing()


@pytest.mark.parametrize("cut", [1, 2, 5000])
def test_a_torn_last_line_is_left_out(tmp_path, cut):
    whole = written(tmp_path)
    path = tmp_path / journal.NAME
    path.write_bytes(path.read_bytes()[:-1])  # of the last line
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:-1], lines[-1][: -min(cut, len(lines[-1]))]]))
    assert len(load_document(tmp_path).results) + len(load_document(tmp_path).skipped) == (
        len(whole.results) + len(whole.skipped) - 1
    )


def test_of_a_test_that_ran_twice_the_last_line_counts(tmp_path):
    whole = written(tmp_path)
    again = msgspec.structs.replace(whole.results[0], duration_s=99.0)
    add_line(tmp_path / journal.NAME, Entry(outcome=again, collected=20, duration_s=1.0))
    (found,) = (result for result in load_document(tmp_path).results if result.test == again.test)
    assert found.duration_s == 99.0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda lines: [], "killed before it had measured anything"),
        (lambda lines: [lines[0], b"{}", *lines[1:]], r"journal\.jsonl: line 2: is damaged"),
        (lambda lines: [lines[0], b"[" * 100_000, *lines[1:]], "line 2: is damaged"),
        (lambda lines: [b"[" * 100_000, *lines[1:]], "is not a results.json"),
        (lambda lines: lines[1:], "is not a results.json"),
    ],
)
def test_what_is_damaged_is_named(tmp_path, change, complaint):
    written(tmp_path)
    path = tmp_path / journal.NAME
    lines = path.read_bytes().split(b"\n")[:-1]
    path.write_bytes(b"".join(line + b"\n" for line in change(lines)))
    with pytest.raises(FluxPerfError, match=complaint):
        load_document(tmp_path)


def test_a_line_that_does_not_fit_on_the_disk_is_taken_back(tmp_path, monkeypatch):
    written(tmp_path)
    path = tmp_path / journal.NAME
    before = path.read_bytes()

    class Full:
        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def write(self, raw):
            return self._file.write(raw[: len(raw) // 2])

    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *args, **named: Full(opened(self, *args, **named)))
    with pytest.raises(OSError) as caught:
        add_line(path, Entry(outcome=Skipped(test="t", recipe=None, reason="r"), collected=1, duration_s=0.0))
    monkeypatch.undo()
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before


def test_every_line_is_json(tmp_path):
    written(tmp_path)
    for line in (tmp_path / journal.NAME).read_text().splitlines():
        assert isinstance(json.loads(line), dict)
