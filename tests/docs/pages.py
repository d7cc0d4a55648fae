"""The documentation as something to execute.

A fence is told what to do by an HTML comment before it, which no reader sees:

``<!-- file: NAME -->``   write the block to a file of the page's project, for a later command
``<!-- exits: N -->``     the block's last command ends with that status instead of 0
``<!-- not run: WHY -->`` leave it out, for one of :data:`REASONS`

Without one, ``console`` runs each line after ``$`` and compares the output that is shown (``...`` stands for anything);
``python`` is executed as it is; ``text`` is output or a drawing. ``<!-- run: COMMAND -->`` runs without being shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

REASONS = {
    "needs a GPU",
    "needs GitHub",
    "needs a conflict",
    "needs root on a runner",
    "needs the network",
    "takes minutes",
}

_COMMENT = re.compile(r"\s*<!--\s*(file|exits|not run|run):\s*(.*?)\s*-->\s*")
_FENCE = re.compile(r"(\s*)(```+)(\S*).*")


@dataclass
class Block:
    """A fence, or a hidden command (language ``run``)."""

    language: str
    text: str
    line: int
    marks: dict[str, str] = field(default_factory=dict)


def blocks(text: str) -> Iterator[Block]:
    """Every fence and hidden command of a page, in order."""
    marks: dict[str, str] = {}
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        if mark := _COMMENT.fullmatch(line):
            if mark[1] == "run":
                yield Block("run", mark[2], number)
            else:
                marks[mark[1]] = mark[2]
        elif fence := _FENCE.fullmatch(line):
            indent, ticks, language = fence.groups()
            body = []
            for _, inner in lines:
                if inner.strip() == ticks:
                    break
                body.append(inner.removeprefix(indent))
            yield Block(language, "".join(f"{part}\n" for part in body), number, marks)
            marks = {}
        elif line.strip():
            marks = {}


def commands(block: Block) -> list[tuple[str, list[str]]]:
    """Each command of a console block with the output that is shown; a trailing backslash continues a command."""
    found: list[tuple[str, list[str]]] = []
    open_end = False
    for line in block.text.splitlines():
        if open_end:
            command, shown = found[-1]
            found[-1] = (f"{command}\n{line}", shown)
        elif line.startswith("$ "):
            found.append((line[2:], []))
        elif line.strip():
            found[-1][1].append(line)
        open_end = line.endswith("\\")
    return found


def matches(shown: str, output: str) -> bool:
    """Whether a shown line, with ``...`` for anything, is a line of the output or part of one where it says so."""
    pattern = ".*".join(re.escape(" ".join(part.split())) for part in shown.split("..."))
    return any(re.fullmatch(rf"\s*{pattern}\s*", " ".join(line.split())) for line in output.splitlines())
