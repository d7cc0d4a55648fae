"""A session on a GPU: limits, what a part leaves behind when it fails or is ended, what programs are told."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu_session(monkeypatch):
    """The program as a module."""
    spec = importlib.util.spec_from_file_location("gpu_session", BENCHMARKS / "gpu_session.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_session", module)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(gpu_session, monkeypatch, tmp_path):
    """``run(parts, *arguments) -> (exit status, summary, {name: content} of the archive)`` of little programs."""
    (tmp_path / "baselines").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(gpu_session.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(gpu_session, "GRACE_S", 0.2)

    def run(parts, *arguments):
        takes = ("output",)
        known = {name: gpu_session.Part(seconds, ("-c", code), takes) for name, (seconds, code) in parts.items()}
        monkeypatch.setattr(gpu_session, "PARTS", known)
        out = tmp_path / "out"
        chosen = [f"--parts={','.join(parts)}"] if not any(a.startswith("--parts") for a in arguments) else []
        status = gpu_session.main(
            [f"--out={out}", f"--baselines={tmp_path / 'baselines'}", "--budget=60", *chosen, *arguments]
        )
        with tarfile.open(out / "session.tar.gz") as archive:
            files = {m.name: archive.extractfile(m).read().decode() for m in archive.getmembers() if m.isfile()}
        return status, (out / "summary.txt").read_text(), files

    return run


WRITE = "import sys, pathlib; pathlib.Path(sys.argv[1].split('=')[1]).write_text('[1]'); print('measured')"


def test_parts_run_in_turn_and_all_is_packed(run):
    status, summary, files = run({"one": (1, WRITE), "two": (1, "print('second')")})
    assert status == 0
    assert summary.index("## one: exit 0") < summary.index("   measured") < summary.index("## two: exit 0")
    assert files["session/00-one.json"] == "[1]"
    assert files["session/01-two.log"] == "second\n"


def test_a_part_that_fails_is_told_and_does_not_stop_the_others(run):
    status, summary, files = run({"bad": (1, "raise SystemExit('no such kernel')"), "good": (1, WRITE)})
    assert status == 1
    assert "## bad: exit 1" in summary
    assert "no such kernel" in summary
    assert files["session/01-good.json"] == "[1]"


def test_a_part_out_of_time_keeps_what_it_wrote(run):
    slow = f"{WRITE}; sys.stdout.flush(); import time; time.sleep(60)"
    status, summary, files = run({"slow": (1, slow), "next": (1, WRITE)}, "--parts=slow:2,next")
    assert status == 1
    assert "## slow: out of time after" in summary
    assert files["session/00-slow.json"] == "[1]"
    assert "## next: exit 0" in summary


def test_the_archive_is_whole_after_every_part(gpu_session, run, monkeypatch, tmp_path):
    """Ended in the middle of the second part, the first one's results are there."""
    real = gpu_session.Session.wait

    def wait(self, process, seconds):
        if "01-" in str(self.lines) or any("## one" in line for line in self.lines):
            process.kill()
            process.wait()
            raise KeyboardInterrupt
        return real(self, process, seconds)

    monkeypatch.setattr(gpu_session.Session, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        run({"one": (1, WRITE), "two": (1, WRITE)})
    with tarfile.open(tmp_path / "out" / "session.tar.gz") as archive:
        assert "session/00-one.json" in archive.getnames()


def test_what_does_not_fit_is_skipped(run):
    status, summary, _ = run({"long": (600, WRITE), "short": (1, WRITE)})
    assert status == 0
    assert "## long: skipped, needs about 600 s" in summary
    assert "## short: exit 0" in summary


def test_an_unknown_part_or_limit_is_refused(gpu_session, tmp_path, capsys):
    for parts, complaint in (
        ("nothing", "no part 'nothing'; there are doctor, suite"),
        ("suite:x", "'x' is no number"),
    ):
        with pytest.raises(SystemExit):
            gpu_session.main([f"--out={tmp_path}", f"--parts={parts}"])
        assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("rehearse", [False, True])
def test_every_program_knows_the_options_it_is_given(gpu_session, tmp_path, monkeypatch, rehearse):
    """Each is called with its very arguments and --help, which argparse answers after it has read the others."""
    monkeypatch.setattr(gpu_session.tempfile, "tempdir", str(tmp_path))
    chosen = ["--rehearse"] if rehearse else ["--steps=3", "--size=64", "--device=cpu"]
    seen = {}

    def keep(self, number, name, seconds):
        part = gpu_session.PARTS[name]
        if not part.suite and Path(part.arguments[0]).exists():
            seen[name] = self.command(part, name)

    monkeypatch.setattr(gpu_session.Session, "run", keep)
    gpu_session.main([f"--out={tmp_path / 'out'}", f"--parts={','.join(gpu_session.PARTS)}", *chosen])
    assert {"harness", "repeatability", "every", "kernels", "ab"} <= set(seen)
    check = (
        "import argparse, runpy, sys\n"
        "class Read(Exception): pass\n"
        "real = argparse.ArgumentParser.parse_args\n"
        "def parse(self, *a, **k):\n    real(self, *a, **k)\n    raise Read\n"
        "argparse.ArgumentParser.parse_args = parse\n"
        f"sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        f"for command in {list(seen.values())!r}:\n"
        "    sys.argv = command[1:]\n"
        "    try:\n        runpy.run_path(command[1], run_name='__main__')\n"
        "    except Read:\n        print(command[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.split()) == len(seen)
