"""Loading a pipeline: from the hub or a folder."""

from __future__ import annotations

from typing import Any

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.pipelines.models import ModelInfo
from pytest_fluxperf.pipelines.optimizations.dtype import TORCH_NAMES


def load(info: ModelInfo, dtype: str, device: str) -> Any:
    """A FluxPipeline in ``dtype`` on ``device``, quiet and in evaluation mode.

    Raises :class:`FluxPerfError` when the weights are absent, gated or damaged.
    """
    import torch
    from diffusers import FluxPipeline

    try:
        pipe = FluxPipeline.from_pretrained(info.source, dtype=getattr(torch, TORCH_NAMES[dtype]))
    except (OSError, ValueError) as error:
        raise FluxPerfError(_explain(info, error)) from error
    pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval().requires_grad_(False)
    return pipe


def free(device: str) -> None:
    """Give unused device memory back."""
    import gc

    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def _explain(info: ModelInfo, error: Exception) -> str:
    return f"model {info.name!r} cannot be loaded: {error}"
