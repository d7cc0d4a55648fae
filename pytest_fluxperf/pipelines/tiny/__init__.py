"""`tiny`: a small FLUX.1 pipeline trained for this project and shipped with it.

``MODEL_DIR`` is a diffusers folder: ``FluxPipeline.from_pretrained(MODEL_DIR)`` loads it with no download.
Its card is ``model/README.md``; the program that made it is the package ``training`` beside this file.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["MODEL_DIR", "PROMPTS_DIR", "held_out_prompts"]

MODEL_DIR: Path = Path(__file__).with_name("model")
"""The diffusers folder with weights, configurations, tokenizers, card and ``fluxperf.json``."""

PROMPTS_DIR: Path = Path(__file__).with_name("prompts")
"""Prompt lists, one prompt a line, all held out from training: ``default.txt`` and ``extended.txt``."""


def held_out_prompts(name: str = "default") -> list[str]:
    """The prompts of ``prompts/<name>.txt``: 8 in ``default``, 50 in ``extended``."""
    return (PROMPTS_DIR / f"{name}.txt").read_text(encoding="utf-8").splitlines()
