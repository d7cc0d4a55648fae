"""The sample report: a few recipes of the suite with one regression planted, judged against this hardware's baselines.

    python benchmarks/sample_report.py --out reports/sample                                 # on the GPU of baselines/
    python benchmarks/sample_report.py --out DIR --sessions 3                               # on a GPU without baselines
    python benchmarks/sample_report.py --out DIR --gpu cpu --model tiny --sessions 1 --samples 2 --size 128 --steps 8

The regression is that of planted_regression.py. Writes report.html, results.json and summary.md, without the pictures
in full size. Nothing of the machine but its hardware is in them: folders are cut off paths, and a name that is left is
an error. Fails unless exactly the planted regression was found. About 100 s on an H200, and as long for every session
that is recorded first.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from suite import pytest_command

from pytest_fluxperf.report import load_document, render_markdown, write_document, write_text
from pytest_fluxperf.report.html.page import render_html
from pytest_fluxperf.results import RunDocument

ROOT = Path(__file__).resolve().parents[1]
CACHES = "perf_tests/test_caching.py"
TESTS = (
    "perf_tests/test_dtype.py::test_dtype[{dtype}]",
    f"{CACHES}::test_first_block_cache[fbcache:0.3]",
    f"{CACHES}::test_teacache[teacache:0.6]",
    f"{CACHES}::test_fora[fora:start=2,interval=2]",
)
PLANTED = "fbcache:0.3"
LIMIT_MIB = 3.0


def main(arguments: list[str] | None = None) -> int:
    """Record where asked to, run with the regression, write the report; 1 if the run is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--gpu", default="auto", help="as pytest's --gpu")
    parser.add_argument("--model", default="flux-dev@random")
    parser.add_argument("--baselines", type=Path, default=ROOT / "baselines", metavar="DIR", help="not changed")
    parser.add_argument("--sessions", type=int, default=0, help="record so many sessions first, into a copy")
    parser.add_argument("--samples", type=int, help="generations a test (default: on a GPU 2, as in baselines/)")
    parser.add_argument("--size", type=int)
    parser.add_argument("--steps", type=int)
    chosen = parser.parse_args(arguments)
    if chosen.samples is None and chosen.gpu != "cpu":
        chosen.samples = 2
    with tempfile.TemporaryDirectory(prefix="fluxperf-") as name:
        work = Path(name)
        shutil.copytree(chosen.baselines, work / "baselines")
        for index in range(chosen.sessions):
            run(chosen, work, f"record{index}", "--fluxperf-append" if index else "--fluxperf-update=all")
        results = run(chosen, work, "run", "-p", "planted_regression")
        document = load_document(cleaned(results, work))
        files = write(document, results.parent, chosen.out)
        problems = [*mistakes(document), *leaks(files, work)]
    for path in files:
        print(f"{path.name} {path.stat().st_size / 2**20:.2f} MiB")
    for problem in problems:
        print(problem, file=sys.stderr)
    return int(bool(problems))


def run(chosen: argparse.Namespace, work: Path, name: str, *more: str) -> Path:
    """One session of the suite; returns its results."""
    reports = work / name
    command = [*pytest_command(), "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *more]
    dtype = "fp32" if chosen.gpu == "cpu" else "bf16"
    command += [test.format(dtype=dtype) for test in TESTS]
    command += [f"--gpu={chosen.gpu}", f"--fluxperf-model={chosen.model}"]
    command += [f"--fluxperf-baselines={work / 'baselines'}", f"--fluxperf-reports={reports}"]
    for option in ("samples", "size", "steps"):
        if (value := getattr(chosen, option)) is not None:
            command.append(f"--fluxperf-{option}={value}")
    path = os.pathsep.join(filter(None, (str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH"))))
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, check=False)
    found = sorted(reports.rglob("results.json"))
    if not found:
        sys.exit(f"{name}: the session wrote no results")
    return found[-1]


def write(document: RunDocument, pictures: Path, out: Path) -> list[Path]:
    """The three files; thumbnails are made of the pictures in a folder, which is not kept."""
    out.mkdir(parents=True, exist_ok=True)
    files = [out / name for name in ("report.html", "results.json", "summary.md")]
    write_text(render_html(document, [pictures], full_size=False), files[0])
    write_document(document, files[1])
    write_text(render_markdown(document), files[2])
    return files


def cleaned(results: Path, work: Path) -> Path:
    """The results without this machine's folders, in place."""
    text = results.read_text()
    folders = (work, ROOT, Path(sys.prefix), Path.home())
    for folder in sorted(folders, key=lambda folder: -len(folder.parts)):  # one may lie in another
        if len(folder.parts) > 1:
            text = text.replace(f"{folder}{os.sep}", "").replace(str(folder), ".")
    results.write_text(text)
    return results


def mistakes(document: RunDocument) -> list[str]:
    """What is not as a sample should be."""
    regressed = [str(result.recipe) for result in document.results if result.judgement.verdict == "regressed"]
    said = []
    if len(regressed) != 1 or PLANTED.split(":")[0] not in regressed[0]:
        said.append(f"regressed should be {PLANTED} alone, are: {', '.join(regressed) or 'none'}")
    if document.gated != document.collected:
        said.append(f"gated {document.gated} of {document.collected}: record baselines first by --sessions 3")
    return said


def leaks(files: list[Path], work: Path) -> list[str]:
    """Names of this machine that a file holds, and files that are too large."""
    said = []
    for path in files:
        text = path.read_text("utf-8")
        said += [f"{path.name} names {name}" for name in (str(work), str(ROOT), sys.prefix) if name in text]
        # a short host name is in any page by chance, among the bytes of its pictures
        if path.suffix != ".html" and re.search(rf"\b{re.escape(socket.gethostname())}\b", text):
            said.append(f"{path.name} names this host")
    size = sum(path.stat().st_size for path in files) / 2**20
    return said + ([f"{size:.1f} MiB, more than {LIMIT_MIB}"] if size > LIMIT_MIB else [])


if __name__ == "__main__":
    sys.exit(main())
