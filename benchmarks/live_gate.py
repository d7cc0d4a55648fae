"""The gate on a live machine: unchanged and idle, unchanged and loaded, and loaded with causes planted.

    python benchmarks/live_gate.py --out DIR --model flux-dev@random --parts idle --budget-s 560
    python benchmarks/live_gate.py --out DIR --model flux-dev@random --parts loaded,planted -k "bf16 and dtype"
    python benchmarks/live_gate.py --out DIR --model tiny --gpu cpu --parts idle,loaded -k fp32     # the plumbing

``idle`` appends its session to a copy of the baselines, which then hold its ledgers; the others are judged against
that copy. Loaded is half as many busy processes again as there are cores. Prints verdicts by part with the reasons of
what failed. ``baselines.tar.gz`` and the runs' ``results.json`` (packed) lie in DIR at the end.
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
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from suite import pytest_command

from pytest_fluxperf.report import load_document

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent
PLANTED = {
    "kernel": "test_dtype.py and bf16",
    "attention": "test_dtype.py and bf16",
    "cache": "test_first_block_cache and fbcache:0.3 and not engine",
    "python": "test_combination and compile and fbcache:0.3 and not fp8 and not fa2",
}
GRACE_S = 25.0


@contextmanager
def load(processes: int) -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


class Live:
    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen = chosen
        self.end = time.monotonic() + chosen.budget_s
        self.out: Path = chosen.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.work = Path(tempfile.mkdtemp(prefix="fluxperf-live-"))
        shutil.copytree(chosen.baselines, self.work / "baselines")

    def session(self, name: str, *arguments: str, planted: str = "") -> None:
        """One run of the suite, interrupted where the budget ends; prints what came of it."""
        left = self.end - time.monotonic() - GRACE_S
        if left < 20:
            print(f"{name}: not reached within --budget-s", flush=True)
            return
        chosen = self.chosen
        reports = self.work / "reports" / name
        command = [
            *pytest_command(), str(ROOT / "perf_tests"), "-q", "--gpu", chosen.gpu, "-p", "planted_causes",
            f"--fluxperf-model={chosen.model}", f"--fluxperf-baselines={self.work / 'baselines'}",
            f"--fluxperf-reports={reports}", f"--fluxperf-samples={chosen.samples}",
            f"--fluxperf-warmup={chosen.warmup}", "-p", "no:cacheprovider", *arguments,
        ]  # fmt: skip
        environment = os.environ | {"PLANTED": planted}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")])
        start = time.monotonic()
        with (self.out / f"{name}.log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)
            try:
                process.wait(left)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(GRACE_S)
                except subprocess.TimeoutExpired:
                    process.kill()
        print(f"== {name}: {time.monotonic() - start:.0f} s, exit {process.poll()}", flush=True)
        self.show(reports)
        self.pack()

    def show(self, reports: Path) -> None:
        runs = sorted(reports.glob("*/results.json"), key=lambda path: path.stat().st_mtime)
        if not runs:
            print("   no document was written", flush=True)
            return
        document = load_document(runs[-1])
        counts = Counter(result.judgement.verdict for result in document.results)
        print(f"   {dict(counts)}, skipped {len(document.skipped)}", flush=True)
        for warning in document.warnings:
            print(f"   ! {warning[:200]}")
        for result in document.results:
            if result.judgement.verdict not in ("passed", "improved", "no baseline"):
                print(f"   {result.judgement.verdict} {result.recipe}: {result.judgement.message[:330]}", flush=True)
            elif result.judgement.warnings:
                print(f"   {result.judgement.verdict} {result.recipe} (warned): {result.judgement.warnings[0][:200]}")

    def pack(self) -> None:
        with tarfile.open(self.out / "baselines.tar.gz", "w:gz") as archive:
            archive.add(self.work / "baselines", "baselines")
        with tarfile.open(self.out / "results.tar.gz", "w:gz") as archive:
            for path in (self.work / "reports").glob("*/*/results.json"):
                archive.add(path, str(path.relative_to(self.work)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="flux-dev@random")
    parser.add_argument("--gpu", default="auto")
    parser.add_argument("--baselines", type=Path, default=ROOT / "baselines")
    parser.add_argument("--parts", default="idle,loaded,planted")
    parser.add_argument("--budget-s", type=float, default=560.0)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--busy", type=int, default=round(1.5 * (os.cpu_count() or 1)))
    parser.add_argument("-k", default="")
    parser.add_argument("-m", default="not extra and not long and not prompts50")
    chosen = parser.parse_args()
    live = Live(chosen)
    select = ("-m", chosen.m, *(("-k", chosen.k) if chosen.k else ()))
    parts = chosen.parts.split(",")
    if "idle" in parts:
        live.session("idle", "--fluxperf-append", *select)
    with load(chosen.busy if {"loaded", "planted"} & set(parts) else 0):
        if "loaded" in parts:
            live.session("loaded", *select)
        if "planted" in parts:
            for cause, tests in PLANTED.items():
                live.session(f"planted-{cause}", "-m", chosen.m, "-k", tests, planted=cause)


if __name__ == "__main__":
    main()
