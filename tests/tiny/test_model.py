"""The embedded model through FluxPipeline itself."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline

from pytest_fluxperf.pipelines.models import resolve
from pytest_fluxperf.pipelines.tiny import MODEL_DIR
from tools.tiny_training import checker, scenes

GENERATE = """
import hashlib, sys, torch
from diffusers import FluxPipeline
torch.set_num_threads(1)
pipe = FluxPipeline.from_pretrained(sys.argv[1], dtype=torch.float32)
image = pipe("a small red ring left of a large blue star on a striped green background", height=256, width=256,
             num_inference_steps=4, max_sequence_length=32, generator=torch.Generator().manual_seed(5)).images[0]
print(hashlib.sha256(image.tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def pipe():
    torch.set_num_threads(1)
    pipe = FluxPipeline.from_pretrained(MODEL_DIR, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(pipe, prompt: str, seed: int = 5, steps: int = 28):
    return pipe(
        prompt,
        height=256,
        width=256,
        num_inference_steps=steps,
        guidance_scale=3.5,
        max_sequence_length=resolve("tiny").defaults.max_sequence_length,
        generator=torch.Generator().manual_seed(seed),
    ).images[0]


def test_nothing_custom_and_small(pipe):
    kinds = {type(part).__module__.split(".")[0] for part in pipe.components.values() if part is not None}
    assert kinds == {"diffusers", "transformers"}
    assert pipe.transformer.config.guidance_embeds
    assert pipe.vae.config.latent_channels == 16
    assert pipe.scheduler.config.use_dynamic_shifting
    assert sum(path.stat().st_size for path in MODEL_DIR.rglob("*") if path.is_file()) <= 24 * 2**20
    assert not [path for path in MODEL_DIR.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".ckpt")]


def test_the_same_picture_twice_in_one_process_and_in_another(pipe):
    prompt = "a small red ring left of a large blue star on a striped green background"
    first, again = (picture(pipe, prompt, steps=4) for _ in range(2))
    assert first.tobytes() == again.tobytes()
    done = subprocess.run([sys.executable, "-c", GENERATE, str(MODEL_DIR)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == hashlib.sha256(first.tobytes()).hexdigest()


def test_pictures_show_their_captions(pipe):
    singles = [scene for scene in scenes.held_out_scenes(200) if len(scene.things) == 1][:6]
    accepted = 0
    for seed, scene in enumerate(singles):
        pixels = np.asarray(picture(pipe, scenes.caption(scene), seed)).astype(np.float32) / 255
        accepted += sum(check.accepted for check in checker.check(pixels, scene))
    assert accepted >= 3  # the card says how often; chance would be one in some hundreds


def test_guidance_changes_the_picture(pipe):
    prompt = "a large green cross right of a small orange square on a striped gray background"
    weak, strong = (
        pipe(prompt, height=256, width=256, num_inference_steps=4, guidance_scale=g, max_sequence_length=32,
             generator=torch.Generator().manual_seed(0), output_type="np").images[0]
        for g in (1.0, 5.0)
    )  # fmt: skip
    assert np.abs(weak - strong).mean() > 0.005
