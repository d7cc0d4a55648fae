"""Trained networks → a folder that ``FluxPipeline.from_pretrained`` loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from . import scenes
from .architecture import MAX_TOKENS, Networks
from .flow import Denoiser

STEPS = 28
GUIDANCE = 3.5


def pipeline(networks: Networks, denoiser: Denoiser) -> Any:
    """A FluxPipeline of the trained parts, with FLUX.1-dev's scheduler settings."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    return FluxPipeline(
        scheduler=scheduler,
        vae=networks.vae,
        text_encoder=denoiser.clip,
        tokenizer=networks.clip_tokenizer,
        text_encoder_2=denoiser.t5,
        tokenizer_2=networks.t5_tokenizer,
        transformer=denoiser.transformer,
    )


def save(pipe: Any, folder: Path, record: dict[str, Any]) -> None:
    """Write weights in float16, configurations, tokenizers, generation defaults, and how it was trained."""
    if folder.exists():
        shutil.rmtree(folder)
    pipe.to("cpu", torch.float16).save_pretrained(folder, safe_serialization=True)
    defaults = {"size": scenes.CANVAS, "steps": STEPS, "guidance": GUIDANCE, "max_sequence_length": MAX_TOKENS}
    _write(folder / "fluxperf.json", defaults)
    _write(folder / "training.json", record)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
