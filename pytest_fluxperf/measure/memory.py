"""Peak memory of the measured generations, independent of what else the session has loaded."""

from __future__ import annotations

import contextlib
from pathlib import Path

MIB = 2**20


class PeakMemory:
    """Peak memory between :meth:`start` and :meth:`peak_mib`.

    On a CUDA device: the allocator's peak less what was already allocated, plus ``resident`` bytes, the
    pipeline's own weights; so a base that another test left loaded does not count. On a CPU: the peak
    resident set of the process, which does hold whatever is loaded and is therefore reported, not gated.
    """

    def __init__(self, device: str, resident: int = 0) -> None:
        self._device = device
        self._resident = resident
        self._before = 0

    def start(self) -> None:
        """Begin to watch."""
        if self._device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        else:
            with contextlib.suppress(OSError):  # Linux: 5 resets the peak resident set size
                Path("/proc/self/clear_refs").write_text("5")

    def peak_mib(self) -> float | None:
        """Peak in MiB since :meth:`start`; None where the system does not tell."""
        if self._device.startswith("cuda"):
            import torch

            peak = torch.cuda.max_memory_allocated(self._device) - self._before
            return (peak + self._resident) / MIB
        try:
            status = Path("/proc/self/status").read_text()
        except OSError:
            return None
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        return None


def resident_bytes(pipe: object) -> int:
    """Bytes of the distinct parameters and buffers of a pipeline's modules."""
    seen: dict[int, int] = {}
    components = getattr(pipe, "components", None)
    for module in (components or {}).values():
        if not hasattr(module, "parameters"):
            continue
        for tensor in (*module.parameters(), *module.buffers()):
            storage = tensor.untyped_storage() if tensor.device.type != "meta" else None
            try:
                if storage is not None:
                    seen[storage.data_ptr()] = storage.nbytes()
            except (RuntimeError, NotImplementedError):  # tensor subclasses without a storage of their own
                seen[id(tensor)] = tensor.numel() * tensor.element_size()
    return sum(seen.values())
