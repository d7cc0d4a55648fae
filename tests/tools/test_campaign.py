"""The campaign of faults: a small one finds nothing, and what it looks for it sees."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from pytest_fluxperf.errors import FluxPerfError
from tools.campaign import watch as watching
from tools.campaign.kills import look_at
from tools.campaign.mutate import MARK, SECRET, damage, encode, mutate
from tools.campaign.readers import READERS, injected
from tools.campaign.watch import Figures, Watch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def watch() -> Iterator[Watch]:
    before = signal.getsignal(signal.SIGALRM)
    yield Watch(Figures())
    signal.signal(signal.SIGALRM, before)


def test_a_small_campaign_finds_nothing(tmp_path: Path) -> None:
    arguments = ["--mutations", "40", "--kills", "1", "--disks", "1", "--children", "1", "--seed", "3"]
    ran = subprocess.run(
        [sys.executable, "-m", "tools.campaign", *arguments],
        cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search("^0 tracebacks, 0 hangs, .*0 false greens", ran.stdout, re.MULTILINE)
    for reader in (one for one in READERS if one.least == 1):
        assert re.search(rf"^ *[1-9]\d* {re.escape(reader.name)}", ran.stdout, re.MULTILINE)
    assert not list(tmp_path.glob("campaign-*"))


def test_what_a_reader_must_not_do_is_counted(watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LONGEST_S", 0.2)
    own = tmp_path / "own"
    own.mkdir()
    (tmp_path / SECRET).write_text("secret")
    (own / "link").symlink_to(tmp_path / "elsewhere")

    def refuse() -> str:
        raise FluxPerfError("no")

    def stumble() -> str:
        raise KeyError("x")

    def hang() -> str:
        while True:
            pass

    def peek() -> str:
        return (own / ".." / SECRET).read_text()

    def spill() -> str:
        return str((own / "link").write_text("x"))

    def move() -> str:
        (own / "a").write_text("x")
        return str((own / "a").rename(tmp_path / "b"))

    def behave() -> str:
        print("said")
        (own / "a").write_text("x")
        (own / "a").unlink()
        return "well"

    assert watch.call("r", own, behave) == ("well", "said\n")
    assert watch.call("r", own, refuse) is None
    assert watch.figures.fell == {}
    for what, kind in (
        (stumble, "tracebacks"), (hang, "hangs"), (peek, "foreign reads"), (spill, "foreign writes"),
        (move, "foreign writes"),
    ):  # fmt: skip
        watch.figures.fell.clear()
        watch.call("r", own, what)
        assert watch.figures.fell == {kind: 1}, kind


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        (f"<p><script>alert('{MARK}')</script>", ""), ('<a href="javascript:x">', ""), ("a\x1b[2J", ""),
        ("", "\u202ea"), ("", f"text\n::error::{MARK}"),
    ],
)  # fmt: skip
def test_a_payload_that_comes_through_is_seen(written: str, printed: str) -> None:
    assert injected(written, printed)
    assert not injected("&lt;script&gt;", f"::error title=x::{MARK} ::warning:: x")


def test_what_a_killed_session_left_is_looked_at(tmp_path: Path) -> None:
    figures = Figures()
    (tmp_path / "disk" / "baselines" / "images").mkdir(parents=True)
    (tmp_path / "disk" / "reports" / "run").mkdir(parents=True)
    (tmp_path / "log").write_text("INTERNALERROR> x")
    (tmp_path / "disk" / "baselines" / "a.json").write_text('{"format": 1')
    (tmp_path / "disk" / "baselines" / "images" / f"{'0' * 64}.png").write_text("half")
    (tmp_path / "disk" / "reports" / "run" / "results.json").write_text('{"format": 3')
    left = subprocess.Popen(["sleep", "60"], start_new_session=True)
    look_at(tmp_path, 0, left.pid, "SIGKILL", figures)
    assert left.wait() == -signal.SIGKILL
    assert figures.fell == {"tracebacks": 1, "orphans": 1, "torn files": 3, "false greens": 1}


def test_mutations_are_drawn_and_can_be_drawn_again() -> None:
    content = {"a": [1, 2.5, {"b": "text"}], "c": None, "d": True}
    made = [mutate(content, Random(seed)) for seed in range(50)]
    assert content == {"a": [1, 2.5, {"b": "text"}], "c": None, "d": True}
    assert made == [mutate(content, Random(seed)) for seed in range(50)]
    assert sum(one != content for one in made) > 40
    kept = [mutate(content, Random(seed), lambda key: key != "a") for seed in range(50)]
    assert all("a" not in one or one["a"] == content["a"] for one in kept if isinstance(one, dict))
    assert len({encode(content, Random(seed)) for seed in range(100)} | {damage(b"x1", Random(1))}) > 4
