"""The model card, written from ``training.json`` and ``evaluation.json`` alone."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_TEXT = """\
---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---

# tiny

A FLUX.1 pipeline small enough to ship inside a test tool: the classes of the real thing (`FluxTransformer2DModel`
with double and single blocks, guidance embedding and rotary positions, a 16-channel `AutoencoderKL`, `CLIPTextModel`,
`T5EncoderModel`, `FlowMatchEulerDiscreteScheduler` with dynamic shifting), {size} of float16 safetensors. It draws
256×256 pictures of coloured shapes from captions of a small grammar.

It exists so that performance and quality gates can be tried and tested on any machine without a download: prompts
change its pictures, step caches hit on it, and quantization costs it a little quality, as with FLUX.1-dev.

**Not for**: making pictures for people, judging how FLUX.1-dev will look or how fast it will be, or any prompt
outside its grammar. Thresholds and coefficients of step caches that suit it do not transfer to other models.

```python
import torch
from diffusers import FluxPipeline
from pytest_fluxperf.pipelines.tiny import MODEL_DIR

pipe = FluxPipeline.from_pretrained(MODEL_DIR)
pipe("a small red ring left of a large blue star on a striped green background",
     height=256, width=256, num_inference_steps=28, guidance_scale=3.5, max_sequence_length={tokens},
     generator=torch.Generator().manual_seed(0)).images[0]
```

`max_sequence_length={tokens}` is what it was trained with; `fluxperf.json` holds these defaults.

## Captions

One to three objects (`small` or `large`; eight colours; eight shapes), where they are (nine places for one object;
`left of`, `right of`, `above`, `below` for two; a row, a column or a triangle for three), and a background (five
patterns, six colours): `training/scenes.py` is the grammar. One caption in sixteen, by its CRC-32, is held out from
training; every figure below is from held-out captions.

![24 held-out captions and their pictures](../../../../docs/tiny-contact-sheet.png)

## Training

`python -m tools.tiny_training --out DIR`, which goes on from its last stage or
sitting: {seconds} on one {hardware} with torch {torch}, seed {seed}. VAE: {vae_steps} steps of
{vae_batch} pictures; reading, for the text encoders alone: {text_steps} steps of {text_batch} captions; flow
matching of transformer and text encoders together: {flow_steps} steps of {flow_batch}, captions dropped one time in
ten; distillation of guidance into the guidance embedding: {distil_steps} steps of {distil_batch}; {pictures} rendered
scenes.{note} Training and evaluation need the extra `flux`, matplotlib and scipy.

## Figures

Written by `python -m tools.tiny_training.evaluate`, {machine}, {steps} steps. What is not listed
has not been measured for these weights.
"""

_VAE = """
**Reconstruction.** VAE on {scenes} held-out scenes: {psnr_db:.1f} dB PSNR. The checker below accepts {accepted:.1%} of
the objects in these reconstructions ({accepted_exact:.1%} without its tolerance): a ceiling, within the error of the
sample, for generated pictures. Asked for any other shape than the one drawn, it accepts {mistaken:.1%}.
"""

_ADHERENCE = """
**Prompt adherence.** A checker that segments the picture by hue accepts {accepted:.1%} of {objects} objects in
{prompts} held-out prompts (colour found {color:.1%}, drawn once {once:.1%}, shape right {shape:.1%}, size right
{size:.1%}, place right {place:.1%}). An outline may fall short of its shape by up to three pixels on each side
(`checker.LOST_TIPS`), since the VAE blurs the tips of small stars and diamonds; without that tolerance it accepts
{accepted_exact:.1%}.
"""

_GUIDANCE = """
**Guidance**, objects accepted in {prompts} prompts by `guidance_scale`:

{table}
"""

_CACHING = """
**Step caches**, medians over {prompts} prompts against the uncached picture:

{table}

![Computed steps against SSIM and FLIP](../../../../docs/tiny-cache-curves.png)
"""

_TEACACHE = """
**TeaCache**'s polynomial, fitted to {pairs} pairs of steps, explains {r_squared:.0%} of the variance.
"""

_PRECISION = """
**Precision** against fp32:

{table}
"""

_COST = """
**Cost**, printed by `python -m tools.tiny_training.cost` ({machine}): a picture in {picture_s:.1f} s (fastest
{fastest_picture_s:.1f} s), loading in {loading_s:.1f} s, {memory_mib:.0f} MiB of memory beyond the imports. The same
prompt and seed gave {same} pictures, in one process and across {processes} processes.
"""


def write(folder: Path) -> None:
    """Write ``README.md`` beside the weights, with the figures that have been measured."""
    training = json.loads((folder / "training.json").read_text())
    figures = json.loads((folder / "evaluation.json").read_text())
    settings = json.loads((folder / "fluxperf.json").read_text())
    plan = training["plan"]
    weights = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    text = _TEXT.format(
        size=f"{weights / 2**20:.1f} MiB",
        note="".join(f" {note}" for note in training.get("notes", ())),
        tokens=settings["max_sequence_length"],
        seconds=f"{sum(training['seconds'].values()) / 60:.0f} minutes",
        hardware=training["hardware"],
        torch=training["torch"],
        machine=figures["machine"],
        steps=figures["steps"],
        **{name: plan[name] for name in plan if not name.endswith("_rate")},
    )
    for name, template in (("vae", _VAE), ("adherence", _ADHERENCE), ("teacache", _TEACACHE)):
        if figures.get(name):
            text += template.format(**figures[name])
    if rows := figures.get("guidance"):
        table = _table(
            ("guidance_scale", "objects accepted"), [(f"{r['guidance']:g}", f"{r['accepted']:.1%}") for r in rows]
        )
        text += _GUIDANCE.format(prompts=rows[0]["prompts"], table=table)
    if rows := figures.get("caching"):
        text += _CACHING.format(prompts=rows[0]["prompts"], table=_distances(rows))
    if rows := figures.get("precision"):
        text += _PRECISION.format(table=_distances(rows))
    if cost := figures.get("cost"):
        text += _COST.format(**cost, same="bit-identical" if cost["identical"] else "NOT bit-identical")
    (folder / "README.md").write_text(_wrap(text), encoding="utf-8")


def _wrap(text: str) -> str:
    """Markdown with its prose filled; front matter, headings, code, pictures and tables stay as they are."""
    blocks = re.split(r"(^```.*?^```$|\n{2,})", text.strip(), flags=re.MULTILINE | re.DOTALL)
    prose = re.compile(r"[A-Za-z*`](?!``)")
    return (
        "".join(
            textwrap.fill(block, 120, break_long_words=False, break_on_hyphens=False) if prose.match(block) else block
            for block in blocks
        )
        + "\n"
    )


def _distances(rows: Sequence[dict[str, Any]]) -> str:
    return _table(
        ("recipe", "computed steps", "SSIM", "PSNR dB", "FLIP"),
        [
            (
                f"`{row['recipe']}`",
                f"{row['computed_steps']:.1f}",
                f"{row['ssim']:.4f}",
                f"{row['psnr_db']:.1f}",
                f"{row['flip']:.4f}",
            )
            for row in rows
        ],
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
