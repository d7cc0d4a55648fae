"""Pictures of one test: validated, kept, compared."""

from __future__ import annotations

from typing import Any


def _not_finite(decoded: Any) -> int:
    import torch

    tensor = decoded[0] if isinstance(decoded, tuple | list) else getattr(decoded, "sample", decoded)
    return int((~torch.isfinite(tensor)).sum()) if isinstance(tensor, torch.Tensor) else 0
