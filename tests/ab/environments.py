"""Real virtual environments that share this one's packages and differ in one of their own."""

from __future__ import annotations

import sys
import sysconfig
import venv
from pathlib import Path

import pytest_fluxperf

PACKAGE = """
DECODE = {decode}
\"\"\"Factor on the work of decoding a picture.\"\"\"

WORK = {work}
\"\"\"Factor on everything else.\"\"\"

KERNEL = {kernel}
\"\"\"Numbers that every block puts through a Bessel function.\"\"\"

FAULT = {fault}
\"\"\"Whether optimizations are undone behind the test's back.\"\"\"
"""


def make_environment(
    folder: Path, version: str, *, decode: float = 1.0, work: float = 1.0, kernel: int = 0, fault: bool = False
) -> Path:
    """A virtual environment with the package ``slowphase`` of a version; returns its folder."""
    venv.create(folder, symlinks=True, with_pip=False)
    purelib = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    shared = sysconfig.get_paths()["purelib"]
    lines = [str(Path(pytest_fluxperf.__file__).parents[1]), f"import site; site.addsitedir({shared!r})"]
    (purelib / "shared.pth").write_text("\n".join(lines) + "\n")
    (purelib / "slowphase.py").write_text(PACKAGE.format(decode=decode, work=work, kernel=kernel, fault=fault))
    info = purelib / f"slowphase-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: slowphase\nVersion: {version}\n")
    (info / "RECORD").write_text("")
    return folder
