"""``python -m tools.campaign [--quick]``: mutated files, whole sessions killed, small disks, hostile children."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from tools.campaign.children import compare_hostile
from tools.campaign.kills import Sessions
from tools.campaign.mutate import SECRET
from tools.campaign.readers import READERS, injected
from tools.campaign.watch import Figures, Watch


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign and print its figures; 1 where anything fell."""
    parser = argparse.ArgumentParser(prog="python -m tools.campaign", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="600 mutations, 6 kills, 3 disks, 3 children")
    parser.add_argument("--mutations", type=int, help="default: 10000")
    parser.add_argument("--kills", type=int, help="default: 200")
    parser.add_argument("--disks", type=int, help="sessions on a small disk; default: 40")
    parser.add_argument("--children", type=int, help="comparisons with hostile children; default: 40")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn; default: 0")
    options = parser.parse_args(arguments)
    usual = {"mutations": 600, "kills": 6, "disks": 3, "children": 3} if options.quick else {
        "mutations": 10_000, "kills": 200, "disks": 40, "children": 40,
    }  # fmt: skip
    asked = {name: count if (given := getattr(options, name)) is None else given for name, count in usual.items()}
    begun = time.monotonic()
    figures = run(options.seed, **asked)
    print("\n".join(figures.lines()))
    print(f"seed {options.seed}, {time.monotonic() - begun:.0f} s")
    return int(bool(figures.fell))


def run(seed: int, *, mutations: int, kills: int, disks: int, children: int) -> Figures:
    """All parts, in a folder that is removed at the end."""
    figures = Figures()
    folder = Path(tempfile.mkdtemp(prefix="campaign-"))
    try:
        if kills or disks:
            sessions = Sessions(folder / "sessions", figures)
            for number in range(kills):
                sessions.kill(Random(f"{seed} kill {number}"))
            for number in range(disks):
                sessions.fill(Random(f"{seed} disk {number}"))
        for number in range(children):
            compare_hostile(folder / f"comparison-{number}", Random(f"{seed} child {number}"), figures)
        read_all(folder / "files", seed, mutations, figures)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return figures


def read_all(folder: Path, seed: int, mutations: int, figures: Figures) -> None:
    """Have every reader read its share of mutated files."""
    watch = Watch(figures)
    for reader in READERS:
        share = max(1, round(reader.share * mutations))
        if share < reader.least:
            continue
        reader.begin()
        for number in range(share):
            random = Random(f"{seed} {reader.name} {number}")
            own = folder / "own"
            own.mkdir(parents=True)
            (folder / SECRET).write_bytes(b"\x89PNG\r\n\x1a\n")
            said = watch.call(reader.name, own, lambda: reader.read(own, random))  # noqa: B023 (called here)
            if said is not None and reader.judges:
                figures.found("false greens", f"{reader.name}, number {number}")
            if said and (what := injected(*said)):
                figures.found("injections", f"{reader.name}, number {number}: {what}")
            shutil.rmtree(own)


if __name__ == "__main__":
    sys.exit(main())
