"""How the programs here start the suite; imports nothing but the standard library."""

from __future__ import annotations

import importlib.metadata
import sys


def pytest_command() -> list[str]:
    """Python with pytest and the plugin, which is named where it runs from its sources and is not found by itself."""
    entries = importlib.metadata.entry_points(group="pytest11")
    found = any(entry.name == "fluxperf" for entry in entries)
    return [sys.executable, "-m", "pytest", *([] if found else ["-p", "pytest_fluxperf.plugin"])]
