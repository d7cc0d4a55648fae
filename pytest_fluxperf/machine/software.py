"""The installed software: captured and compared."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_fluxperf import __version__
from pytest_fluxperf.machine import nvml, runtimes
from pytest_fluxperf.results import Environment

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


def capture() -> Environment:
    """The software of this process: every distribution, CUDA and the libraries below, and flags that change speed.

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
        packages=distributions(),
        cuda=cuda,
        cudnn=cudnn,
        driver=_driver(),
        runtimes=runtimes.versions(),
        flags={**_variables(), **(_torch_flags(torch) if torch is not None else {})},
    )


def distributions() -> dict[str, str]:
    """Every installed distribution, its name normalized as PyPI does, and its version.

    The plugin is there also where it runs from its sources.
    """
    found = {INSTRUMENT: __version__}
    for distribution in importlib.metadata.distributions():
        metadata = distribution.metadata  # read and parsed on every access
        if name := metadata["Name"]:
            # The first on sys.path is the one that gets imported.
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), metadata["Version"])
    return dict(sorted(found.items()))


def diff(old: Environment, new: Environment) -> list[tuple[str, str, str]]:
    """What differs, as ``(name, old, new)``, suspects first; :func:`differences` of two."""
    return [(d.name, d.baseline or ABSENT, d.now or ABSENT) for d in differences([old], [new])]


def stack_differences(old: Environment, new: Environment) -> list[tuple[str, str, str]]:
    """:func:`diff` without the distributions that no generation runs through."""
    others = (set(old.packages) | set(new.packages)) - set(STACK)
    return [entry for entry in diff(old, new) if entry[0] not in others]


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


def _driver() -> str | None:
    with nvml.session() as library:
        return None if library is None else nvml.text(library.nvmlSystemGetDriverVersion())


SYSTEM = ("cuda", "cudnn", "cublas", "nccl", "driver")
"""What lies below the packages, the likeliest suspect first."""


RIDERS = dict.fromkeys(("triton", "cuda", "cudnn", "cublas", "nccl"), "torch")
"""What a package's own release pins exactly: where that package moved too, this is no suspect of its own."""


@dataclass(frozen=True)
class Difference:
    """One thing of the environment that is not what it was; None for absent."""

    name: str
    baseline: str | None
    now: str | None
    suspect: bool
    """Whether an image's speed is known to rest on it."""
    rides_on: str | None = None
    """The package that moved too and brought this along."""

    def __str__(self) -> str:
        return f"{self.name} {self.baseline or ABSENT} → {self.now or ABSENT}"


def differences(before: Sequence[Environment], now: Sequence[Environment]) -> tuple[Difference, ...]:
    """What is not the same, suspects first (in the order in which a reader suspects them); empty without baselines.

    A runtime library that one side does not name is not known there, which is no difference.
    """
    if not before:
        return ()
    old, new = [flatten(e) for e in before], [flatten(e) for e in now]
    runtime_names = {name for environment in (*before, *now) for name in environment.runtimes}
    moved: dict[str, tuple[str | None, str | None]] = {}
    for name in set().union(*old, *new):
        was = list(dict.fromkeys(e.get(name) for e in old))
        current = list(dict.fromkeys(e.get(name) for e in new))
        if name in runtime_names:
            was, current = _without_none(was), _without_none(current)
        if set(was) != set(current) and was and current:
            moved[name] = (_listed(was), _listed(current))
    order = _order(runtime_names, {flag for environment in (*before, *now) for flag in environment.flags})
    found = [
        Difference(name, *versions, name in order, RIDERS[name] if RIDERS.get(name) in moved else None)
        for name, versions in moved.items()
    ]
    return tuple(sorted(found, key=lambda d: (order.get(d.name, len(order) + 1), d.name)))


def _order(runtime_names: Set[str], flags: Set[str]) -> dict[str, int]:
    """Rank of every name on which an image's speed is known to rest."""
    order = {name: rank for rank, name in enumerate((*STACK, *SYSTEM))}
    order |= {name: len(order) for name in runtime_names - order.keys()}
    return order | {name: len(order) + 1 for name in flags}


def flatten(environment: Environment) -> dict[str, str]:
    """Everything an environment says, as one flat mapping of names to values."""
    flat = {"python": environment.python, "platform": environment.platform}
    for name in ("cuda", "cudnn", "driver"):
        if value := getattr(environment, name):
            flat[name] = value
    return flat | environment.packages | environment.runtimes | environment.flags


def _without_none(values: Sequence[str | None]) -> list[str | None]:
    return [value for value in values if value is not None]


def _listed(values: Sequence[str | None]) -> str | None:
    return None if set(values) == {None} else ", ".join(v or ABSENT for v in values)
