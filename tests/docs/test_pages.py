"""Every command and code block of README and docs runs, or says why it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pages import PAGES, REASONS, ROOT, Block, blocks, commands, matches

# Small enough for a test, and so tolerant that only what is wrong with the page fails it.
CHEAP = (
    "-p no:cacheprovider -p no:benchmark -p no:hypothesispytest --fluxperf-steps=2 --fluxperf-samples=2 "
    "--fluxperf-size=64 --fluxperf-warmup=0 --fluxperf-latency=absolute --fluxperf-max-slowdown=1 "
    "--fluxperf-quality-tolerance=10"
)


class Project:
    """The folder in which a page's blocks take effect."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unused: set[str] = set()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        python = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.environment = {
            **os.environ,
            "PATH": path,
            "PYTHONPATH": python,
            "PYTEST_ADDOPTS": CHEAP,
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "120",
        }

    def execute(self, block: Block) -> None:
        if name := block.marks.get("file"):
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
            self.unused.add(name)
        elif block.language == "run":
            self.command(block.text, [], 0)
        elif block.language == "python":
            self.command(f"{sys.executable} -", [], 0, block.text)
        else:
            assert block.language == "console", f"line {block.line}: what should run a {block.language} block?"
            found = commands(block)
            for index, (command, shown) in enumerate(found, start=1):
                self.command(command, shown, int(block.marks.get("exits", 0)) if index == len(found) else 0)

    def command(self, command: str, shown: list[str], status: int, text: str | None = None) -> None:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=600,
        )
        output = done.stdout + done.stderr
        assert done.returncode == status, f"$ {command}\n{output}"
        for line in shown:
            assert matches(line, output), f"$ {command}\nshows {line!r}, but prints\n{output}"
        if command.split()[0] in ("pytest", "python"):
            self.unused.clear()


def runnable(page: Path) -> list[Block]:
    return [b for b in blocks(page.read_text()) if b.language != "text" and "not run" not in b.marks]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_says_what_it_is(page):
    for block in blocks(page.read_text()):
        assert block.language, f"{page.name}:{block.line}: a fence without a language; output is `text`"
        if reason := block.marks.get("not run"):
            assert reason in REASONS, f"{page.name}:{block.line}: {reason!r} is no reason that we accept"


@pytest.mark.parametrize("page", [p for p in PAGES if runnable(p)], ids=lambda page: page.stem)
def test_every_block_runs(page, tmp_path):
    project = Project(tmp_path)
    for block in runnable(page):
        try:
            project.execute(block)
        except AssertionError as error:
            raise AssertionError(f"{page.name}:{block.line}: {error}") from None
    assert not project.unused, f"{page.name}: no command after {sorted(project.unused)} runs them"


def test_what_is_wrong_with_a_page_is_seen(tmp_path):
    project = Project(tmp_path)
    with pytest.raises(AssertionError, match="shows"):
        project.execute(Block("console", "$ echo one\ntwo\n", 1))
    with pytest.raises(AssertionError, match="false"):
        project.execute(Block("console", "$ false\n", 1))
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        project.execute(Block("python", "1 / 0\n", 1))
    with pytest.raises(AssertionError, match="what should run"):
        project.execute(Block("yaml", "a: 1\n", 1))
    project.execute(Block("console", "$ echo one; exit 3\none\n", 1, {"exits": "3"}))
    project.execute(Block("python", "a = 1\n", 1, {"file": "a.py"}))
    assert project.unused == {"a.py"}


def test_blocks_are_found_with_their_marks():
    text = "<!-- file: a.py -->\n```python\nx\n```\n\n<!-- not run: needs a GPU -->\n\ntext\n\n"
    text += "```console\n$ a \\\n  b\nc\n```\n"
    first, second = blocks(text)
    assert (first.language, first.text, first.marks) == ("python", "x\n", {"file": "a.py"})
    assert second.marks == {}  # a paragraph stood between
    assert commands(second) == [("a \\\n  b", ["c"])]
