"""Arguments that several commands take, and what their text may be."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import Any

from pytest_fluxperf.errors import FluxPerfError

Commands = Any
"""What ``ArgumentParser.add_subparsers`` returns; argparse has no public name for it."""


def add_results(parser: argparse.ArgumentParser) -> None:
    """``results``: documents of recorded runs."""
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS.json", help="or the folder of a run")


def add_baselines(parser: argparse.ArgumentParser) -> None:
    """``--baselines``: the folder of all baselines."""
    parser.add_argument("--baselines", type=Path, default=Path("baselines"), metavar="DIR")


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device``; :func:`device` says which one is meant."""
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda where there is one)")


def device(name: str | None) -> str:
    """The device of that name, or CUDA where there is some. Imports torch.

    Raises:
        FluxPerfError: there is no such device here.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name is None:
        return "cuda" if gpus else "cpu"
    form = re.fullmatch(r"cpu|cuda(?::(\d+))?", name, re.ASCII)
    if form is None:
        raise FluxPerfError(f"--device {name}: no such device; name cpu, cuda or cuda:N")
    if name != "cpu" and int(form[1] or 0) >= gpus:
        seen = f"cuda:0 to cuda:{gpus - 1}" if gpus else "no CUDA GPU"
        raise FluxPerfError(f"--device {name}: torch sees {seen} here; name another, or cpu")
    return name


def seconds(text: str) -> float:
    """A positive, finite number of seconds; raises argparse.ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, not {text!r}")
    return value


def size_limit(text: str) -> int:
    """A limit in bytes, of at least 1000; raises argparse.ArgumentTypeError."""
    if not (text.isascii() and text.isdigit() and int(text) >= 1000):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1000, not {text!r}")
    return int(text)
