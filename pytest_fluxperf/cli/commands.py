"""The commands' work; imported when one is chosen."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pytest_fluxperf import prompts as prompt_sets
from pytest_fluxperf.baseline.store import BaselineStore
from pytest_fluxperf.baseline.update import fails
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.compare import compare_documents
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.report import load_document, merge, write_text
from pytest_fluxperf.report.exports import HTML, MARKDOWN, TEXTS, format_of
from pytest_fluxperf.report.html.page import render_html
from pytest_fluxperf.report.markdown import COMMENT_LIMIT, render_markdown
from pytest_fluxperf.report.terminal import terminal_summary
from pytest_fluxperf.report.text import visible
from pytest_fluxperf.results import BASELINE, NONE, RunDocument


def report(
    results: Sequence[Path],
    output: Path | None,
    form: str | None,
    *,
    artifact_url: str | None = None,
    max_bytes: int = COMMENT_LIMIT,
) -> int:
    """Render recorded runs again; shards of one machine become one, machines stand side by side."""
    form = format_of(form, output)
    documents = merge(load_document(path) for path in results)
    if form == HTML:
        if output is None:
            raise FluxPerfError("an HTML report needs a file: name it by --output")
        folders = [path if path.is_dir() else path.parent for path in results]
        text = render_html(documents, folders, output.parent)
    elif form == MARKDOWN:
        text = render_markdown(documents, limit=max_bytes, artifact_url=artifact_url)
    else:
        text = TEXTS[form](documents)
    if output is None:
        sys.stdout.write(text)
        return 0
    try:
        write_text(text, output)
    except OSError as error:
        raise FluxPerfError(f"cannot write {output}: {error.strerror or error}") from None
    print(output)
    return 0


def compare(base: Path, new: Path, max_slowdown: float | None, *, strict: bool = False) -> int:
    """Judge ``new`` against ``base`` offline, by the rule of a stored baseline of one run.

    ``max_slowdown`` holds for every test; None leaves each its own tolerance. 1 when something failed or nothing was
    judged; with ``strict`` also when a test was inconclusive, or is in ``base`` only.
    """
    old, now = load_document(base), load_document(new)
    relative = any(g.reference_latency_s for r in now.results for g in r.measurement.generations)
    policy = Policy.of(
        "relative" if relative else "absolute", cpu=now.hardware.kind == "cpu", max_slowdown=max_slowdown
    )
    judged = compare_documents(old, now, policy, own_tolerances=max_slowdown is None)
    judged = msgspec.structs.replace(judged, strict=strict)
    for line in terminal_summary(judged, shutil.get_terminal_size().columns):
        print(line)
    if not judged.gated:
        print("fluxperf: this comparison gated nothing, so it fails")
    failed = any(fails(r, strict=strict, update=None, hardware=judged.hardware) for r in judged.results)
    lacking = {result.test for result in old.results} - {result.test for result in judged.results}
    return int(failed or not judged.gated or (strict and bool(lacking)))


def append(results: Sequence[Path], baselines: Path) -> int:
    """Add recorded sessions to the baselines, as ``--fluxperf-append`` would have done in each; 1 if one is refused.

    Raises FluxPerfError for what is no session's document, before anything is added, and for a picture that is missing.
    """
    documents = [load_document(path) for path in results]
    for path, document in zip(results, documents, strict=True):
        if document.against != "baselines":
            raise FluxPerfError(
                f"{path}: holds a comparison by fluxperf {document.command[1]}, which no baseline takes"
            )
        if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", document.gpu, re.ASCII):
            raise FluxPerfError(f"{path}: {document.gpu!r} is no name of a GPU's folder")
    refused = False
    for path, document in zip(results, documents, strict=True):
        if not document.results:
            print(f"{path}: nothing was measured")
        policy = Policy.of("relative" if _gated_speedups(document) else "absolute")
        changes = BaselineStore(baselines, document.gpu).update(
            document.results,
            "append",
            hardware=document.hardware,
            environments=document.measured_in,
            tau0=policy.tau0,
            nu0=policy.nu0,
            pictures=path if path.is_dir() else path.parent,
        )
        for change in changes:
            print(visible(change.line))
        refused |= any(change.action == "refused" for change in changes)
    return int(refused)


def _gated_speedups(document: RunDocument) -> bool:
    """Whether the session was in relative mode; where no test has a reference to be timed beside, what ``auto`` is."""
    paired = [
        r for r in document.results if r.measurement.generations and r.reference not in (NONE, BASELINE, r.recipe)
    ]
    if paired:
        return any(g.reference_latency_s for r in paired for g in r.measurement.generations)
    return document.hardware.kind == "cpu"


def recipes(device: str | None) -> int:
    """List every token in every choice, and why this environment cannot run it."""
    from pytest_fluxperf.pipelines.pool import survey

    device = _device(device)
    family = ""
    for token, lacking in survey(device):
        if token.family != family:
            family = token.family
            print(f"{family}:")
        state = "yes" if lacking is None else f"no: {lacking}"
        print(f"  {token!s:<28} {token.spec.summary}\n  {'':<28} {state}")
    return 0


def calibrate(model: str, prompts: str, steps: int | None, device: str | None) -> int:
    """Fit TeaCache's coefficients for a model and print them in the form that ``fluxperf.json`` takes."""
    from pytest_fluxperf.pipelines.models import resolve
    from pytest_fluxperf.pipelines.optimizations.calibration import fit_coefficients
    from pytest_fluxperf.pipelines.pool import Pool
    from pytest_fluxperf.recipe import parse

    if steps is not None and steps < 2:
        raise FluxPerfError("--steps: at least 2, since the change from one step to the next is fitted")
    info = resolve(model)
    device = _device(device)
    chosen = prompt_sets.load(prompts, (0,), folder=info.prompts or prompt_sets.FOLDER)
    steps = steps or info.defaults.steps
    pool = Pool(info, device)
    dtype = "fp32" if device == "cpu" else info.defaults.dtype
    prepared = pool.acquire(parse(dtype), steps=steps)
    fit = fit_coefficients(
        prepared.pipe,
        [prompt.text for prompt in chosen],
        steps=steps,
        guidance=info.defaults.guidance,
        height=info.defaults.size,
        width=info.defaults.size,
        max_sequence_length=info.defaults.max_sequence_length,
    )
    pool.close()
    print(json.dumps({"teacache_coefficients": [float(f"{c:.9g}") for c in fit.coefficients]}))
    print(f"fitted to {len(fit.pairs)} pairs of steps, R² {fit.r_squared:.3f}")
    return 0


def _device(named: str | None) -> str:
    """The device of that name, or CUDA where there is some; raises :class:`FluxPerfError` for one that is not there."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if named is None:
        return "cuda" if gpus else "cpu"
    form = re.fullmatch(r"cpu|cuda(?::(\d+))?", named, re.ASCII)
    if form is None:
        raise FluxPerfError(f"--device {named}: no such device; name cpu, cuda or cuda:N")
    if named != "cpu" and int(form[1] or 0) >= gpus:
        seen = f"cuda:0 to cuda:{gpus - 1}" if gpus else "no CUDA GPU"
        raise FluxPerfError(f"--device {named}: torch sees {seen} here; name another, or cpu")
    return named
