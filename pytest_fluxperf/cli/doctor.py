"""``fluxperf doctor``: is this machine ready to be gated on? One line a check, and what to do about what is not."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import re
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from pytest_fluxperf.baseline.codec import decode
from pytest_fluxperf.baseline.published import FOLDER as PUBLISHED
from pytest_fluxperf.cli.arguments import Commands, add_baselines
from pytest_fluxperf.errors import FluxPerfError, one_line, origin
from pytest_fluxperf.files import is_there
from pytest_fluxperf.machine import hardware, software, telemetry
from pytest_fluxperf.machine.hardware import Gpu, hardware_differences
from pytest_fluxperf.pipelines.quiet import quiet

Status = Literal["ok", "warn", "fail"]

REQUIRED = {"torch": (2, 11), "diffusers": (0, 42), "transformers": (5, 17), "safetensors": (0, 6)}
"""Packages without which no pipeline runs, and the oldest version that is known to work."""

OPTIONAL = {
    "torchao": "quantization (fp8, int8wo, ...)",
    "para-attn": "fbcache:T,engine=para-attn",
    "cache-dit": "dbcache and fbcache:T,engine=cache-dit",
    "peft": "lora",
    "accelerate": "loading large models quickly",
}
"""Packages that some recipes need, and which."""


class Check(NamedTuple):
    """Outcome of one check, told in one line."""

    status: Status
    name: str
    text: str


def add_parser(commands: Commands) -> None:
    """What the command takes."""
    parser = commands.add_parser("doctor", help="check device, packages, model and folders; exits 1 if one fails")
    parser.add_argument("--gpu", default="auto", metavar="NAME", help="as pytest's --gpu (default: auto)")
    parser.add_argument("--model", metavar="NAME|PATH", help="as --fluxperf-model (default: the device's)")
    add_baselines(parser)
    parser.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print one line a check; 1 if one failed."""
    failed = 0
    for check in examine(options.gpu, options.model, options.baselines, options.reports):
        print(f"{check.status:<4}  {check.name:<12}  {check.text}", flush=True)
        failed += check.status == "fail"
    return int(failed > 0)


def examine(gpu: str, model: str | None, baselines: Path, reports: Path) -> Iterator[Check]:
    """Every check, in the order in which trouble is best mended. Nothing is measured or downloaded.

    ``gpu`` is as ``--gpu``; ``model`` as ``--fluxperf-model`` (None: the device's default).
    """
    device = yield from _gpu(gpu)
    yield from _torch(device)
    yield from _packages()
    yield from _recipes(device)
    yield from _model(model or ("tiny" if device is None or device.device == "cpu" else "flux-dev"))
    yield from _baselines(baselines, device)
    yield from _folder("reports", reports)
    yield from _kernel_cache()


def _gpu(wanted: str) -> Generator[Check, None, Gpu | None]:
    """The device, if it is there."""
    try:
        device = hardware.check_gpu(wanted)
    except FluxPerfError as error:
        yield Check("fail", "device", str(error))
        return None
    found = device.hardware
    if device.device == "cpu":
        where = f"{found.name}, {found.host_cpus} CPUs"
        if wanted == "cpu":
            yield Check("ok", "device", where)
        else:
            yield Check("warn", "device", f"no NVIDIA GPU answers; --gpu cpu works here ({where})")
        return device
    memory = f"{(found.memory_mib or 0) / 1024:.0f} GiB"
    power = "" if found.power_limit_w is None else f", power limit {found.power_limit_w:.0f} W"
    mig = f", MIG {found.mig_profile}" if found.mig_profile else ""
    yield Check("ok", "device", f"{found.name}{mig}, {memory}{power}: --gpu {device.name}")
    if reasons := telemetry.unfit(telemetry.read(device.uuid)):
        yield Check("warn", "fitness", f"{'; '.join(reasons)}: measurements made now would be invalid")
    else:
        yield Check("ok", "fitness", "not throttled, no other process on it")
    return device


def _torch(device: Gpu | None) -> Iterator[Check]:
    try:
        torch = importlib.import_module("torch")
    except Exception as error:
        yield Check("fail", "torch", f"cannot be imported ({one_line(error)}); install it as https://pytorch.org says")
        return
    version, cuda = torch.__version__, torch.version.cuda
    if device is None or device.device == "cpu":
        yield Check("ok", "torch", f"{version}, {torch.get_num_threads()} threads")
    elif cuda is None:
        yield Check("fail", "torch", f"{version} has no CUDA: install a CUDA build of torch to use the GPU")
    elif not torch.cuda.is_available():
        driver = software.capture().driver or "unknown"
        yield Check("fail", "torch", f"{version} for CUDA {cuda} cannot use the GPU; is driver {driver} new enough?")
    else:
        driver = software.capture().driver or "unknown"
        yield Check("ok", "torch", f"{version} for CUDA {cuda}, driver {driver}")


def _packages() -> Iterator[Check]:
    for name, oldest in REQUIRED.items():
        version = _version(name)
        at_least = ".".join(map(str, oldest))
        if version is None:
            yield Check("fail", name, f"is not installed; pip install '{name}>={at_least}'")
        elif _numbers(version) < oldest:
            yield Check("warn", name, f"{version} is older than {at_least}, the oldest that is known to work")
        elif name != "torch":
            yield Check("ok", name, version)
    try:
        with quiet():
            importlib.import_module("diffusers").FluxPipeline  # noqa: B018
        yield Check("ok", "pipeline", "diffusers' FluxPipeline can be imported")
    except Exception as error:  # often another package's fault: a torchvision of another torch, an old torchao
        yield Check("fail", "pipeline", f"diffusers' FluxPipeline cannot be imported: {one_line(origin(error))}")
    for name, use in OPTIONAL.items():
        version = _version(name)
        if version is None:
            yield Check("warn", name, f"is not installed: no {use}; pip install {name}")
        else:
            yield Check("ok", name, version)


def _recipes(device: Gpu | None) -> Iterator[Check]:
    from pytest_fluxperf.pipelines.pool import survey

    listed = survey("cpu" if device is None else device.device)
    able = sum(lacking is None for _, lacking in listed)
    yield Check("ok", "recipes", f"{able} of {len(listed)} tokens run here; fluxperf recipes says what the others lack")


def _model(name: str) -> Iterator[Check]:
    from pytest_fluxperf.pipelines.access import access
    from pytest_fluxperf.pipelines.models import resolve

    try:
        found = access(resolve(name))
    except FluxPerfError as error:
        yield Check("fail", "model", str(error))
    else:
        status: dict[str, Status] = {"here": "ok", "allowed": "warn"}
        yield Check(status.get(found.state, "fail"), "model", found.text)


def _baselines(root: Path, device: Gpu | None) -> Iterator[Check]:
    if is_there(root) and not root.is_dir():
        yield Check("fail", "baselines", f"{root} is no folder; name another with --baselines")
        return
    if not is_there(root):
        yield Check("warn", "baselines", f"there is no folder {root}: record one with pytest ... --fluxperf-update")
        return
    yield from _folder("baselines", root)
    if device is None:
        return
    folder = root / device.name
    try:
        paths = sorted(folder.rglob("*.json"))
        others = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name != PUBLISHED)
    except OSError as error:
        yield Check("fail", "baselines", f"{folder} cannot be read ({error.strerror})")
        return
    if not paths:
        there = f" (there is {', '.join(others)})" if others else ""
        yield Check("warn", "baselines", f"none for {device.name}{there}: record them with --fluxperf-update")
        return
    try:
        recorded = [decode(path.read_bytes(), str(path)) for path in paths]
    except (FluxPerfError, OSError) as error:
        yield Check("fail", "baselines", str(error))
        return
    other = next((why for b in recorded if (why := hardware_differences(b.hardware, device.hardware))), None)
    if other:
        yield Check(
            "fail",
            "baselines",
            f"{folder} was recorded on {other[0]}; record it anew with --fluxperf-update, or gate on that machine",
        )
        return
    sessions = min(len(baseline.runs) for baseline in recorded)
    text = f"{len(recorded)} in {folder}, of {sessions} sessions or more"
    if sessions < 3:
        yield Check("warn", "baselines", f"{text}: add sessions with --fluxperf-append until there are three")
    else:
        yield Check("ok", "baselines", text)


def _folder(name: str, folder: Path) -> Iterator[Check]:
    """Whether a folder, or the one that it would be made in, can be written."""
    existing = folder
    while not is_there(existing) and existing != existing.parent:
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        yield Check("fail", name, f"{folder} cannot be written ({error.strerror})")
    else:
        yield Check("ok", name, f"{folder} can be written")


def _kernel_cache() -> Iterator[Check]:
    chosen = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if chosen:
        yield from _folder("kernel cache", Path(chosen))
    else:
        yield Check("ok", "kernel cache", "in the system's temporary folder; TORCHINDUCTOR_CACHE_DIR names another")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:2])
