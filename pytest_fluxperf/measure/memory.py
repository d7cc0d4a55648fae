"""Peak memory of the measured generations, independent of what else the session has loaded."""

from __future__ import annotations

import contextlib
from pathlib import Path

MIB = 2**20


class PeakMemory:
    """Peak memory between :meth:`start` and :meth:`peak_mib`.

    On a CUDA device: the allocator's peak less ``beside_mib``, what the session holds that a serving process would not
    (other loaded bases, originals kept to undo a quantization). On a CPU: the peak resident set of the process, which
    does hold whatever is loaded and is therefore reported, not gated.
    """

    def __init__(self, device: str, beside_mib: float = 0.0) -> None:
        self._device = device
        self._beside_mib = beside_mib

    def start(self) -> None:
        """Begin to watch."""
        if self._device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            with contextlib.suppress(OSError):  # Linux: 5 resets the peak resident set size
                Path("/proc/self/clear_refs").write_text("5")

    def peak_mib(self) -> float | None:
        """Peak in MiB since :meth:`start`; None where the system does not tell."""
        if self._device.startswith("cuda"):
            import torch

            return torch.cuda.max_memory_allocated(self._device) / MIB - self._beside_mib
        try:
            status = Path("/proc/self/status").read_text()
        except OSError:
            return None
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        return None
