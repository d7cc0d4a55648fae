"""An A/A and an A/B with an injected slow-down, at full size: verdicts, effects, and the generations each took.

    python benchmarks/ab_full_size.py     # FLUX.1-dev's architecture, some seven minutes on a GPU
    python benchmarks/ab_full_size.py --model tiny --gpu cpu --size 64 --steps 4 --share 0.5 --tolerance 0.17

Three virtual environments are made that share this one's packages: two alike, and one with a package that adds
``--share`` of device time to every denoising step, by matrix products counted from a measured step.
``fluxperf ab`` compares them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import pytest_fluxperf

SUITE = """
import pytest

PROMPTS = ["a lighthouse at dusk", "a red bicycle in the rain", "an owl on a fence", "a bowl of oranges",
           "a mountain lake", "a market street", "a paper boat", "an old clock tower"]


@pytest.mark.fluxperf(prompts=PROMPTS[:{prompts}], steps={steps}, size={size}, max_slowdown={tolerance},
                      reference="none")
def test_plain(flux, flux_inputs):
    return flux(**flux_inputs).images
"""

SLOWDOWN = """
import time

import torch

SHARE = {share}
CALIBRATING = 3
'''Steps that are timed before the work is added; the first one is left out. All are in the first warm-up.'''


def pytest_fluxperf_pipeline(pipe, recipe, config):
    transformer = pipe.transformer
    cuda = transformer.device.type == "cuda"
    n = 2048 if cuda else 128
    factor = torch.randn(n, n, device=transformer.device, dtype=torch.bfloat16 if cuda else torch.float32)
    steps, state = [], {{"repeats": 0, "start": 0.0}}

    def now():
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def burn(repeats):
        for _ in range(repeats):
            torch.mm(factor, factor)

    def before(*_):
        if len(steps) < CALIBRATING:
            state["start"] = now()

    def after(*_):
        if len(steps) < CALIBRATING:
            steps.append(now() - state["start"])
            if len(steps) == CALIBRATING:
                burn(20)
                start = now()
                burn(100)
                one = (now() - start) / 100
                state["repeats"] = max(1, round(SHARE * min(steps[1:]) / one))
        else:
            burn(state["repeats"])

    transformer.register_forward_pre_hook(before)
    transformer.register_forward_hook(after)
"""


def environment(folder: Path, share: float | None = None) -> Path:
    """A virtual environment over this one's packages, with the slow-down if ``share`` is given."""
    venv.create(folder, symlinks=True, with_pip=False)
    purelib = next((folder / "lib").glob("python*")) / "site-packages"
    shared = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    lines = [str(Path(pytest_fluxperf.__file__).parents[1])]
    lines += [f"import site; site.addsitedir({path!r})" for path in shared]
    (purelib / "shared.pth").write_text("\n".join(lines) + "\n")
    if not any(entry.name == "fluxperf" for entry in importlib.metadata.entry_points(group="pytest11")):
        plugin(purelib, "fluxperf", "pytest_fluxperf.plugin")  # it runs from its sources here
    if share is not None:
        (purelib / "slowdown.py").write_text(SLOWDOWN.format(share=share))
        plugin(purelib, "slowdown", "slowdown")
    return folder


def plugin(purelib: Path, name: str, module: str) -> None:
    """Let pytest find a module as a plugin, as if it had been installed."""
    info = purelib / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[pytest11]\n{name} = {module}\n")


def compare(title: str, old: Path, new: Path, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run ``fluxperf ab``, print what came of it and return it."""
    start = time.monotonic()
    reports = work / title.replace("/", "")
    call = "from pytest_fluxperf.cli import main; raise SystemExit(main())"
    command = [sys.executable, "-c", call, "ab", "--old", str(old), "--new", str(new), "--reports", str(reports)]
    tests = ["--", "test_full_size.py", f"--gpu={options.gpu}", f"--fluxperf-model={options.model}"]
    ran = subprocess.run([*command, *tests], cwd=work, text=True, capture_output=True)
    found = sorted(reports.glob("*/results.json"))
    if not found:
        print(f"{title}: exit status {ran.returncode}: {ran.stderr.strip() or ran.stdout[-2000:]}", flush=True)
        return {"exit": ran.returncode, "error": ran.stderr.strip()[-2000:]}
    result = json.loads(found[-1].read_text())["results"][0]
    compared = {
        "exit": ran.returncode,
        "seconds": time.monotonic() - start,
        "judgement": result["judgement"],
        "comparison": result.get("comparison"),
    }
    print(show(title, compared), flush=True)
    return compared


def show(title: str, result: dict[str, Any]) -> str:
    """One comparison in words."""
    judgement, compared = result["judgement"], result["comparison"]
    lines = [
        f"{title}: {judgement['verdict']} (exit status {result['exit']}, {result['seconds']:.0f} s in all)",
        f"  {judgement['findings'][0]['message'] if compared else judgement['message']}",
    ]
    if compared:
        blocks = len(compared["blocks"])
        lines += [
            f"  change {compared['change']:+.2%} between {compared['low']:+.2%} and {compared['high']:+.2%}",
            f"  {compared['generations']} measured generations in {blocks} block{'s' if blocks > 1 else ''}, "
            f"{compared['warmups']} warm-ups",
            noise_within(compared["blocks"]),
        ]
    lines += [f"  reason: {clause}" for clause in judgement.get("attribution", ())]
    return "\n".join(lines)


def noise_within(blocks: list[dict[str, list[float]]]) -> str:
    """How the generations of one process scatter; every prompt of this test takes the same work."""
    sides = [[math.log(seconds) for seconds in block[side]] for block in blocks for side in ("old_s", "new_s")]
    spreads = [statistics.stdev(side) for side in sides]
    return (
        f"  within a process {statistics.median(spreads):.2%} in the middle ({min(spreads):.2%} to {max(spreads):.2%}, "
        f"{len(spreads)} processes, n={len(sides[0])} each)"
    )


def main() -> int:
    """Both comparisons; 1 if one could not be made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="flux-dev@random")
    parser.add_argument("--gpu", default="auto")
    parser.add_argument("--prompts", type=int, default=8, choices=range(1, 9))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--share", type=float, default=0.03, help="injected slow-down of a step (0.03 is 3 %%)")
    parser.add_argument("--tolerance", type=float, default=0.02)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the result as JSON")
    options = parser.parse_args()
    result: dict[str, Any] = {"model": options.model, "size": options.size, "steps": options.steps}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "test_full_size.py").write_text(SUITE.format(**vars(options)))
        old, same = environment(work / "old"), environment(work / "same")
        slow = environment(work / "slow", options.share)
        for title, new in ((f"injected {options.share:+.0%}", slow), ("A/A", same)):
            result[title] = compare(title, old, new, work, options)
            if options.output:
                options.output.write_text(json.dumps(result, indent=1) + "\n")
    return int(any("error" in found for found in result.values() if isinstance(found, dict)))


if __name__ == "__main__":
    sys.exit(main())
