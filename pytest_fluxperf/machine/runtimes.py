"""Versions of the libraries below torch that no list of packages shows, as this process has loaded them.

A container may bring its own cuBLAS and NCCL, and kernels from the Hugging Face hub are fetched at run time.
"""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path
from typing import Any

_MAPS = Path("/proc/self/maps")
_SNAPSHOT = re.compile(
    r"/(?:models|kernels)--(?P<owner>[^/]+)--(?P<name>[^/]+)/snapshots/(?P<revision>[0-9a-f]{7,40})/"
)
"""Where the hub's cache keeps a repository's files."""


def versions() -> dict[str, str]:
    """Name and version of each; nothing is loaded for it, and what is not there, or does not tell, is left out.

    ``cublas`` is of libcublas, ``nccl`` of the one that torch was built with, ``hub:OWNER/NAME`` the revision of a
    repository of the hub from which modules were imported.
    """
    found = {"cublas": _cublas(), "nccl": _nccl(sys.modules.get("torch"))}
    return {name: version for name, version in found.items() if version} | _hub_kernels()


def _cublas() -> str | None:
    """By ``cublasGetProperty`` (major, minor, patch), which needs no GPU."""
    path = _shared_library("libcublas.so")
    if path is None:
        return None
    try:
        ask = ctypes.CDLL(path).cublasGetProperty
    except (OSError, AttributeError):
        return None
    numbers = []
    for which in range(3):
        number = ctypes.c_int()
        if ask(which, ctypes.byref(number)) != 0:
            return None
        numbers.append(str(number.value))
    return ".".join(numbers)


def _shared_library(name: str) -> str | None:
    """Path of a library of this process whose file name begins with ``name``."""
    try:
        lines = _MAPS.read_text(errors="replace").splitlines()
    except OSError:
        return None
    paths = (line.split(maxsplit=5)[5] for line in lines if "/" in line)
    return next((path for path in paths if Path(path).name.startswith(name)), None)


def _nccl(torch: Any) -> str | None:
    if torch is None or not getattr(torch.version, "cuda", None):
        return None
    try:
        return ".".join(map(str, torch.cuda.nccl.version()))
    except (AttributeError, RuntimeError, TypeError):  # a build without NCCL
        return None


def _hub_kernels() -> dict[str, str]:
    revisions = {}
    for module in list(sys.modules.values()):
        if place := _SNAPSHOT.search(str(getattr(module, "__file__", None) or "")):
            revisions[f"hub:{place['owner']}/{place['name']}"] = place["revision"]
    return dict(sorted(revisions.items()))
