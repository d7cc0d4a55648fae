"""What is installed, and which hardware this is.

Software is the variable under test: captured, compared, never part of a baseline's key. Hardware is the key.
NVML is asked through ``pynvml``, imported on use; torch is looked at only where it is imported already.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_fluxperf import __version__
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.results import Environment, Hardware

STACK = (
    "torch", "diffusers", "transformers", "para-attn", "torchao", "cache-dit", "flash-attn", "flash-attn-3",
    "flash-attn-4", "sageattention", "xformers", "torch-tensorrt", "triton", "nvidia-cutlass-dsl", "accelerate", "peft",
    "safetensors", "torchvision", "nvidia-modelopt", "numpy",
)  # fmt: skip
"""The packages that FLUX latency and quality rest on, the likeliest suspect first."""

INSTRUMENT = "pytest-fluxperf"
"""What measures: listed among the packages, and never why a generation became slower."""

ABSENT = "absent"
"""Stands for the version of what is not installed, or the value of what is not set."""

CPUINFO = Path("/proc/cpuinfo")

_VARIABLES = (
    "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_LAUNCH_BLOCKING",
    "CUDA_MODULE_LOADING", "DIFFUSERS_ATTN_BACKEND", "DIFFUSERS_ATTN_CHECKS", "DNNL_MAX_CPU_ISA", "GOMP_CPU_AFFINITY",
    "KMP_AFFINITY", "KMP_BLOCKTIME", "LD_PRELOAD", "MALLOC_ARENA_MAX", "MALLOC_CONF", "MKL_NUM_THREADS",
    "NCCL_ALGO", "NCCL_PROTO", "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS", "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA", "OPENBLAS_NUM_THREADS", "PYTHONOPTIMIZE", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF",
    "TORCHDYNAMO_DISABLE", "TORCHINDUCTOR_COORDINATE_DESCENT_TUNING", "TORCHINDUCTOR_FREEZING",
    "TORCHINDUCTOR_MAX_AUTOTUNE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCH_COMPILE_DISABLE",
)  # fmt: skip
"""Environment variables that change speed or numerics; a closed list, so that no secret is ever recorded."""

_MEMORY_SLACK = 0.02  # Drivers differ in how much of a card's memory they keep for themselves.


# Software ------------------------------------------------------------------------------------------------


def capture() -> Environment:
    """The software of this process: every distribution, CUDA, cuDNN, driver, and flags that change speed.

    torch contributes only where it is imported already; call it after the first pipeline was built.
    """
    torch = sys.modules.get("torch")
    cuda = cudnn = None
    if torch is not None:
        cuda = getattr(torch.version, "cuda", None)
        version = torch.backends.cudnn.version() if cuda else None
        cudnn = None if version is None else str(version)
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        packages=installed(),
        cuda=cuda,
        cudnn=cudnn,
        driver=_driver(),
        flags={**_variables(), **(_torch_flags(torch) if torch is not None else {})},
    )


def installed() -> dict[str, str]:
    """Every installed distribution, its name normalized as PyPI does, and its version.

    The plugin is there also where it runs from its sources.
    """
    found = {INSTRUMENT: __version__}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            # The first on sys.path is the one that gets imported.
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return dict(sorted(found.items()))


def diff(old: Environment, new: Environment) -> list[tuple[str, str, str]]:
    """What differs, as ``(name, old, new)``: the FLUX stack, then system and flags, then everything else."""
    names = set(old.packages) | set(new.packages)
    stack = [name for name in STACK if name in names]
    rest = sorted(names - set(STACK))
    found = [_entry(name, old.packages, new.packages) for name in stack]
    for name in ("python", "cuda", "cudnn", "driver", "platform"):
        found.append((name, getattr(old, name) or ABSENT, getattr(new, name) or ABSENT))
    found += [_entry(name, old.flags, new.flags) for name in sorted(set(old.flags) | set(new.flags))]
    found += [_entry(name, old.packages, new.packages) for name in rest]
    return [(name, before, after) for name, before, after in found if before != after]


def stack_differences(old: Environment, new: Environment) -> list[tuple[str, str, str]]:
    """:func:`diff` without the distributions that no generation runs through."""
    others = (set(old.packages) | set(new.packages)) - set(STACK)
    return [entry for entry in diff(old, new) if entry[0] not in others]


def _entry(name: str, old: dict[str, str], new: dict[str, str]) -> tuple[str, str, str]:
    return name, old.get(name, ABSENT), new.get(name, ABSENT)


def _variables() -> dict[str, str]:
    flags = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    if "LD_PRELOAD" in flags:  # Which allocator, not where it lies.
        flags["LD_PRELOAD"] = " ".join(Path(part).name for part in re.split(r"[:\s]+", flags["LD_PRELOAD"]) if part)
    return flags


def _torch_flags(torch: Any) -> dict[str, str]:
    settings = {
        "torch.float32_matmul_precision": torch.get_float32_matmul_precision,
        "torch.num_threads": torch.get_num_threads,
        "torch.num_interop_threads": torch.get_num_interop_threads,
        "torch.cudnn.benchmark": lambda: torch.backends.cudnn.benchmark,
        "torch.cudnn.allow_tf32": lambda: torch.backends.cudnn.allow_tf32,
        "torch.matmul.allow_tf32": lambda: torch.backends.cuda.matmul.allow_tf32,
        "torch.deterministic": torch.are_deterministic_algorithms_enabled,
    }
    flags = {}
    for name, read in settings.items():
        try:
            flags[name] = str(read())
        except (AttributeError, RuntimeError):
            continue  # Names move between releases; reading one API after writing the other raises.
    return flags


# Hardware ------------------------------------------------------------------------------------------------


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
    with _nvml() as nvml:
        handle = None if nvml is None else _visible(nvml, 0)
        if handle is None and wanted == "auto":
            return _cpu()
        if handle is None:
            reason = "no NVIDIA driver answers" if nvml is None else f"no GPU is visible{_mask()}"
            raise FluxPerfError(f"--gpu {requested}: {reason}; use --gpu cpu, or run it where that GPU is")
        hardware = _hardware(nvml, handle)
        found = gpu_folder(hardware.name, hardware.mig_profile)
        if wanted not in ("auto", found):
            product = f"{hardware.name} MIG {hardware.mig_profile}" if hardware.mig_profile else hardware.name
            raise FluxPerfError(
                f"--gpu {requested}: this machine has {product}; use --gpu {found} (or auto), or run it where a "
                f"{requested} is"
            )
        return Gpu(found, "cuda:0", hardware, _text(nvml.nvmlDeviceGetUUID(handle)))


def detect_hardware(device: str = "cuda") -> Hardware:
    """The hardware behind ``cpu``, ``cuda`` or ``cuda:N`` (as CUDA_VISIBLE_DEVICES numbers them).

    Raises FluxPerfError when there is no such GPU.
    """
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return _cpu().hardware
    with _nvml() as nvml:
        handle = None if nvml is None else _visible(nvml, int(index or 0))
        if handle is None:
            reason = "no NVIDIA driver answers" if nvml is None else f"no GPU is visible as {device}{_mask()}"
            raise FluxPerfError(f"{reason}; use --gpu cpu")
        return _hardware(nvml, handle)


def _cpu() -> Gpu:
    model = cpu_model()
    return Gpu("cpu", "cpu", Hardware(kind="cpu", name=model, host_cpu=model, host_cpus=os.cpu_count() or 0))


def _hardware(nvml: Any, handle: Any) -> Hardware:
    name, mig = _name(nvml, handle)
    card = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle) if mig else handle
    # The limit that is set, not the power that is drawn: part of what the card is.
    watts = _optional(nvml, lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(card) / 1000)
    return Hardware(
        kind="cuda",
        name=name,
        memory_mib=int(nvml.nvmlDeviceGetMemoryInfo(handle).total) >> 20,
        mig_profile=mig,
        power_limit_w=None if watts is None else float(round(watts)),
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


@contextmanager
def _nvml() -> Iterator[Any]:
    """NVML for the duration of a block, None where no driver answers."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _driver() -> str | None:
    with _nvml() as nvml:
        return None if nvml is None else _text(nvml.nvmlSystemGetDriverVersion())


def _visible(nvml: Any, index: int) -> Any | None:
    """NVML's handle of CUDA device ``index``, None where it does not exist."""
    count = nvml.nvmlDeviceGetCount()
    handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
    mask = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = [str(i) for i in range(count)] if mask is None else [part.strip() for part in mask.split(",")]
    if len(chosen) <= index:
        return None
    # CUDA stops at the first entry that it does not know, so everything before must be valid as well.
    found = None
    for entry in chosen[: index + 1]:
        if re.fullmatch(r"\d+", entry) and int(entry) < count:
            found = handles[int(entry)]
            _check_order(nvml, handles)
        elif re.match(r"GPU-|MIG-", entry):
            found = _by_uuid(nvml, handles, entry)
        else:
            return None
        if found is None:
            return None
    return _first_mig(nvml, found)


def _check_order(nvml: Any, handles: list[Any]) -> None:
    """CUDA numbers the fastest first, NVML by bus: unequal GPUs cannot be told apart by number alone."""
    names = {_text(nvml.nvmlDeviceGetName(handle)) for handle in handles}
    if len(names) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise FluxPerfError(
            f"this machine has different GPUs ({', '.join(sorted(names))}); set CUDA_DEVICE_ORDER=PCI_BUS_ID, or "
            "choose one by its UUID in CUDA_VISIBLE_DEVICES"
        )


def _by_uuid(nvml: Any, handles: list[Any], entry: str) -> Any | None:
    if entry.startswith("MIG-"):
        return _optional(nvml, lambda: nvml.nvmlDeviceGetHandleByUUID(entry))
    found = [handle for handle in handles if _text(nvml.nvmlDeviceGetUUID(handle)).startswith(entry)]
    return found[0] if len(found) == 1 else None


def _first_mig(nvml: Any, handle: Any) -> Any:
    """A card split by MIG is used through its first instance; any other handle is returned as it is."""
    mode = _optional(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle)[0])
    if mode != 1 or _optional(nvml, lambda: nvml.nvmlDeviceIsMigDeviceHandle(handle)):
        return handle
    return _optional(nvml, lambda: nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, 0)) or handle


def _name(nvml: Any, handle: Any) -> tuple[str, str | None]:
    """Product name, and the MIG profile that NVML appends to it."""
    name, _, mig = _text(nvml.nvmlDeviceGetName(handle)).partition(" MIG ")
    return name, mig or None


def _optional(nvml: Any, read: Any) -> Any | None:
    try:
        return read()
    except nvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _mask() -> str:
    mask = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if mask is None else f" (CUDA_VISIBLE_DEVICES={mask!r})"
