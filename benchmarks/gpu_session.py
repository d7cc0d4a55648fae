"""Everything that is measured on a GPU, within a time budget: the suite and the programs of this folder, one by one.

    python benchmarks/gpu_session.py --out DIR --budget 560
    python benchmarks/gpu_session.py --out DIR --budget 560 --parts suite,suite,repeatability

Parts run in the order given, each in a process of its own. What does not fit into the time that is left is skipped, one
that fails or runs out of time does not stop the others, and after every part all that was written is packed into
DIR/session.tar.gz (the results of the suite, baselines, JSON, logs). A suite that runs out of time is interrupted as by
Ctrl-C, so that it records what it has. The first suite of a machine records baselines, later ones append to them. Ends
with a summary, also in DIR/summary.txt; exits 1 if a part failed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent
GRACE_S = 25.0
"""For a suite that was interrupted to write its reports."""


@dataclass(frozen=True)
class Part:
    """A program and the seconds that it takes on an H200 with FLUX.1-dev's architecture."""

    seconds: float
    arguments: tuple[str, ...]
    suite: bool = False
    tail: int = 6
    """Lines of its output that the summary shows."""


def program(name: str, seconds: float, *arguments: str, tail: int = 6) -> Part:
    return Part(seconds, (str(HERE / f"{name}.py"), *arguments), tail=tail)


PARTS = {
    "doctor": Part(20, ("-m", "pytest_fluxperf.cli", "doctor"), tail=20),
    "suite": Part(430, ("-m", "not extra"), suite=True, tail=45),
    "extra": Part(260, ("-m", "extra"), suite=True, tail=30),
    "tuned": Part(600, ("-m", "long", "-k", "tuned"), suite=True, tail=12),
    "prompts50": Part(400, ("-m", "prompts50"), suite=True, tail=12),
    "every": program("every_recipe", 150, "--steps", "4", "--size", "512", tail=60),
    "harness": program("harness_overhead", 110, "--pairs", "8", tail=2),
    "one_base": program("one_base", 150, "--steps", "4", tail=12),
    "compile": program("compile_time", 130, "--steps", "2", tail=4),
    "repeatability": program("repeatability", 300, "--steps", "8", "--samples", "4", tail=10),
}
"""In order of importance."""

DEFAULT = "doctor,suite,harness,compile,one_base,suite,suite,repeatability,every,extra"


class Session:
    """Runs parts until the budget is spent."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen = chosen
        self.end = time.monotonic() + chosen.budget
        self.out: Path = chosen.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.work = Path(tempfile.mkdtemp(prefix="fluxperf-"))
        self.lines: list[str] = []
        self.failed = False
        shutil.copytree(chosen.baselines, self.work / "baselines", ignore=shutil.ignore_patterns("cpu"))

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    def run(self, number: int, name: str) -> None:
        part = PARTS[name]
        needed = part.seconds * self.chosen.scale
        if needed > self.left:
            self.say(f"## {name}: skipped, needs about {needed:.0f} s and {self.left:.0f} s are left")
            return
        label = f"{number:02d}-{name}"
        log = self.work / f"{label}.log"
        command = [sys.executable, *self.command(part, label)]
        start = time.monotonic()
        with log.open("w") as output, log.with_suffix(".err").open("w") as errors:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=errors, env=self.environment, start_new_session=True
            )
            ended = self.wait(process)
        self.failed |= process.returncode != 0
        state = f"exit {process.returncode}" if ended else "out of time"
        self.say(f"## {name}: {state} after {time.monotonic() - start:.0f} s")
        self.quote(log, part.tail)
        if process.returncode:
            self.quote(log.with_suffix(".err"), 4)
        self.pack()

    def quote(self, log: Path, tail: int) -> None:
        """The last lines of a part's output."""
        shown = [line.rstrip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        for line in shown[-tail:]:
            self.say(f"   {line[:200]}")

    def command(self, part: Part, label: str) -> list[str]:
        chosen = self.chosen
        given = {name: value for name in ("size", "steps") if (value := getattr(chosen, name)) is not None}
        if not part.suite:
            if part.arguments[0] == "-m":
                return list(part.arguments)
            # the last of two equal options wins
            more = [f"--{name}={value}" for name, value in given.items()]
            if chosen.device:
                more.append(f"--device={chosen.device}")
            return [*part.arguments, f"--model={chosen.model}", *more, f"--output={self.work / label}.json"]
        recorded = any((self.work / "baselines" / chosen.gpu).rglob("*.json")) if chosen.gpu != "auto" else self.any()
        options = [
            f"--gpu={chosen.gpu}",
            f"--fluxperf-model={chosen.model}",
            f"--fluxperf-baselines={self.work / 'baselines'}",
            f"--fluxperf-reports={self.work / label}",
            "--fluxperf-append" if recorded else "--fluxperf-update=all",
            *(f"--fluxperf-{name}={value}" for name, value in given.items()),
        ]
        if "prompts50" not in part.arguments:
            options += [f"--fluxperf-samples={chosen.samples}", f"--fluxperf-warmup={chosen.warmup}"]
        plugin = [] if installed() else ["-p", "pytest_fluxperf.plugin"]
        return [
            "-m",
            "pytest",
            *plugin,
            "perf_tests",
            "-q",
            "-rs",
            "--disable-warnings",
            "-p",
            "no:cacheprovider",
            *part.arguments,
            *options,
        ]

    def any(self) -> bool:
        """Whether any GPU's baselines are there."""
        folders = [f for f in (self.work / "baselines").iterdir() if f.is_dir() and f.name != "published"]
        return any(path for folder in folders for path in folder.rglob("*.json"))

    @property
    def environment(self) -> dict[str, str]:
        offline = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        return {**os.environ, **offline, "PYTHONPATH": path}

    def wait(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait while there is time, then interrupt it, then end it; False when it did not end by itself."""
        try:
            process.wait(max(1.0, self.left - GRACE_S))
            return True
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(max(1.0, min(GRACE_S, self.left)))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return False

    def say(self, line: str) -> None:
        print(line, flush=True)
        self.lines.append(line)
        (self.out / "summary.txt").write_text("\n".join(self.lines) + "\n")

    def pack(self) -> None:
        scratch = self.work.with_suffix(".tar.gz")
        with tarfile.open(scratch, "w:gz") as archive:
            archive.add(self.work, arcname="session")
        shutil.move(scratch, self.out / "session.tar.gz")


def installed() -> bool:
    """Whether pytest finds the plugin by itself, as it does where the package is installed."""
    return any(entry.name == "fluxperf" for entry in importlib.metadata.entry_points(group="pytest11"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--budget", type=float, default=560.0, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument("--parts", default=DEFAULT, metavar="LIST", help=f"of {', '.join(PARTS)}; default: {DEFAULT}")
    parser.add_argument("--gpu", default="auto", help="as pytest's --gpu")
    parser.add_argument("--device", help="of the programs: cpu, cuda")
    parser.add_argument("--model", default="flux-dev@random")
    parser.add_argument("--samples", type=int, default=2, help="measured generations a test and suite")
    parser.add_argument("--warmup", type=int, default=1, help="least warm-ups a test; compiled recipes make two anyway")
    parser.add_argument("--steps", type=int, help="shorter than 28, to try it out")
    parser.add_argument("--size", type=int, help="smaller than 1024, to try it out")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the seconds that parts are thought to take")
    parser.add_argument("--baselines", type=Path, default=ROOT / "baselines", help="what suites append to; not changed")
    chosen = parser.parse_args()
    names = [name.strip() for name in chosen.parts.split(",") if name.strip()]
    if unknown := sorted(set(names) - set(PARTS)):
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    session = Session(chosen)
    for number, name in enumerate(names):
        session.run(number, name)
    session.pack()
    session.say(f"## {session.left:.0f} s of {chosen.budget:.0f} s left; {chosen.out / 'session.tar.gz'}")
    return int(session.failed)


if __name__ == "__main__":
    sys.exit(main())
