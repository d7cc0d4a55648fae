"""Which hardware this is, and whether a baseline that was recorded on other hardware says anything about it."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.machine import nvml
from pytest_fluxperf.results import Hardware

CPUINFO = Path("/proc/cpuinfo")
_MEMORY_SLACK = 0.02  # Drivers differ in how much of a card's memory they keep for themselves.


@dataclass(frozen=True)
class Gpu:
    """The device that is gated on."""

    name: str
    """Name of its baseline folder: ``h100``, ``cpu``."""
    device: str
    """torch's name of it: ``cuda:0``, ``cpu``."""
    hardware: Hardware
    uuid: str | None = None
    """Which card of several of a kind (NVML), None on a CPU."""


def check_gpu(requested: str) -> Gpu:
    """The device for ``--gpu requested``; ``auto`` takes what is there.

    With several GPUs it is the first that CUDA_VISIBLE_DEVICES selects. Raises FluxPerfError when another GPU
    than the one asked for is there, or none.
    """
    wanted = requested.strip().lower()
    if wanted == "cpu":
        return _cpu()
    with nvml.session() as library:
        handle = None if library is None else _visible(library, 0)
        if handle is None and wanted == "auto":
            return _cpu()
        if handle is None:
            reason = "no NVIDIA driver answers" if library is None else f"no GPU is visible{_mask()}"
            raise FluxPerfError(f"--gpu {requested}: {reason}; use --gpu cpu, or run it where that GPU is")
        hardware = _hardware(library, handle)
        found = gpu_folder(hardware.name, hardware.mig_profile)
        if wanted not in ("auto", found):
            product = f"{hardware.name} MIG {hardware.mig_profile}" if hardware.mig_profile else hardware.name
            raise FluxPerfError(
                f"--gpu {requested}: this machine has {product}; use --gpu {found} (or auto), or run it where a "
                f"{requested} is"
            )
        return Gpu(found, "cuda:0", hardware, nvml.text(library.nvmlDeviceGetUUID(handle)))


def detect_hardware(device: str = "cuda") -> Hardware:
    """The hardware behind ``cpu``, ``cuda`` or ``cuda:N`` (as CUDA_VISIBLE_DEVICES numbers them).

    Raises FluxPerfError when there is no such GPU.
    """
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return _cpu().hardware
    with nvml.session() as library:
        handle = None if library is None else _visible(library, int(index or 0))
        if handle is None:
            reason = "no NVIDIA driver answers" if library is None else f"no GPU is visible as {device}{_mask()}"
            raise FluxPerfError(f"{reason}; use --gpu cpu")
        return _hardware(library, handle)


def _cpu() -> Gpu:
    model = cpu_model()
    return Gpu("cpu", "cpu", Hardware(kind="cpu", name=model, host_cpu=model, host_cpus=os.cpu_count() or 0))


def _hardware(library: Any, handle: Any) -> Hardware:
    name, mig = _name(library, handle)
    card = library.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle) if mig else handle
    # The limit that is set, not the power that is drawn: part of what the card is.
    milliwatts = nvml.optional(library, "nvmlDeviceGetEnforcedPowerLimit", card)
    return Hardware(
        kind="cuda",
        name=name,
        memory_mib=int(library.nvmlDeviceGetMemoryInfo(handle).total) >> 20,
        mig_profile=mig,
        power_limit_w=None if milliwatts is None else float(round(milliwatts / 1000)),
        host_cpu=cpu_model(),
        host_cpus=os.cpu_count() or 0,
    )


def cpu_model() -> str:
    """The processor's model name."""
    try:
        lines = CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model") and value.strip():
            return " ".join(value.split())
    return platform.processor() or platform.machine()


_VENDOR = frozenset({"nvidia", "tesla", "geforce", "gpu", "generation", "edition"})
_IMPLIED_MEMORY = {"h100": "80gb"}


def gpu_folder(name: str, mig_profile: str | None = None) -> str:
    """Short name of a GPU product: ``NVIDIA H100 80GB HBM3`` -> ``h100``, ``NVIDIA A100-SXM4-40GB`` -> ``a100-40gb``.

    SXM is the form without a suffix; memory is named where a product comes with several sizes.
    """
    words = [w for w in re.split(r"[^a-z0-9.]+", name.lower()) if w and w not in _VENDOR]
    words = [w for w in words if not re.fullmatch(r"hbm\w*|sxm\w*", w)]
    memory = [w for w in words if re.fullmatch(r"\d+gb", w)]
    words = [w for w in words if w not in memory]
    if words and memory == [_IMPLIED_MEMORY.get(words[0])]:
        memory = []
    mig = ["mig", mig_profile.lower()] if mig_profile else []
    return "-".join(words + memory + mig) or "gpu"


def hardware_differences(old: Hardware, new: Hardware, *, cpu_model: bool = False) -> list[str]:
    """Why a baseline of ``old`` says nothing about ``new``, as clauses; empty when it does.

    GPUs must agree in product, memory, MIG profile and power limit. CPUs of any model may be compared by
    speed-up; with ``cpu_model`` they must agree too.
    """
    if old.kind != new.kind or (old.name != new.name and (old.kind == "cuda" or cpu_model)):
        return [f"{old.name}, this is {new.name}"]
    if old.kind == "cpu":
        return []
    found = []
    if old.mig_profile != new.mig_profile:
        found.append(f"MIG {old.mig_profile or 'off'}, this is MIG {new.mig_profile or 'off'}")
    before, after = old.memory_mib or 0, new.memory_mib or 0
    if abs(after - before) > _MEMORY_SLACK * max(before, after):
        found.append(f"{before} MiB of memory, this has {after} MiB")
    watts, here = old.power_limit_w, new.power_limit_w
    if watts is not None and here is not None and abs(watts - here) > 1:
        found.append(f"a power limit of {watts:.0f} W, this has {here:.0f} W")
    return found


def _visible(library: Any, index: int) -> Any | None:
    """NVML's handle of CUDA device ``index``, None where it does not exist."""
    count = library.nvmlDeviceGetCount()
    handles = [library.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
    mask = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = [str(i) for i in range(count)] if mask is None else [part.strip() for part in mask.split(",")]
    if len(chosen) <= index:
        return None
    # CUDA stops at the first entry that it does not know, so everything before must be valid as well.
    found = None
    for entry in chosen[: index + 1]:
        if re.fullmatch(r"\d+", entry) and int(entry) < count:
            found = handles[int(entry)]
            _check_order(library, handles)
        elif re.match(r"GPU-|MIG-", entry):
            found = _by_uuid(library, handles, entry)
        else:
            return None
        if found is None:
            return None
    return _first_mig(library, found)


def _check_order(library: Any, handles: list[Any]) -> None:
    """CUDA numbers the fastest first, NVML by bus: unequal GPUs cannot be told apart by number alone."""
    names = {nvml.text(library.nvmlDeviceGetName(handle)) for handle in handles}
    if len(names) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise FluxPerfError(
            f"this machine has different GPUs ({', '.join(sorted(names))}); set CUDA_DEVICE_ORDER=PCI_BUS_ID, or "
            "choose one by its UUID in CUDA_VISIBLE_DEVICES"
        )


def _by_uuid(library: Any, handles: list[Any], entry: str) -> Any | None:
    if entry.startswith("MIG-"):
        return nvml.optional(library, "nvmlDeviceGetHandleByUUID", entry)
    found = [handle for handle in handles if nvml.text(library.nvmlDeviceGetUUID(handle)).startswith(entry)]
    return found[0] if len(found) == 1 else None


def _first_mig(library: Any, handle: Any) -> Any:
    """A card split by MIG is used through its first instance; any other handle is returned as it is."""
    mode, _ = nvml.optional(library, "nvmlDeviceGetMigMode", handle) or (None, None)
    if mode != 1 or nvml.optional(library, "nvmlDeviceIsMigDeviceHandle", handle):
        return handle
    return nvml.optional(library, "nvmlDeviceGetMigDeviceHandleByIndex", handle, 0) or handle


def _name(library: Any, handle: Any) -> tuple[str, str | None]:
    """Product name, and the MIG profile that NVML appends to it."""
    name, _, mig = nvml.text(library.nvmlDeviceGetName(handle)).partition(" MIG ")
    return name, mig or None


def _mask() -> str:
    mask = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if mask is None else f" (CUDA_VISIBLE_DEVICES={mask!r})"
