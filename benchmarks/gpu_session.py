"""Everything that is measured on a GPU, within a time budget: the suite and the programs of this folder, one by one.

    python benchmarks/gpu_session.py --out DIR --budget 570 --parts doctor,suite
    python benchmarks/gpu_session.py --out DIR --budget 570 --parts suite,kernels
    python benchmarks/gpu_session.py --out DIR --budget 570 --parts repeatability,ab
    python benchmarks/gpu_session.py --out DIR --budget 570 --parts harness,every,extra
    python benchmarks/gpu_session.py --out DIR --rehearse                     # the same plumbing on a CPU, in minutes

Parts run in the order given, each in a process of its own and with a time limit of its own: half as long again as it
is thought to take, or what ``name:SECONDS`` says. A part that does not fit into the time that is left is skipped; one
that fails or runs out of time does not stop the others. A suite that runs out of time is interrupted as by Ctrl-C, so
that it records what it has. Suites append to a copy of the baselines, or record them where this GPU has none;
with ``--fresh`` the first one records them anew.

After every part all that was written so far (results and reports of the suites, baselines, JSON, logs) is packed into
DIR/session.tar.gz, so that nothing is lost if this program is ended. Parts share one folder of compiled
kernels. Ends with a summary, also in DIR/summary.txt; exits 1 if a part failed.
"""

from __future__ import annotations

import argparse
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

from suite import pytest_command

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent
GRACE_S = 25.0
"""For a suite that was interrupted to write its reports."""

LIMIT = 1.5
"""Time that a part may take at most, over the time that it is thought to take."""


@dataclass(frozen=True)
class Part:
    """What is run, and the seconds that it takes on an H100 or H200 with FLUX.1-dev's architecture."""

    seconds: float
    arguments: tuple[str, ...]
    """Of Python; of pytest for a suite."""
    takes: tuple[str, ...] = ("model", "device", "size", "steps", "output")
    """Which of the session's settings the program has options for."""
    small: tuple[str, ...] = ()
    """More arguments in a rehearsal; the last of two equal options wins."""
    suite: bool = False
    tail: int = 6
    """Lines of its output that the summary shows."""


def program(name: str, seconds: float, *arguments: str, **more: object) -> Part:
    """A program of this folder."""
    return Part(seconds, (str(HERE / f"{name}.py"), *arguments), **more)  # type: ignore[arg-type]


PARTS = {
    "doctor": Part(20, ("-m", "pytest_fluxperf.cli", "doctor"), takes=("gpu", "model"), tail=20),
    "suite": Part(460, ("-m", "not extra"), suite=True, tail=45),
    "extra": Part(700, ("-m", "extra"), suite=True, tail=30),
    "tuned": Part(150, ("-k", "bf16 and dtype or tuned or fastest"), suite=True, tail=12),
    "whole": Part(300, ("-m", "long", "-k", "whole"), suite=True, tail=12),
    "prompts50": Part(390, ("-m", "prompts50"), suite=True, tail=12),
    "harness": program("harness_overhead", 110, "--pairs=8", small=("--pairs=2",), tail=2),
    "repeatability": program(
        "repeatability",
        280,
        "--steps=8",
        "--samples=4",
        "--processes=5",
        small=("--samples=2", "--processes=2", "--recipes=fp32,fp32+fora"),
        tail=10,
    ),
    "every": program(
        "every_recipe", 150, "--steps=4", "--size=512", small=("--only=math,fbcache,fora,int8wo,fuseqkv",), tail=60
    ),
    "kernels": program("kernel_breakdown", 100, tail=70),
    "ab": program(
        "ab_full_size",
        420,
        takes=("model", "gpu", "size", "steps", "output"),
        small=("--prompts=2", "--tolerance=0.9", "--share=0.5"),
        tail=8,
    ),
    "sample": program(
        "sample_report",
        120,
        takes=("model", "gpu", "out", "baselines"),
        small=("--sessions=1", "--samples=2", "--size=128", "--steps=8"),
        tail=20,
    ),
}
"""All parts; what one is thought to take was measured or, where it never ran on a GPU, estimated."""

DEFAULT = "doctor,suite,repeatability,ab,harness,kernels,every,extra,sample"

REHEARSAL = {"model": "tiny", "gpu": "cpu", "device": "cpu", "size": 64, "steps": 2, "samples": 1, "scale": 0.3}


class Session:
    """Runs parts until the budget is spent."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen = chosen
        self.end = time.monotonic() + chosen.budget
        self.out: Path = chosen.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.work = Path(tempfile.mkdtemp(prefix="fluxperf-"))
        self.kernels = chosen.kernels or Path(tempfile.gettempdir()) / "fluxperf-kernels"
        self.lines: list[str] = []
        self.failed = False
        if not chosen.fresh:
            shutil.copytree(chosen.baselines, self.work / "baselines", ignore=shutil.ignore_patterns("cpu"))

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def run(self, number: int, name: str, seconds: float | None) -> None:
        """Run a part, for ``seconds`` at most."""
        part = PARTS[name]
        needed = part.seconds * self.chosen.scale
        if part.arguments[0].endswith(".py") and not Path(part.arguments[0]).exists():
            self.say(f"## {name}: skipped, there is no {Path(part.arguments[0]).name}")
            return
        if min(needed, seconds or needed) > self.left:
            self.say(f"## {name}: skipped, needs about {needed:.0f} s and {self.left:.0f} s are left")
            return
        label = f"{number:02d}-{name}"
        log = self.work / f"{label}.log"
        command = self.command(part, label)
        start = time.monotonic()
        with log.open("w") as output, log.with_suffix(".err").open("w") as errors:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=errors, env=self.environment, start_new_session=True
            )
            ended = self.wait(process, min(self.left - GRACE_S, seconds or LIMIT * needed))
        self.failed |= process.returncode != 0 or not ended
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
        """The part's whole command line."""
        chosen = self.chosen
        small = part.small if chosen.rehearse else ()
        settings = {name: getattr(chosen, name) for name in ("model", "device", "gpu", "size", "steps")}
        given = {name: value for name, value in settings.items() if value is not None}
        if not part.suite:
            given |= {"output": self.work / f"{label}.json", "out": self.work / label}
            if (baselines := self.work / "baselines").is_dir():
                given["baselines"] = baselines
            options = [f"--{name}={given[name]}" for name in part.takes if name in given]
            return [sys.executable, *part.arguments, *small, *options]
        options = [
            f"--gpu={chosen.gpu}",
            f"--fluxperf-model={chosen.model}",
            f"--fluxperf-baselines={self.work / 'baselines'}",
            f"--fluxperf-reports={self.work / label}",
            "--fluxperf-append",
            *(f"--fluxperf-{name}={given[name]}" for name in ("size", "steps") if name in given),
            *(["--fluxperf-latency=absolute"] if chosen.rehearse else []),
        ]
        if "prompts50" not in part.arguments:
            options += [f"--fluxperf-samples={chosen.samples}", f"--fluxperf-warmup={chosen.warmup}"]
        flags = ["-q", "-rs", "--disable-warnings", "-p", "no:cacheprovider"]
        return [*pytest_command(), "perf_tests", *flags, *part.arguments, *options]

    @property
    def environment(self) -> dict[str, str]:
        """Of every part."""
        offline = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        return {**os.environ, **offline, "PYTHONPATH": path, "TORCHINDUCTOR_CACHE_DIR": str(self.kernels)}

    def wait(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        """Wait so long, then interrupt it, then end it; False when it did not end by itself."""
        try:
            process.wait(max(1.0, seconds))
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
        """Print a line and add it to the summary."""
        print(line, flush=True)
        self.lines.append(line)
        (self.out / "summary.txt").write_text("\n".join(self.lines) + "\n")

    def pack(self) -> None:
        """Put everything that there is into the archive; what was there stays until the new one is whole."""
        scratch = self.out / ".session.tar.gz"
        with tarfile.open(scratch, "w:gz", compresslevel=1) as archive:
            archive.add(self.work, arcname="session")
        scratch.replace(self.out / "session.tar.gz")


def main(arguments: list[str] | None = None) -> int:
    """Run the session; 1 if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--budget", type=float, default=560.0, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument(
        "--parts",
        default=DEFAULT,
        metavar="LIST",
        help=f"of {', '.join(PARTS)}, each NAME or NAME:SECONDS; default: {DEFAULT}",
    )
    parser.add_argument("--gpu", default="auto", help="as pytest's --gpu")
    parser.add_argument("--device", help="of the programs: cpu, cuda")
    parser.add_argument("--model", default="flux-dev@random")
    parser.add_argument("--samples", type=int, default=2, help="measured generations a test and suite")
    parser.add_argument("--warmup", type=int, default=1, help="least warm-ups a test; compiled recipes make two anyway")
    parser.add_argument("--steps", type=int, help="other than what each part takes")
    parser.add_argument("--size", type=int, help="likewise")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the seconds that parts are thought to take")
    parser.add_argument("--baselines", type=Path, default=ROOT / "baselines", help="what suites append to; not changed")
    parser.add_argument("--fresh", action="store_true", help="append to nothing: the first suite records baselines")
    parser.add_argument("--kernels", type=Path, metavar="DIR", help="compiled kernels (default: a temporary folder)")
    parser.add_argument("--rehearse", action="store_true", help="try everything with small figures on a CPU")
    chosen = parser.parse_args(arguments)
    if chosen.rehearse:
        vars(chosen).update(REHEARSAL)
    parts = []
    for text in filter(None, (part.strip() for part in chosen.parts.split(","))):
        name, _, limit = text.partition(":")
        if name not in PARTS:
            parser.error(f"no part {name!r}; there are {', '.join(PARTS)}")
        try:
            parts.append((name, float(limit) if limit else None))
        except ValueError:
            parser.error(f"{text!r}: {limit!r} is no number of seconds")
    session = Session(chosen)
    for number, (name, seconds) in enumerate(parts):
        session.run(number, name, seconds)
    session.pack()
    shutil.rmtree(session.work)
    session.say(f"## {session.left:.0f} s of {chosen.budget:.0f} s left; {chosen.out / 'session.tar.gz'}")
    return int(session.failed)


if __name__ == "__main__":
    sys.exit(main())
