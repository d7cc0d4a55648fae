"""The text of a baseline file: from and to a :class:`Baseline`, with every value checked on the way in and out."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.results import Baseline, Fidelity, KernelTable, Ledger, Run, Sample, Similarity

BASELINE_FORMAT = 1
"""Version of a baseline file; raised when an old reader could misread a new file."""

SIGNIFICANT_DIGITS = 6
"""Of every measured number: a microsecond in a second, and stable under rewriting."""

_ONE_LINE = frozenset({"samples", "prompts", "kernels", "phases", "families", "answers"})
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST_PRIOR = {"tau0": 1.0, "nu0": 1e6}
"""A wider or firmer prior of the noise would disarm the gate whatever is measured."""
_REMEDY = "restore the file from version control, or delete it and record it anew with --fluxperf-update"
_T = TypeVar("_T", Run, Similarity)


class _Format(msgspec.Struct):
    format: int


class BaselineFile(Baseline, frozen=True, kw_only=True):
    """A baseline as its file holds it."""

    sha256: str
    """Of everything else (see :func:`_digest`), so that an edit is seen."""


def encode(baseline: Baseline) -> bytes:
    """Text of ``baseline``: sorted keys, one sample a line, a final newline; FluxPerfError if it is not valid."""
    check(baseline, baseline.test)
    try:
        stored = msgspec.convert(msgspec.to_builtins(baseline), Baseline)  # numbers as they will be read
        content = msgspec.to_builtins(stored)
        return (_write({**content, "sha256": _digest(content)}) + "\n").encode()
    except (ValueError, OverflowError, RecursionError) as error:
        raise FluxPerfError(f"a baseline cannot hold {error}", test=baseline.test) from None


def decode(text: bytes, source: str) -> Baseline:
    """The baseline in ``text``; FluxPerfError with ``source``, the JSON path and the remedy if it is not valid."""
    try:
        version = msgspec.json.decode(text, type=_Format).format
        if version > BASELINE_FORMAT:
            problem = f"{version} was written by a newer pytest-fluxperf, this one reads {BASELINE_FORMAT}"
            raise FluxPerfError(problem, remedy="upgrade the plugin", file=source, place="$.format")
        file = msgspec.json.decode(text, type=BaselineFile)
        baseline = Baseline(**{name: getattr(file, name) for name in Baseline.__struct_fields__})
        check(baseline, source)
        digest = _digest(msgspec.to_builtins(baseline))
    except (ValueError, OverflowError, RecursionError) as error:  # not JSON, or JSON that Python cannot hold
        problem, place = _located(error)
        raise FluxPerfError(problem, remedy=_REMEDY, file=source, place=place) from None
    if file.sha256 != digest:
        problem = f"the content's digest is {digest[:12]}…: it was edited"
        raise FluxPerfError(problem, remedy=_REMEDY, file=source, place="$.sha256")
    return baseline


def _digest(content: Any) -> str:
    """SHA-256 of plain builtins, whatever the layout of their file."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def rounded(record: _T) -> _T:
    """``record`` with every float at :data:`SIGNIFICANT_DIGITS`, as its file will hold it."""
    return msgspec.convert(as_stored(msgspec.to_builtins(record)), type(record))


def check(baseline: Baseline, source: str, remedy: str = _REMEDY) -> None:
    """Raise FluxPerfError, naming ``source``, the JSON path and ``remedy``, on a value that would disarm the gate."""
    for path, problem in _problems(baseline):
        raise FluxPerfError(problem, remedy=remedy, file=source, place=path)


def _problems(baseline: Baseline) -> Iterator[tuple[str, str]]:
    if not 1 <= baseline.format <= BASELINE_FORMAT:
        yield "$.format", f"{baseline.format} is unknown, this version reads {BASELINE_FORMAT}"
    for name, largest in _LARGEST_PRIOR.items():
        if not 0 < getattr(baseline, name) <= largest:
            yield f"$.{name}", f"must be above 0 and at most {largest:g}"
    workload = baseline.workload
    for name in ("height", "width", "steps"):
        if getattr(workload, name) < 1:
            yield f"$.workload.{name}", "must be at least 1"
    if not workload.prompts:
        yield "$.workload.prompts", "must not be empty"
    for digest, environment in baseline.environments.items():
        if environment.digest != digest:
            yield f"$.environments.{digest}", f"the content's digest is {environment.digest}: it was edited"
    if not baseline.runs:
        yield "$.runs", "must not be empty"
    for r, run in enumerate(baseline.runs):
        path = f"$.runs[{r}]"
        if run.environment not in baseline.environments:
            yield f"{path}.environment", f"{run.environment!r} is not among $.environments"
        if run.peak_memory_mib is not None and not _positive(run.peak_memory_mib):
            yield f"{path}.peak_memory_mib", "must be positive, or absent"
        if run.kernels is not None:
            yield from _kernel_problems(run.kernels, f"{path}.kernels")
        if run.ledger is not None:
            yield from _ledger_problems(run.ledger, f"{path}.ledger")
        if run.fidelity is not None:
            yield from _fidelity_problems(run.fidelity, f"{path}.fidelity")
        if len(run.samples) != len(workload.prompts):
            yield f"{path}.samples", f"holds {len(run.samples)} for {len(workload.prompts)} prompts"
        for i, sample in enumerate(run.samples):
            yield from _sample_problems(sample, f"{path}.samples[{i}]")


def _kernel_problems(table: KernelTable, path: str) -> Iterator[tuple[str, str]]:
    for name in ("busy_s", "latency_s"):
        value = getattr(table, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            yield f"{path}.{name}", f"must be a number of seconds, not {value}"
    for i, kernel in enumerate(table.kernels):
        if not (math.isfinite(kernel.time_s) and kernel.time_s >= 0):
            yield f"{path}.kernels[{i}].time_s", f"must be a number of seconds, not {kernel.time_s}"


def _ledger_problems(ledger: Ledger, path: str) -> Iterator[tuple[str, str]]:
    for i, phase in enumerate(ledger.phases):
        if phase.times < 1:
            yield f"{path}.phases[{i}].times", "must be at least 1"
        for name in ("total", "each"):
            work = getattr(phase, name)
            counts = [] if work is None else [work.calls, work.operators or 0, work.kernels or 0, work.device_s or 0.0]
            if any(not (math.isfinite(count) and count >= 0) for count in counts):
                yield f"{path}.phases[{i}].{name}", "must hold counts and seconds, none of them negative"
    for i, family in enumerate(ledger.families):
        values = [*family.counts.values(), *family.device_s.values()]
        if any(not (math.isfinite(value) and value >= 0) for value in values):
            yield f"{path}.families[{i}]", "must hold counts and seconds, none of them negative"


def _fidelity_problems(fidelity: Fidelity, path: str) -> Iterator[tuple[str, str]]:
    for i, answer in enumerate(fidelity.answers):
        for name in ("error", "rounding"):
            value = getattr(answer, name)
            if not (math.isfinite(value) and value >= 0):
                yield f"{path}.answers[{i}].{name}", f"must be a number that is not negative, not {value}"
        if not all(map(math.isfinite, answer.sketch)):
            yield f"{path}.answers[{i}].sketch", "must hold finite numbers"


def _sample_problems(sample: Sample, path: str) -> Iterator[tuple[str, str]]:
    for name in ("latency_s", "wall_s", "reference_latency_s"):
        value = getattr(sample, name)
        if value is not None and not _positive(value):
            yield f"{path}.{name}", f"must be a positive number of seconds, not {value}"
    for name in ("text_encode_s", "denoise_s", "decode_s"):
        value = getattr(sample, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            yield f"{path}.{name}", f"must be a number of seconds, not {value}"
    if sample.decisions is not None and set(sample.decisions) - set("01"):
        yield f"{path}.decisions", "must hold only 0 and 1"
    for name in ("picture", "reference_picture"):
        value = getattr(sample, name)
        if value is not None and not _SHA256.fullmatch(value):
            yield f"{path}.{name}", "must be a SHA-256 of 64 lower-case hexadecimal digits"
    for name, value in sample.own.items():
        if not math.isfinite(value):
            yield f"{path}.own.{name}", f"must be a finite number, not {value}"
    limits = {"psnr_db": (0, 1000), "ssim": (-1, 1), "ms_ssim": (-1, 1), "flip": (0, 1), "lpips": (0, 100)}
    for name, (low, high) in limits.items():
        value = getattr(sample.score, name)
        # Half a thousandth of slack: float32 metrics of identical pictures may exceed 1 by a rounding.
        if value is not None and not low - 5e-4 <= value <= high + 5e-4:
            yield f"{path}.score.{name}", f"must lie between {low} and {high}, not {value}"


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _located(error: Exception) -> tuple[str, str]:
    """What msgspec says is wrong, and where in the file (which it has no field for)."""
    text, _, place = str(error).partition(" - at `")
    return text, place.rstrip("`")


def as_stored(value: Any) -> Any:
    """Plain builtins with every float at :data:`SIGNIFICANT_DIGITS`."""
    if isinstance(value, dict):
        return {key: as_stored(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_stored(item) for item in value]
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value


def _write(value: Any, indent: str = "", flat: bool = False) -> str:
    """JSON of ``value``; the items of a ``flat`` list take one line each."""
    if not value or not isinstance(value, dict | list | tuple):
        return _line(value)
    deeper = indent + "  "
    if isinstance(value, dict):
        items = [f"{_line(key)}: {_write(value[key], deeper, key in _ONE_LINE)}" for key in sorted(value)]
        opening, closing = "{}"
    else:
        items = [_line(item) if flat else _write(item, deeper) for item in value]
        opening, closing = "[]"
    return f"{opening}\n{deeper}" + f",\n{deeper}".join(items) + f"\n{indent}{closing}"


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
