"""A comparison of two environments whose children speak the protocol and measure nothing."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import records as make

from pytest_fluxperf.ab.conductor import Conductor
from pytest_fluxperf.ab.trial import Terms, Trial
from pytest_fluxperf.quality import images
from pytest_fluxperf.results import Environment, Judgement, Result, Workload

FAKE = Path(__file__).with_name("fakechild.py")


class Fakes:
    """Two environments of fake children, and a comparison of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "comparison"
        self.home = folder
        self.diary = folder / "diary"
        self.shown: list[str] = []
        workload: Workload = make.workload(8)
        result = Result(
            test="",
            recipe=None,
            reference="none",
            workload=workload,
            measurement=make.measurement([1.0]),
            judgement=Judgement(verdict="no baseline", message="", gated=False),
            run=make.run(make.measurement([1.0])),
        )
        self.result = msgspec.to_builtins(result)
        self.scenarios: dict[str, dict[str, Any]] = {}
        for side in ("old", "new"):
            self.scenarios[side] = {"tests": {}, "packages": {"torch": "2.11.0", "slowphase": side}}

    def tests(self, **tests: tuple[dict[str, Any] | None, dict[str, Any] | None]) -> Fakes:
        """What each side does with each test; None: it has no such test."""
        for name, sides in tests.items():
            for side, told in zip(("old", "new"), sides, strict=True):
                if told is not None:
                    self.scenarios[side]["tests"][name] = told
        return self

    def picture(self, seed: int, width: int = 32) -> list[Any]:
        """What a side tells of a picture of noise: a value for ``picture`` in what it does with a test."""
        pixels = np.random.default_rng(seed).random((32, width, 3), dtype=np.float32)
        made = images.save(pixels, self.home / "images", self.home)
        return [str(self.home / made.path), msgspec.to_builtins(made)]

    def python(self, side: str) -> Path:
        environment = Environment(python="3.11", platform="Linux", packages=self.scenarios[side]["packages"])
        result = self.result | {"run": self.result["run"] | {"environment": environment.digest}}
        scenario = {"diary": str(self.diary), "result": result, **self.scenarios[side]}
        (self.home / f"{side}.json").write_text(json.dumps(scenario))
        script = self.home / f"{side}-python"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{FAKE}" "{self.home}/{side}.json"\n')
        script.chmod(0o755)
        return script

    def conductor(self, **terms: Any) -> Conductor:
        values: dict[str, Any] = {"timeout_s": 20.0, "quality": False, **terms}
        folders = {"old": self.python("old"), "new": self.python("new"), "folder": self.folder}
        return Conductor(Terms(arguments=(), **folders, **values), self.shown.append)

    def run(self, tests: list[str] | None = None, **terms: Any) -> list[Trial]:
        return self.conductor(**terms).run(tests)

    def lines(self, part: str = "") -> list[str]:
        return [line for line in self.diary.read_text().splitlines() if part in line]


def alive(pid: int) -> bool:
    """Whether a process runs (one that nobody has waited for yet does not)."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.02)
    return True


def children(folder: Path) -> set[int]:
    """Processes whose environment says that they belong to a comparison in ``folder``."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if b"FLUXPERF_AB_RUN=" in environment and b"FLUXPERF_AB_REPORTS=" + bytes(folder) in environment:
            found.add(int(entry.name))
    return found
