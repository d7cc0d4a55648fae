"""torch's profiler, without what its library announces on standard error at every start and stop.

The announcements are of libkineto's highest level, so the level that hides them hides its errors too. What such an
error leaves behind, a GPU's profile without a kernel, is warned of instead.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

LOG_LEVEL = "KINETO_LOG_LEVEL"
"""Environment variable that libkineto reads before its first profile; a level that the user chose is kept."""

SILENT = "6"
"""Above libkineto's levels: 4 is an error, 5 (USDT) an announcement."""


def profiler(device: str, *, operators: bool = True, **options: Any) -> Any:
    """A ``torch.profiler.profile``, not started, of the host's ``operators`` and, on ``cuda``, of its kernels.

    ``options`` are the class's own.
    """
    from torch.profiler import ProfilerActivity, profile

    os.environ.setdefault(LOG_LEVEL, SILENT)
    activities = [ProfilerActivity.CPU] * operators + [ProfilerActivity.CUDA] * device.startswith("cuda")
    return profile(activities=activities, **options)


def warn_without_kernels(device: str) -> None:
    """Warn that a generation on ``device`` was profiled and no kernel was seen."""
    warnings.warn(
        f"torch's profiler saw no kernel on {device}, so nothing is known of kernels here; {LOG_LEVEL}=4 shows why",
        RuntimeWarning,
        stacklevel=2,
    )
